"""The installer: runs from the initrd of a machine that was booted over the network, and puts a system on its disk.

Standard library and ``contracts`` only. ``init`` is the first program, ``python3 -m installer`` what it starts.
"""
