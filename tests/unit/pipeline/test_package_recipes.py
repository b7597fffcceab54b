"""What sidecars say of packages, and that every set has a manifest and a snapshot."""

from __future__ import annotations

from pathlib import Path

from contracts.arch import Arch
from pipeline.debian.package_set import PackageSet
from pipeline.recipes.packages import inherited_facts, package_artifacts
from pipeline.sidecar import publish_sidecar
from pipeline.workspace import Cache


def deb(name: str, version: str = "1") -> dict[str, str]:
    return {"type": "deb", "name": name, "version": version, "arch": "all", "sha256": name, "source": name}


def test_packages_are_inherited_once_and_the_newest_time_counts(tmp_path: Path) -> None:
    publish_sidecar(tmp_path / "a", {"facts": {"packages": [deb("z"), deb("a")], "epoch": 5}})
    publish_sidecar(tmp_path / "b", {"facts": {"packages": [deb("a"), deb("a", "2")], "epoch": 7}})
    publish_sidecar(tmp_path / "plain", {"facts": {}})
    wheel = {"type": "pypi", "name": "h11", "version": "1", "sha256": "ab"}
    assert inherited_facts(*(tmp_path / name for name in ("a", "b", "plain")), others=[wheel]) == {
        "packages": [deb("a"), deb("a", "2"), deb("z"), wheel],
        "epoch": 7,
    }


def test_sets_of_one_suite_share_its_snapshot(tmp_path: Path) -> None:
    sets = [PackageSet(name=name, suite="trixie", arch=Arch.X86_64, packages=("x",)) for name in ("one", "two")]
    made = list(package_artifacts(sets, Cache(tmp_path)))
    assert [artifact.name for artifact in made] == [
        "snapshot:trixie:x86_64", "packages:one:x86_64", "packages:two:x86_64",
    ]  # fmt: skip
    assert made[1].inputs == made[0].targets
