"""Same key, same bytes: artifacts made twice, in another place, by another clock, with another umask, are equal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from contracts.arch import Arch
from pipeline.recipes.graph import artifacts as artifacts_of
from pipeline.run import run
from pipeline.sidecar import read_sidecar
from pipeline.workspace import REPOSITORY, Cache

pytestmark = pytest.mark.artifacts

HERE = {"TZ": "UTC", "LC_ALL": "C.UTF-8"}
ELSEWHERE = {"TZ": "Asia/Tokyo", "LC_ALL": "tr_TR.UTF-8", "SOURCE_DATE_EPOCH": "1", "PYTHONHASHSEED": "1"}


def build(root: Path, tasks: list[str], *, lists: Cache, umask: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Build *tasks* in a new cache from the snapshots and packages of *lists*; return each artifact's digest."""
    root.mkdir(parents=True)
    run(["cp", "--archive", lists.root / "snapshots", root], timeout=60)
    (root / "downloads").symlink_to(lists.root / "downloads")
    run(
        ["sh", "-c", f'umask {umask}; exec "$@"', "sh", sys.executable, "-m", "doit", *tasks],
        timeout=1800, cwd=REPOSITORY, network=True, env={**environment, "PVMLAB_CACHE": str(root)},
    )  # fmt: skip
    targets = [target for artifact in artifacts_of(Cache(root)) for target in artifact.targets]
    records = {target: sidecar for target in targets if (sidecar := read_sidecar(target)) is not None}
    return {
        path.relative_to(root).as_posix(): f"{record['key']} {record['sha256']}" for path, record in records.items()
    }


def build_twice(folder: Path, tasks: list[str], lists: Cache) -> tuple[dict[str, str], dict[str, str]]:
    here = build(folder / "here", tasks, lists=lists, umask="022", environment=HERE)
    place = folder / "somewhere else" / "cache"
    return here, build(place, tasks, lists=lists, umask="077", environment=ELSEWHERE)


def test_programs_out_of_packages(artifacts: Cache, tmp_path: Path) -> None:
    here, elsewhere = build_twice(tmp_path, [f"ipxe:{Arch.X86_64}", f"initrd:{Arch.X86_64}"], artifacts)
    assert f"initrds/{Arch.X86_64}/initrd.gz" in here
    assert here == elsewhere


@pytest.mark.nightly
def test_every_artifact(artifacts: Cache, tmp_path: Path) -> None:
    here, elsewhere = build_twice(tmp_path, [], artifacts)
    assert len(here) == sum(len(artifact.targets) for artifact in artifacts_of(artifacts))
    assert here == elsewhere
