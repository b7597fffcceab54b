from __future__ import annotations

import io
import stat
from pathlib import Path

import pycdlib
import pytest
from pycdlib.dr import DirectoryRecord

from lab.seed_disc import make_seed, write_seed

DOCUMENTS = {"meta-data": "instance-id: i\n", "user-data": "#cloud-config\n{}\n", "network-config": "version: 2\n",
             "vendor-data": ""}  # fmt: skip


def test_the_disc_has_the_label_and_all_documents_by_their_names() -> None:
    disc = pycdlib.PyCdlib()
    disc.open_fp(io.BytesIO(make_seed(DOCUMENTS)))
    assert disc.pvd.volume_identifier.rstrip() == b"CIDATA"
    assert disc.has_rock_ridge()
    assert disc.has_joliet()
    for where in ("rr_path", "joliet_path"):
        found = {}
        for name in DOCUMENTS:
            content = io.BytesIO()
            disc.get_file_from_iso_fp(content, **{where: f"/{name}"})
            found[name] = content.getvalue().decode()
        assert found == DOCUMENTS
    disc.close()


def test_in_the_guest_only_root_reads_them() -> None:
    disc = pycdlib.PyCdlib()
    disc.open_fp(io.BytesIO(make_seed(DOCUMENTS)))
    for name in DOCUMENTS:
        record = disc.get_record(rr_path=f"/{name}")
        assert isinstance(record, DirectoryRecord)
        assert record.rock_ridge is not None
        assert record.rock_ridge.get_file_mode() == 0o100400


@pytest.mark.parametrize("missing", ["meta-data", "user-data"])
def test_what_cloud_init_would_not_take_is_refused(missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        make_seed({name: text for name, text in DOCUMENTS.items() if name != missing})


def test_it_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "web1.seed.iso"
    write_seed(path, DOCUMENTS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_seed(path, {**DOCUMENTS, "user-data": "#!/bin/sh\n"})  # made anew, in its place
    assert b"#!/bin/sh" in path.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
