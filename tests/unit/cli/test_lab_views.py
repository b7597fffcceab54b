"""``status``, as people see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.lab_views import show_status
from lab.lab import Lab
from pipeline.recipes.graph import default_tasks


def test_status_shows_what_a_build_makes_and_only_counts_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PVMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cli.lab_views.artifact_states", lambda: {
        "rootfs:fedora-44:x86_64": "built", "rootfs:debian-12:x86_64": "it is not built",
        "image:alma-9:x86_64": "it is not built", "image:alma-9:aarch64": "it is not built",
    })  # fmt: skip
    monkeypatch.setattr("lab.status._accelerator", lambda _: "not asked here")
    assert "rootfs:debian-12:x86_64" in default_tasks()
    show_status(Lab.from_environment(), output="table")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[-3:]] == [
        ["rootfs:fedora-44:x86_64", "built"],
        ["rootfs:debian-12:x86_64", "to", "build", "it", "is", "not", "built"],
        ["...", "2", "more,", "of", "other", "distributions,", "are", "not", "built:", "./pvmlab", "distro.ls"],
    ]
