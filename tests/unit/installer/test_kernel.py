"""What a kernel's file says it calls itself, and what of it is kept while it streams by."""

from __future__ import annotations

import random

import pytest

from installer import kernel
from tests.fakes.kernels import make_arm64_image, make_vmlinuz, make_zboot


def test_an_x86_kernel_says_its_release_and_its_build() -> None:
    assert kernel.read_name(make_vmlinuz("6.1.0-9-cloud-amd64")) == "6.1.0-9-cloud-amd64 #1 SMP"


def test_what_debian_writes_is_read() -> None:
    data = bytearray(make_vmlinuz("x"))
    said = b"6.1.0-9-amd64 (debian-kernel@lists.debian.org) #1 SMP PREEMPT_DYNAMIC Debian 6.1.27-1 (2023-05-08)\0"
    data[0x300 : 0x300 + len(said)] = said
    name = "6.1.0-9-amd64 #1 SMP PREEMPT_DYNAMIC Debian 6.1.27-1 (2023-05-08)"
    assert kernel.read_name(bytes(data)) == name


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"MZ" * 1000,
        make_arm64_image("6.1"),
        make_zboot(make_arm64_image("6.1"), "gzip"),
        make_vmlinuz("6.1")[:0x210],  # cut off before the name
        make_vmlinuz("6.1").replace(b" #1", b" 1"),
        make_vmlinuz("6.1").replace(b"\0\x01", b"\0\0", 1),  # no pointer
    ],
)
def test_other_files_say_nothing(head: bytes) -> None:
    assert kernel.read_name(head) is None


def test_nothing_that_a_header_may_hold_is_a_fault_of_ours() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        data = bytearray(make_vmlinuz("6.1") + bytes(64))
        for _ in range(4):
            data[chance.randrange(0x200, len(data))] = chance.randrange(256)
        kernel.read_name(bytes(data))


def test_only_the_beginning_is_kept() -> None:
    head = bytearray()
    write = kernel._collect(head)
    whole = random.Random(2).randbytes(300_000)
    for start in range(0, len(whole), 7000):
        write(whole[start : start + 7000])
    assert len(head) < 70_000
    assert bytes(head) == whole[: len(head)]
