"""A small Linux that QEMU boots to read file systems for us: ext4, xfs and btrfs, by the kernel's own drivers.

Nothing of a foreign file system is parsed on the host, nothing is mounted, and nobody needs to be root.
"""
