"""doit's entry: the graph of artifacts.

::

    snapshot:<suite>:<arch> ──> packages:<set>:<arch> ──> each of the first in these lines:

    fetch:<distro>:<arch>:<medium> ─┬─> image:<distro>:<arch>    (a cloud image as a raw disk)
                                    ├─> native:<distro>:<arch>   (the distribution's own installer)
    packages ───────────────────────┴─> rootfs:<distro>:<arch> ─┬─> kernel:<distro>:<arch>
                                                                └─> modules:<distro>:<arch>
    container-rootfs:<arch> ─┬─> container:<arch> ──┐
    ipxe:<arch> ─────────────┘                      │
    provisioner-rootfs:<arch> ──────────────────────┴─> provisioner:<arch>
    initrd:<arch>

``doit list --all``, ``doit rootfs:debian-12:x86_64``, ``doit -n 2``. ``doit`` alone makes what needs no medium.
The same from ``./pvmlab up``, as far as it needs.
"""

from pipeline.recipes.graph import doit_namespace

globals().update(doit_namespace())
