"""Runs machines: definitions, QEMU, network, SSH, the provisioner, and the way from nothing to a login."""
