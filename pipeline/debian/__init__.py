"""Debian packages: pinned, fetched, installed into root filesystems."""
