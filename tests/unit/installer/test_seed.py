"""Which seeds are taken."""

from __future__ import annotations

import pytest

from contracts import nocloud
from installer import seed
from installer.errors import InstallError


def make(meta_data: bytes, user_data: bytes = b"#cloud-config\n") -> seed.Seed:
    return {"meta-data": meta_data, "user-data": user_data, "network-config": b"{}", "vendor-data": b""}


def test_the_documents_are_those_the_contract_names() -> None:
    assert set(seed.DOCUMENTS) == set(nocloud.DOCUMENTS)


@pytest.mark.parametrize(
    "meta_data",
    [b"instance-id: iid-1\nlocal-hostname: a\n", b'{\n  "instance-id": "iid-1"\n}', b'{"a": "b", "instance-id": "x"}'],
)
def test_meta_data_in_yaml_and_in_json_is_taken(meta_data: bytes) -> None:
    seed.validate(make(meta_data))


@pytest.mark.parametrize(
    "meta_data",
    [
        b"",
        b"local-hostname: a\n",
        b"# instance-id: commented out\n",
        b"instance-id:\n",
        b'{"instance-id": ""}',
        b"not-instance-id: x",
    ],
)
def test_meta_data_without_an_instance_id_is_refused(meta_data: bytes) -> None:
    with pytest.raises(InstallError, match="meta-data has no instance-id"):
        seed.validate(make(meta_data))


def test_a_document_that_is_not_text_is_refused() -> None:
    with pytest.raises(InstallError, match=r"user-data is not UTF-8 text: .* at byte 1"):
        seed.validate(make(b"instance-id: x\n", b"a\xff"))
