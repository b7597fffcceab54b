"""The services of the provisioner: boot handler (HTTP), dnsmasq, nginx and the watcher, in one container.

Everything here that runs in the container imports ``contracts`` and the container's own libraries, nothing else.
:mod:`pxeboot_stack.container` and :mod:`pxeboot_stack.provisioner` are data for those who build the container and
the provisioner's disk.
"""
