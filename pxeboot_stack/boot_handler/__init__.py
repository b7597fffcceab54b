"""The boot handler: tells each machine what to boot, gives the installer its configuration, keeps install states.

:mod:`.handler` decides and knows nothing of HTTP servers; :mod:`.app` carries it over HTTP.
"""
