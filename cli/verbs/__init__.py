"""The verbs of ./pvmlab by topic, each module with its ``collection``; ``tasks.py`` joins them.

No logic: each checks its words and calls ``lab`` or ``cli``. Imports stand inside the verbs: listing and helping must
stay fast.
"""
