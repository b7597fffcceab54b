"""Kernels of every family of distributions: their files and modules, found in root filesystems."""
