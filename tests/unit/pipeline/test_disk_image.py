"""Which inodes of a file system are in use."""

import pytest

from pipeline.disk_image import used_inodes
from pipeline.errors import PvmlabError

LISTING = """\
Filesystem volume name:   x
Inode count:              32

Group 0: (Blocks 0-32767) csum 0x4adb [ITABLE_ZEROED]
  Free blocks: 9000-32767
  Free inodes: 13, 15-16
Group 1: (Blocks 32768-65535) csum 0x8e63 [INODE_UNINIT, ITABLE_ZEROED]
  Free blocks: 33000-65535
  Free inodes: 18-32
"""


def test_the_root_and_all_that_are_not_reserved() -> None:
    assert list(used_inodes(LISTING)) == [2, 11, 12, 14, 17]


def test_with_none_free() -> None:
    assert list(used_inodes("Inode count:  12\n  Free inodes: \n")) == [2, 11, 12]


def test_a_listing_that_does_not_tell_is_refused() -> None:
    with pytest.raises(PvmlabError, match="how many inodes"):
        list(used_inodes("Group 0:\n"))
