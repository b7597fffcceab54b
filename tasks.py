"""The verbs of ./pvmlab. No logic: each checks its words and calls ``lab`` or ``cli``.

Imports stand inside the verbs: listing and helping must stay fast.
"""

from __future__ import annotations

from collections.abc import Sequence

from invoke import Collection, Context, Exit, task

_OUTPUT = "table, or json for programs"
_TASKS = "tasks, kinds (rootfs), patterns ('*:debian-12:*') or files; if there are none, all that needs no media"
_TIMEOUT = "seconds to wait at most (default: enough for a machine many times slower than this one)"


@task(name="up", auto_shortflags=False, help={
    "name": "the target machine, created if it is missing",
    "distro": "what to install on it",
    "timeout": _TIMEOUT,
})  # fmt: skip
def up(_c: Context, name: str = "target1", distro: str = "", timeout: int = 0) -> None:
    """Bring the lab up: build what is missing, start the provisioner, install a target; return when SSH lets in.

    Again: says that everything is up. Ctrl-C stops what it started; the next `up` carries on.
    """
    from cli.builds import DoitArtifacts
    from cli.setup import setup
    from lab import journey
    from lab.lab import Lab
    from lab.progress import open_reporter

    setup(for_tests=False)
    with open_reporter() as reporter:
        journey.up(
            Lab.from_environment(), name=name, distro=distro or None, reporter=reporter,
            artifacts=DoitArtifacts(), timeout=timeout or None,
        )  # fmt: skip


@task(name="build", positional=[], iterable=["task"], auto_shortflags=False, help={
    "task": _TASKS,
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
    "task": _TASKS,
    "output": _OUTPUT,
})  # fmt: skip
def explain_build(_c: Context, task: Sequence[str], output: str = "table") -> None:
    """Say what a build would run, and for which reason: the input, source, option or tool that changed."""
    from cli.builds import explain, select

    explain(select(task), output=output)


@task(name="down", auto_shortflags=False, help={"timeout": "seconds for the guests to shut down, then force is used"})
def down(_c: Context, timeout: int = 60) -> None:
    """Stop all machines of the lab and its network. What is on their disks stays."""
    from lab import journey
    from lab.lab import Lab
    from lab.progress import open_reporter

    with open_reporter() as reporter:
        journey.down(Lab.from_environment(), reporter=reporter, timeout=timeout)


@task(name="clean", auto_shortflags=False, help={
    "yes": "do not ask",
    "keys": "remove the lab's keys and settings too",
})  # fmt: skip
def clean(_c: Context, *, yes: bool = False, keys: bool = False) -> None:
    """Remove all machines of the lab: definitions, disks, logs. Built artifacts and the lab's keys stay."""
    from cli.confirm import require_yes
    from lab import journey
    from lab.lab import Lab
    from lab.progress import open_reporter

    lab = Lab.from_environment()
    require_yes(f"All machines of {lab.home.root} and what is on their disks will be gone.", yes=yes)
    with open_reporter() as reporter:
        journey.clean(lab, reporter=reporter, with_keys=keys)


@task(name="status", auto_shortflags=False, help={"output": _OUTPUT})
def status(_c: Context, output: str = "table") -> None:
    """Show what there is and how it stands: provisioner, machines, network, accelerator, artifacts."""
    from cli.lab_views import show_status
    from lab.lab import Lab

    show_status(Lab.from_environment(), output=output)


@task(name="create", positional=["name"], auto_shortflags=False, help={
    "name": "1 to 63 of a-z, 0-9 and inner hyphens",
    "distro": "what to install on it",
    "arch": "x86_64 or aarch64",
    "cpus": "number of processors",
    "memory": "such as 1G or 1536M",
    "disk-size": "such as 8G",
    "disk-bus": "nvme or virtio",
    "ip": "address in the lower half of the lab's network (default: the first free one)",
    "mac": "MAC address (default: made from the lab and the name)",
    "installer": "pvmlab, or native: the distribution's own (default: pvmlab; native with --answer-file)",
    "answer-file": "what the distribution's own installer is told, instead of the lab's answers; *.j2 is a template",
})  # fmt: skip
def vm_create(  # noqa: PLR0913, PLR0917 (one argument for each option)
    _c: Context, name: str, distro: str = "debian-12", arch: str = "x86_64", cpus: int = 2, memory: str = "1G",
    disk_size: str = "8G", disk_bus: str = "nvme", ip: str = "", mac: str = "", installer: str = "",
    answer_file: str = "",
) -> None:  # fmt: skip
    """Define a target machine and make its empty disk. `vm.start` installs it."""
    from cli.machine_verbs import create

    create(name, distro=distro, arch=arch, cpus=cpus, memory=memory, disk_size=disk_size, disk_bus=disk_bus, ip=ip,
           mac=mac, installer=installer, answer_file=answer_file)  # fmt: skip


@task(name="start", positional=["name"], auto_shortflags=False, help={
    "name": "the machine",
    "wait": "return when it is installed, SSH answers and cloud-init has finished",
    "timeout": _TIMEOUT,
})  # fmt: skip
def vm_start(_c: Context, name: str, *, wait: bool = False, timeout: int = 0) -> None:
    """Start a machine, and the provisioner if that is off. Not installed yet, it installs itself over the network."""
    from cli.machine_verbs import start

    start(name, wait=wait, timeout=timeout or None)


@task(name="stop", positional=["name"], auto_shortflags=False, help={
    "name": "the machine",
    "force": "do not ask its system to shut down",
    "timeout": "seconds for its system to shut down, then force is used",
})  # fmt: skip
def vm_stop(_c: Context, name: str, *, force: bool = False, timeout: int = 60) -> None:
    """Stop a machine. A machine that is off is fine too."""
    from cli.machine_verbs import stop

    stop(name, timeout=timeout, force=force)


@task(name="list", auto_shortflags=False, help={"output": _OUTPUT})
def vm_list(_c: Context, output: str = "table") -> None:
    """List the target machines."""
    from cli.lab_views import show_machines
    from lab.lab import Lab

    show_machines(Lab.from_environment(), output=output)


@task(name="shell", positional=["name"], auto_shortflags=False, help={"name": "the machine, or provisioner"})
def vm_shell(c: Context, name: str) -> None:
    """Log in to a machine by SSH; or run a command there: `vm.shell NAME -- COMMAND`.

    Output and exit code of the command are passed on. Several words are passed exactly as they are; one single word
    is a command line for the machine's shell.
    """
    from cli.machine_verbs import shell

    raise Exit(code=shell(name, str(c.remainder) or None))


@task(name="logs", positional=["name"], auto_shortflags=False, help={
    "name": "the machine, or provisioner",
    "which": "serial (its console), qemu (QEMU's words) or lab (what was done to it)",
    "follow": "go on with what is added, until Ctrl-C",
})  # fmt: skip
def vm_logs(_c: Context, name: str, which: str = "serial", *, follow: bool = False) -> None:
    """Print a log of a machine."""
    from cli.machine_verbs import print_log

    print_log(name, which=which, follow=follow)


@task(name="clean", positional=["name"], auto_shortflags=False, help={"name": "the machine", "yes": "do not ask"})
def vm_clean(_c: Context, name: str, *, yes: bool = False) -> None:
    """Remove a machine: its definition, disk, install state and logs. It is ended if it runs."""
    from cli.machine_verbs import clean_machine

    clean_machine(name, yes=yes)


@task(name="create", auto_shortflags=False)
def provisioner_create(_c: Context) -> None:
    """Build the provisioner's artifacts and make its disk, keys and settings. `up` does it by itself."""
    from cli.machine_verbs import create_provisioner

    create_provisioner()


@task(name="start", auto_shortflags=False)
def provisioner_start(_c: Context) -> None:
    """Start the provisioner and return when its services answer."""
    from cli.machine_verbs import start_provisioner

    start_provisioner()


@task(name="stop", auto_shortflags=False)
def provisioner_stop(_c: Context) -> None:
    """Switch the provisioner off. Running machines keep running, without DHCP, DNS and a way out."""
    from cli.machine_verbs import stop_provisioner

    stop_provisioner()


@task(name="list", auto_shortflags=False, help={"output": _OUTPUT})
def cache_list(_c: Context, output: str = "table") -> None:
    """Show what is in the cache: how big it is, whether it is up to date, who needs it."""
    from cli.cache_verbs import list_cache

    list_cache(output=output)


@task(name="prune", auto_shortflags=False, help={
    "keep-used": "keep only what machines of this lab need",
    "dry-run": "only say what would be removed, and why",
    "yes": "do not ask",
    "output": _OUTPUT,
})  # fmt: skip
def cache_prune(
    _c: Context, *, keep_used: bool = False, dry_run: bool = False, yes: bool = False, output: str = "table"
) -> None:  # fmt: skip
    """Remove what killed builds left, what no task makes any more, and package files that nothing is made of."""
    from cli.cache_verbs import prune_cache

    prune_cache(keep_used=keep_used, dry_run=dry_run, yes=yes, output=output)


@task(name="verify", positional=[], iterable=["task"], auto_shortflags=False, help={
    "task": "what to make once more, named as for `build`; a sample at random, if there are none",
    "sample": "how many artifacts to make once more; 0: only read",
    "keep": "a folder for both files, where they differ",
    "output": _OUTPUT,
})  # fmt: skip
def cache_verify(
    _c: Context, task: Sequence[str], sample: int = 1, keep: str = "", output: str = "table"
) -> None:  # fmt: skip
    """Read all that is built and compare it with its digests; make a sample once more and compare that."""
    from cli.cache_verbs import verify_cache

    verify_cache(task, sample=sample, keep=keep, output=output)


@task(name="export", positional=["file"], iterable=["task"], auto_shortflags=False, help={
    "file": "the bundle to write (/dev/stdout for a pipe)",
    "task": _TASKS,
})  # fmt: skip
def cache_export(_c: Context, file: str, task: Sequence[str]) -> None:
    """Write artifacts, and all they were made from, into one file for another cache."""
    from cli.cache_verbs import export_bundle

    export_bundle([file, *task])


@task(name="import", positional=["file"], auto_shortflags=False, help={
    "file": "the bundle (/dev/stdin for a pipe)",
    "replace": "also what is up to date here and differs",
})  # fmt: skip
def cache_import(_c: Context, file: str, *, replace: bool = False) -> None:
    """Put the artifacts of a bundle into the cache, after checking each against its digest."""
    from cli.cache_verbs import import_bundle

    import_bundle(file, replace=replace)


@task(name="setup", auto_shortflags=False, help={"tests": "also what only the tests need"})
def setup_host(_c: Context, *, tests: bool = False) -> None:
    """Install the system packages that are missing on this host, after saying which."""
    from cli.setup import setup

    setup(for_tests=tests)


@task(name="doctor", auto_shortflags=False, help={"output": _OUTPUT})
def doctor_host(_c: Context, output: str = "table") -> None:
    """Check this host: what is missing, and the command that repairs it."""
    from cli.doctor import doctor

    raise Exit(code=doctor(output=output))


@task(name="test", auto_shortflags=False, help={
    "fast": "leave out the tests that start machines",
    "nightly": "also the long repetitions, for hours",
    "k": "only tests whose names match this expression, as pytest's -k",
})  # fmt: skip
def run_tests(_c: Context, *, fast: bool = False, nightly: bool = False, k: str = "") -> None:
    """Run the tests, the linters among them."""
    from cli import testing

    testing.run_tests(fast=fast, nightly=nightly, expression=k)


@task(name="lint", auto_shortflags=False)
def lint_code(_c: Context) -> None:
    """Run the linters."""
    from cli.testing import lint

    lint()


@task(name="ls", auto_shortflags=False, help={"output": _OUTPUT})
def distro_ls(_c: Context, output: str = "table") -> None:
    """List the distributions: where they come from, what is here of them, and what is missing."""
    from cli.distro_list import list_distros

    list_distros(output=output)


@task(name="show", positional=["distro"], auto_shortflags=False, help={"distro": "its name", "output": _OUTPUT})
def distro_show(_c: Context, distro: str, output: str = "table") -> None:
    """Show all that is known of a distribution: addresses, keys, digests, what is built of it."""
    from cli.distro_list import show_distro

    show_distro(distro, output=output)


@task(name="pull", positional=[], iterable=["distro"], auto_shortflags=False, help={
    "distro": "names of distributions",
    "all": "all of them; those of which no digest is known are left out",
    "arch": "x86_64, aarch64 or all (default: this host's, if the distribution is there for it)",
    "media-only": "only download, make nothing of it",
    "offline": "do not use the network",
    "newest": "ask whether there are newer media than those that are here, and take these",
    "lock": "trust the mirror once, over HTTPS, where no digest is known, and lock what it has",
})  # fmt: skip
def distro_pull(
    _c: Context, distro: Sequence[str], arch: str = "", *, all: bool = False,  # noqa: A002 (the option's name)
    media_only: bool = False, offline: bool = False, newest: bool = False, lock: bool = False,
) -> None:  # fmt: skip
    """Fetch the media of distributions, verify them, and make of them what installs need."""
    from cli.distro_verbs import pull

    raise Exit(code=pull(
        distro, everything=all, arch=arch, media_only=media_only, offline=offline, newest=newest, lock=lock,
    ))  # fmt: skip


@task(name="add", positional=["source"], auto_shortflags=False, help={
    "source": "address or file of an installer ISO, a cloud image (qcow2, raw) or an archive of a root filesystem",
    "name": "what to call it (default: what the medium says)",
    "title": "its name for people (default: what the medium says)",
    "family": "debian, ubuntu, fedora (also Rocky, Alma, RHEL), alpine or suse (default: what the medium says)",
    "arch": "x86_64 or aarch64 (default: what the medium says)",
    "sha256": "the digest it must have, from a page that you trust",
})  # fmt: skip
def distro_add(
    _c: Context, source: str, name: str = "", title: str = "", family: str = "", arch: str = "", sha256: str = ""
) -> None:  # fmt: skip
    """Add a distribution: take its medium, see what it is, write its definition and its digest.

    They go into the first folder that PVMLAB_DISTROS names, else to those that come with pvmlab.
    """
    from cli.distro_add import Wishes, add

    add(source, Wishes(name=name, title=title, family=family, arch=arch, sha256=sha256))


@task(name="remove", positional=["distro"], auto_shortflags=False, help={
    "distro": "its name",
    "yes": "do not ask; also for one that comes with pvmlab",
    "with-artifacts": "also what was fetched and made of it",
})  # fmt: skip
def distro_remove(_c: Context, distro: str, *, yes: bool = False, with_artifacts: bool = False) -> None:
    """Remove the definition of a distribution, and its digests."""
    from cli.distro_verbs import remove

    remove(distro, yes=yes, with_artifacts=with_artifacts)


namespace = Collection(
    up, down, clean, status, build_artifacts, explain_build, setup_host, doctor_host, run_tests, lint_code,
    cache=Collection(cache_list, cache_prune, cache_verify, cache_export, cache_import),
    vm=Collection(vm_create, vm_start, vm_stop, vm_list, vm_shell, vm_logs, vm_clean),
    distro=Collection(distro_ls, distro_show, distro_pull, distro_add, distro_remove),
    provisioner=Collection(provisioner_create, provisioner_start, provisioner_stop),
)  # fmt: skip
