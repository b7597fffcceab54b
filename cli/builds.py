"""Building and explaining: what ``doit`` does, with options of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cli.output import emit
from contracts.arch import Arch
from contracts.machine import Installer, VmDefinition
from lab.lab import Lab
from lab.provisioner_record import ProvisionerMode, find_mode
from pipeline.engine.lock import lock_wait
from pipeline.errors import ExitCode, UsageError

if TYPE_CHECKING:  # they load the whole graph, which --help must not
    from pipeline.engine.plan import Step


_OUTPUTS = {"text": "table", "json": "json"}  # of a build, and what a plan is then printed as


class DoitArtifacts:
    """Builds by the project's doit graph. Implements :class:`lab.journey.Artifacts`.

    :param mode: where the provisioner's services run; None for what the lab of the environment says.
    """

    def __init__(self, mode: ProvisionerMode | None = None) -> None:
        self._mode = mode or find_mode(Lab.from_environment().home)

    def ensure_for(self, distro: str, arch: Arch, installer: Installer) -> None:
        """Build what an install of *distro* by *installer* needs.

        :raises NotFoundError: for an unknown distribution. :raises UsageError: if it cannot be installed so.
        :raises PvmlabError: if a recipe fails.
        """
        from distros.registry import require_release
        from pipeline.recipes import build, graph

        require_release(distro, arch)
        tasks = graph.machine_tasks(distro, arch, installer)
        if self._mode is ProvisionerMode.HOST:
            tasks = [*self._provisioner_tasks(), *(task for task in tasks if not task.startswith("provisioner:"))]
        if unknown := [task for task in tasks if task not in graph.graph().artifacts]:
            raise UsageError(
                f"{distro} cannot be installed on {arch} machines by {installer}",
                details=f"there is no task {unknown[0]}",
                resolution=f"./pvmlab distro.show {distro} says what there is",
            )
        build.ensure(tasks)

    def ensure_image(self, distro: str, arch: Arch) -> None:
        """Build the cloud image of *distro* as a disk, and what the provisioner is made from.

        :raises NotFoundError: for an unknown distribution. :raises UsageError: if it publishes no cloud image.
        :raises PvmlabError: if a recipe fails.
        """
        from pipeline.recipes import build

        build.ensure([*self._provisioner_tasks(), image_task(distro, arch)])

    def seed_documents(self, lab: Lab, definition: VmDefinition) -> Mapping[str, str]:
        """Return the NoCloud documents of a machine, made by the boot handler's own code: templates count here, too.

        :raises PvmlabError: if a person's file for one cannot be used.
        """
        from cli.render_verbs import seed_documents

        return seed_documents(lab, definition)

    def ensure_provisioner(self) -> None:
        """Build what the provisioner is made from.

        :raises PvmlabError: if a recipe fails.
        """
        from pipeline.recipes import build

        build.ensure(self._provisioner_tasks())

    def _provisioner_tasks(self) -> list[str]:
        """Return the tasks of what the provisioner is made from; in host mode, of all network boot programs."""
        from lab.provisioner import ARCH
        from pipeline.recipes.graph import graph

        if self._mode is ProvisionerMode.HOST:
            return [name for name in graph().artifacts if name.startswith("ipxe:")]
        return [f"provisioner:{ARCH}"]


def image_task(distro: str, arch: Arch) -> str:
    """Return the task that makes the disk of a distribution's cloud image.

    :raises NotFoundError: for an unknown distribution. :raises UsageError: if it publishes no cloud image.
    """
    from distros.registry import require_release
    from distros.release import MediumKind

    if MediumKind.CLOUD_IMAGE not in require_release(distro, arch).sources[arch].media:
        raise UsageError(
            f"the definition of {distro} names no cloud image for {arch}",
            resolution="--disk=FILE takes one of yours; docs/reference/distribution-files.md says how a file names one",
        )
    return f"image:{distro}:{arch}"


def select(words: Sequence[str]) -> list[str]:
    """Return the tasks that *words* name; those that ``doit`` alone runs, if there are none.

    :raises NotFoundError: for a word that names no task.
    """
    from pipeline.recipes.graph import default_tasks, graph

    return graph().select(words) if words else default_tasks()


def build_or_plan(words: Sequence[str], *, jobs: int, wait: int, keep_going: bool, dry_run: bool, output: str) -> int:
    """Build what *words* name and all it needs, or with *dry_run* say what that would do.

    :returns: the exit code: of the first failure, which is told.
    :raises PvmlabError: if nothing could be built at all. :raises UsageError: for an option that makes no sense.
    """
    if output not in _OUTPUTS:
        raise UsageError(f"--output {output!r} is unknown", resolution=f"use one of: {', '.join(_OUTPUTS)}")
    if jobs < 1 or wait < 0:
        raise UsageError("--jobs is 1 or more, --wait-lock 0 or more")
    if dry_run:
        explain(select(words), output=_OUTPUTS[output])
        return ExitCode.DONE
    from pipeline.recipes.build import BuildOptions, run_build

    options = BuildOptions(jobs=jobs, wait=wait or lock_wait(), keep_going=keep_going, output=output)
    failures = run_build(select(words), options).failures
    return failures[0].exit_code if failures else ExitCode.DONE


def explain(tasks: Sequence[str], *, output: str) -> None:
    """Print which of *tasks* and all they need would run, and why. :raises UsageError: for an unknown *output*."""
    from pipeline.engine.plan import plan
    from pipeline.recipes.graph import graph

    steps = plan(graph(), tasks)
    table = [("TASK", "VERDICT", "WHY", "LAST TOOK"), *(row for step in steps for row in _rows(step))]
    emit({"steps": steps}, output=output, table=table)


def _rows(step: Step) -> list[tuple[str, str, str, str]]:
    took = f"{step.expected_seconds:.0f} s" if step.expected_seconds is not None else ""
    first, *others = step.reasons or ("",)
    return [(step.task, str(step.verdict), first, took), *(("", "", reason, "") for reason in others)]
