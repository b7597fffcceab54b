"""Building from the verbs: what ``doit`` would do, as far as a machine needs it."""

from __future__ import annotations

from contracts.arch import Arch


class DoitArtifacts:
    """Builds by the project's doit graph. Implements :class:`lab.journey.Artifacts`."""

    def ensure_for(self, distro: str, arch: Arch) -> None:
        """Build what an install of *distro* needs.

        :raises NotFoundError: for an unknown distribution. :raises PvmlabError: if a recipe fails.
        """
        from distros.registry import require_release
        from pipeline.recipes import build, graph

        require_release(distro, arch)
        build.ensure(graph.machine_tasks(distro, arch))

    def ensure_provisioner(self) -> None:
        """Build what the provisioner is made from.

        :raises PvmlabError: if a recipe fails.
        """
        from lab.provisioner import ARCH
        from pipeline.recipes import build

        build.ensure([f"provisioner:{ARCH}"])
