"""User-data of two parts, as cloud-init's own reader (Python's email package) takes it apart."""

from __future__ import annotations

import email
from email.message import Message

import pytest

from contracts.nocloud import combine_user_data

STANDARD = '#cloud-config\n{"users": [{"name": "lab"}]}\n'


def parts_of(text: str) -> list[Message]:
    return [part for part in email.message_from_string(text).walk() if part.get_content_maintype() != "multipart"]


def text_of(part: Message) -> str:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


@pytest.mark.parametrize(
    "own",
    [
        "#cloud-config\npackages: [curl]\n",
        "#!/bin/sh\necho hello\n",
        "#cloud-config\nmotd: grüezi \U0001f600\n",
        "#!/bin/sh\r\necho\r\n",
        "#!/bin/sh\n" + "x" * 5000 + "\n",
        "#cloud-config\n--==pvmlab-00000000000000000000000000000000==\n",
        "From nobody\n.\n",
    ],
)
def test_both_parts_come_out_as_they_went_in(own: str) -> None:
    first, second = parts_of(combine_user_data(STANDARD, own))
    assert text_of(first).rstrip("\n") == own.rstrip("\n")
    assert text_of(second).rstrip("\n") == STANDARD.rstrip("\n")
    assert first.get_content_type() == second.get_content_type() == "text/plain"  # cloud-init goes by the first line
    assert second["Merge-Type"] == "dict(no_replace,recurse_list)+list(append)+str()"
    assert first["Merge-Type"] is None


def test_a_persons_own_multipart_stays_several_parts() -> None:
    own = combine_user_data("#cloud-config\n{}\n", "#!/bin/sh\necho one\n")
    texts = [text_of(part) for part in parts_of(combine_user_data(STANDARD, own))]
    assert [text.splitlines()[0] for text in texts] == ["#!/bin/sh", "#cloud-config", "#cloud-config"]


def test_equal_texts_give_equal_bytes() -> None:
    assert combine_user_data(STANDARD, "#!/bin/sh\n") == combine_user_data(STANDARD, "#!/bin/sh\n")
    assert combine_user_data(STANDARD, "#!/bin/sh\n") != combine_user_data(STANDARD, "#!/bin/bash\n")
