"""A root of apt's own: its lists, its solver and its downloads, apart from the host's packages and sources."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from contracts.arch import Arch
from pipeline.run import Completed, run

_FOLDERS = (
    "etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "var/cache/apt/archives/partial",
    "var/lib/apt/lists/partial", "var/lib/dpkg",
)  # fmt: skip
_CONFIGURATION = "apt.conf"
# Programs of apt that are not on the PATH.
APT_HELPER = Path("/usr/lib/apt/apt-helper")


@dataclasses.dataclass(frozen=True)
class AptRoot:
    """A directory that apt takes for its root. No package is installed in it. Made by :func:`make_apt_root`."""

    folder: Path

    @property
    def lists(self) -> Path:
        """Where apt keeps the archives' indices."""
        return self.folder / "var/lib/apt/lists"

    def run(
        self, argv: Sequence[str | Path], *, timeout: float, network: bool = False, log: Path | None = None
    ) -> Completed:
        """Run a program of apt in this root.

        :raises CommandError: if it fails.
        """
        configuration = {"APT_CONFIG": str(self.folder / _CONFIGURATION)}
        return run(argv, timeout=timeout, env=configuration, network=network, log=log)


def make_apt_root(folder: Path, *, arch: Arch, sources: Iterable[str] = (), options: Iterable[str] = ()) -> AptRoot:
    """Make *folder* a root for apt.

    :param sources: lines of its ``sources.list``. :param options: apt settings, as ``Name "value"``.
    """
    for name in _FOLDERS:
        (folder / name).mkdir(parents=True)
    (folder / "var/lib/dpkg/status").touch()
    (folder / "etc/apt/sources.list").write_text("".join(f"{line}\n" for line in sources))
    (folder / _CONFIGURATION).write_text(render_configuration(folder, arch=arch, options=options))
    return AptRoot(folder)


def render_configuration(folder: Path, *, arch: Arch, options: Iterable[str] = ()) -> str:
    """Return the configuration that makes apt work in *folder* (apt.conf(5)): of the host's it keeps the keys alone."""
    settings = (
        f'Dir "{folder}"',
        f'Dir::State::status "{folder}/var/lib/dpkg/status"',
        'Dir::Etc::Trusted "/etc/apt/trusted.gpg"',
        'Dir::Etc::TrustedParts "/etc/apt/trusted.gpg.d"',
        f'APT::Architecture "{arch.debian}"',
        f'APT::Architectures "{arch.debian}"',
        'APT::Install-Recommends "false"',
        'APT::Sandbox::User "root"',  # user _apt may not be able to reach the folder
        'Acquire::Languages "none"',
        'Acquire::ForceHash "SHA256"',  # what --print-uris tells
        'pkgCacheGen::ForceEssential ","',  # apt is not essential, whatever it thinks of itself (mmdebstrap does so)
        *options,
    )
    return "".join(f"{setting};\n" for setting in settings)
