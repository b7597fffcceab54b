"""Layers of our own files: owned by root, no times, no bytecode."""

import tarfile
from pathlib import Path

from pipeline.tree_tar import TreeTar


def test_a_tree_is_stored_reproducibly(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "etc/__pycache__").mkdir(parents=True)
    (source / "etc/__pycache__/x.pyc").touch()
    (source / "etc/b").write_text("b")
    (source / "etc/a").write_text("a")
    (source / "etc/a").chmod(0o700)
    (source / "etc/link").symlink_to("a")
    with TreeTar(tmp_path / "out.tar") as tree:
        tree.tree(source, "")
        tree.directory("var/secret", mode=0o700)
        tree.directory("var/secret")
    with tarfile.open(tmp_path / "out.tar") as archive:
        members = [(m.name, oct(m.mode), m.uid, m.gid, m.uname, m.mtime, m.linkname) for m in archive]
    assert members == [
        ("etc", "0o755", 0, 0, "", 0, ""),
        ("etc/a", "0o755", 0, 0, "", 0, ""),
        ("etc/b", "0o644", 0, 0, "", 0, ""),
        ("etc/link", "0o777", 0, 0, "", 0, "a"),
        ("var", "0o755", 0, 0, "", 0, ""),
        ("var/secret", "0o700", 0, 0, "", 0, ""),
    ]
