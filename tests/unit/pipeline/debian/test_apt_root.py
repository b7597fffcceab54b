"""apt's private configuration."""

from pathlib import Path

from contracts.arch import Arch
from pipeline.debian.apt_root import make_apt_root, render_configuration

CONFIGURATION = """\
Dir "/r";
Dir::State::status "/r/var/lib/dpkg/status";
Dir::Etc::Trusted "/etc/apt/trusted.gpg";
Dir::Etc::TrustedParts "/etc/apt/trusted.gpg.d";
APT::Architecture "arm64";
APT::Architectures "arm64";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::ForceHash "SHA256";
pkgCacheGen::ForceEssential ",";
Acquire::http::Proxy "http://p.invalid:1";
"""


def test_the_configuration() -> None:
    options = ['Acquire::http::Proxy "http://p.invalid:1"']
    assert render_configuration(Path("/r"), arch=Arch.AARCH64, options=options) == CONFIGURATION


def test_a_root_has_what_apt_looks_for(tmp_path: Path) -> None:
    root = make_apt_root(tmp_path / "r", arch=Arch.X86_64, sources=["deb http://m.invalid/debian trixie main"])
    assert (tmp_path / "r/etc/apt/sources.list").read_text() == "deb http://m.invalid/debian trixie main\n"
    assert (tmp_path / "r/var/lib/dpkg/status").read_bytes() == b""
    assert (root.lists / "partial").is_dir()
