"""doit's entry: the graph of artifacts.

::

    rootfs:<distro>:<arch> ─┬─> kernel:<distro>:<arch>
                            └─> modules:<distro>:<arch>
    container-rootfs:<arch> ──> container:<arch> ──┐
    provisioner-rootfs:<arch> ─────────────────────┴─> provisioner:<arch>
    initrd:<arch>     ipxe:<arch>

``doit list --all``, ``doit rootfs:debian-12:x86_64``, ``doit -n 2``. The same from ``./pvmlab up``, as far as it needs.
"""

from pipeline.recipes.graph import doit_namespace

globals().update(doit_namespace())
