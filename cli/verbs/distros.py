"""The verbs of the distributions, ``distro.*``."""

from __future__ import annotations

from collections.abc import Sequence

from invoke import Collection, Context, Exit, task

from cli.verbs.words import ACTED, OUTPUT


@task(name="ls", auto_shortflags=False, help={"output": OUTPUT})
def distro_ls(_c: Context, output: str = "table") -> None:
    """List the distributions: where they come from, what is here of them, and what is missing."""
    from cli.distro_list import list_distros

    list_distros(output=output)


@task(name="show", positional=["distro"], auto_shortflags=False, help={"distro": "its name", "output": OUTPUT})
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
    "output": ACTED,
})  # fmt: skip
def distro_pull(
    _c: Context, distro: Sequence[str], arch: str = "", *, all: bool = False,  # noqa: A002 (the option's name)
    media_only: bool = False, offline: bool = False, newest: bool = False, lock: bool = False, output: str = "table",
) -> None:  # fmt: skip
    """Fetch the media of distributions, verify them, and make of them what installs need."""
    from cli.afterwards import tell_distros
    from cli.distro_verbs import pull

    code = pull(
        distro, everything=all, arch=arch, media_only=media_only, offline=offline, newest=newest, lock=lock,
    )  # fmt: skip
    tell_distros(output=output)
    raise Exit(code=code)


@task(name="add", positional=["source"], auto_shortflags=False, help={
    "source": "address or file of an installer ISO, a cloud image (qcow2, raw) or an archive of a root filesystem",
    "name": "what to call it (default: what the medium says)",
    "title": "its name for people (default: what the medium says)",
    "family": "debian, ubuntu, fedora (also Rocky, Alma, RHEL), alpine or suse (default: what the medium says)",
    "arch": "x86_64 or aarch64 (default: what the medium says)",
    "sha256": "the digest it must have, from a page that you trust",
    "output": ACTED,
})  # fmt: skip
def distro_add(
    _c: Context, source: str, name: str = "", title: str = "", family: str = "", arch: str = "", sha256: str = "",
    output: str = "table",
) -> None:  # fmt: skip
    """Add a distribution: take its medium, see what it is, write its definition and its digest.

    They go into the first folder that PVMLAB_DISTROS names, else to those that come with pvmlab.
    """
    from cli.afterwards import tell_distros
    from cli.distro_add import Wishes, add

    add(source, Wishes(name=name, title=title, family=family, arch=arch, sha256=sha256))
    tell_distros(output=output)


@task(name="remove", positional=["distro"], auto_shortflags=False, help={
    "distro": "its name",
    "yes": "do not ask; also for one that comes with pvmlab",
    "with-artifacts": "also what was fetched and made of it",
    "output": ACTED,
})  # fmt: skip
def distro_remove(
    _c: Context, distro: str, *, yes: bool = False, with_artifacts: bool = False, output: str = "table"
) -> None:  # fmt: skip
    """Remove the definition of a distribution, and its digests."""
    from cli.afterwards import tell_distros
    from cli.distro_verbs import remove

    remove(distro, yes=yes, with_artifacts=with_artifacts)
    tell_distros(output=output)


collection = Collection(distro_ls, distro_show, distro_pull, distro_add, distro_remove)
