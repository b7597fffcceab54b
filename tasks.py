"""The verbs of ./pvmlab: those of the whole lab, and by topic those of ``cli.verbs``. No logic.

Imports stand inside the verbs: listing and helping must stay fast.
"""

from __future__ import annotations

from collections.abc import Sequence

from invoke import Collection, Context, Exit, task

from cli.verbs import cache, configuration, distros, labs, machines, networks, provisioner
from cli.verbs.words import ACTED, OUTPUT, TASKS, TIMEOUT


@task(name="up", auto_shortflags=False, help={
    "name": "the target machine, created if it is missing",
    "distro": "what to install on it",
    "timeout": TIMEOUT,
    "output": ACTED,
})  # fmt: skip
def up(_c: Context, name: str = "target1", distro: str = "", timeout: int = 0, output: str = "table") -> None:
    """Bring the lab up: build what is missing, start the provisioner, install a target; return when SSH lets in.

    Again: says that everything is up. Ctrl-C stops what it started; the next `up` carries on.
    """
    from cli.afterwards import tell_machine
    from cli.builds import DoitArtifacts
    from cli.setup import setup
    from cli.start_checks import require_documents
    from lab import journey
    from lab.lab import Lab
    from lab.progress import open_reporter

    setup(for_tests=False)
    lab = Lab.from_environment()
    with open_reporter() as reporter:
        journey.up(
            lab, name=name, distro=distro or None, reporter=reporter, artifacts=DoitArtifacts(),
            timeout=timeout or None, check=lambda machine: require_documents(lab, machine),
        )  # fmt: skip
    tell_machine(name, output=output)


@task(name="render", positional=["name"], auto_shortflags=False, help={
    "name": "the machine",
    "what": "ipxe, config, user-data, network-config, autoinstall, preseed, ...: see docs/reference/templates.md",
    "check": "say whether its reader would take it, instead of printing it",
    "secrets": "show the machine's private host key",
    "output": "table: the document as it is; json: an object with it",
})  # fmt: skip
def render(
    _c: Context, name: str, what: str = "", *, check: bool = False, secrets: bool = False, output: str = "table"
) -> None:  # fmt: skip
    """Print what a machine would get from the boot handler, made by the same code; nothing is started."""
    from cli.render_verbs import render as render_document

    render_document(name, what=what, secrets=secrets, check=check, output=output)


@task(name="build", positional=[], iterable=["task"], auto_shortflags=False, help={
    "task": TASKS,
    "jobs": "tasks at once",
    "wait-lock": "seconds to wait for another build of the same cache (default: not at all)",
    "keep-going": "after a failure go on with what does not depend on it",
    "dry-run": "only say what would run, and why",
    "output": "text, or json: one object a line for each event (docs/reference/build-events.md)",
})  # fmt: skip
def build_artifacts(
    _c: Context, task: Sequence[str], jobs: int = 2, wait_lock: int = 0, *, keep_going: bool = False,
    dry_run: bool = False, output: str = "text",
) -> None:  # fmt: skip
    """Build artifacts that are missing or out of date, and all they need. The same as `doit`."""
    from cli import builds

    raise Exit(code=builds.build_or_plan(
        task, jobs=jobs, wait=wait_lock, keep_going=keep_going, dry_run=dry_run, output=output,
    ))  # fmt: skip


@task(name="explain", positional=[], iterable=["task"], auto_shortflags=False, help={
    "task": TASKS,
    "output": OUTPUT,
})  # fmt: skip
def explain_build(_c: Context, task: Sequence[str], output: str = "table") -> None:
    """Say what a build would run, and for which reason: the input, source, option or tool that changed."""
    from cli.builds import explain, select

    explain(select(task), output=output)


@task(name="down", auto_shortflags=False, help={
    "timeout": "seconds for the guests to shut down, then force is used",
    "output": ACTED,
})  # fmt: skip
def down(_c: Context, timeout: int = 60, output: str = "table") -> None:
    """Stop all machines of the lab and its network. What is on their disks stays."""
    from cli.afterwards import tell_lab
    from lab import journey
    from lab.lab import Lab
    from lab.progress import open_reporter

    with open_reporter() as reporter:
        journey.down(Lab.from_environment(), reporter=reporter, timeout=timeout)
    tell_lab(output=output)


@task(name="clean", auto_shortflags=False, help={
    "yes": "do not ask",
    "keys": "remove the lab's keys and settings too",
    "purge": "remove keys, settings, the lab's network on this host, and all that was built, too",
    "output": ACTED,
})  # fmt: skip
def clean(
    _c: Context, *, yes: bool = False, keys: bool = False, purge: bool = False, output: str = "table"
) -> None:  # fmt: skip
    """Remove all machines of the lab: definitions, disks, logs. Built artifacts and the lab's keys stay.

    With --purge only files that pvmlab did not make stay, and .venv in the repository.
    """
    from cli.afterwards import tell_lab
    from cli.clean_verbs import clean_lab

    clean_lab(yes=yes, keys=keys, purge=purge)
    tell_lab(output=output)


@task(name="gc", auto_shortflags=False, help={
    "dry-run": "only say what would be removed, and why",
    "yes": "do not ask",
    "output": OUTPUT,
})  # fmt: skip
def collect_garbage(_c: Context, *, dry_run: bool = False, yes: bool = False, output: str = "table") -> None:
    """Remove what nobody needs any more: leftovers of killed commands, crashes, and machines that are gone.

    Never a disk of a machine that is defined. `cache.prune --keep-used` also removes artifacts that no machine needs.
    """
    from cli.gc_verbs import collect_garbage as collect

    collect(dry_run=dry_run, yes=yes, output=output)


@task(name="status", auto_shortflags=False, help={"output": OUTPUT})
def status(_c: Context, output: str = "table") -> None:
    """Show what there is and how it stands: provisioner, machines, network, accelerator, artifacts."""
    from cli.lab_views import show_status
    from lab.lab import Lab

    show_status(Lab.from_environment(), output=output)


@task(name="setup", auto_shortflags=False, help={
    "tests": "also what only the tests need",
    "host-mode": "also what a provisioner in host mode needs",
})  # fmt: skip
def setup_host(_c: Context, *, tests: bool = False, host_mode: bool = False) -> None:
    """Install the system packages that are missing on this host, after saying which."""
    from cli.setup import setup

    setup(for_tests=tests, for_host_mode=host_mode)


@task(name="doctor", auto_shortflags=False, help={
    "fix": "carry out the repairs that are safe; asks before it changes the host",
    "yes": "do not ask",
    "output": OUTPUT,
})  # fmt: skip
def doctor_host(_c: Context, *, fix: bool = False, yes: bool = False, output: str = "table") -> None:
    """Check this host: what is missing, and the command that repairs it."""
    from cli.doctor import doctor

    raise Exit(code=doctor(output=output, fix=fix, yes=yes))


@task(name="test", auto_shortflags=False, help={
    "fast": "leave out the tests that start machines",
    "nightly": "also the long repetitions, for hours",
    "k": "only tests whose names match this expression, as pytest's -k",
})  # fmt: skip
def run_tests(_c: Context, *, fast: bool = False, nightly: bool = False, k: str = "") -> None:
    """Run the tests, the linters among them."""
    from cli import testing

    testing.run_tests(fast=fast, nightly=nightly, expression=k)


@task(name="completion", positional=["shell"], auto_shortflags=False, help={"shell": "bash, zsh or fish"})
def print_completion(_c: Context, shell: str) -> None:
    """Print a script that completes verbs, options and names after TAB: `source <(./pvmlab completion bash)`."""
    from cli.completion import print_script

    print_script(shell)


@task(name="lint", auto_shortflags=False)
def lint_code(_c: Context) -> None:
    """Run the linters."""
    from cli.testing import lint

    lint()


namespace = Collection(
    up, build_artifacts, explain_build, down, clean, status, render, setup_host, doctor_host, run_tests, lint_code,
    print_completion, collect_garbage,
    cache=cache.collection,
    config=configuration.collection,
    vm=machines.collection,
    lab=labs.collection,
    distro=distros.collection,
    net=networks.collection,
    provisioner=provisioner.collection,
)  # fmt: skip
