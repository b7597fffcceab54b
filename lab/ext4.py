"""Changing the text of small files on an ext4 file system that nobody has mounted.

Enough of ext4 to give a clone an identity of its own: find a file by its path, read it, and put other text in its
place, within the blocks that it has. Block allocation is never touched. The format is described in the kernel's
Documentation/filesystems/ext4/.
"""

from __future__ import annotations

import itertools
import stat
import struct
from collections.abc import Iterator
from typing import Protocol

from pipeline.errors import PvmlabError

_SUPER = 1024  # bytes from the start of the file system to its superblock
_MAGIC = 0xEF53
_ROOT = 2  # the root directory's inode
_NEEDS_RECOVERY, _EXTENTS, _64BIT, _CSUM_SEED, _INLINE, _ENCRYPTED = 0x4, 0x40, 0x80, 0x2000, 0x8000, 0x10000
_METADATA_CSUM = 0x400
_HAS_EXTENTS = 0x80000  # an inode's flag
_EXTENT_MAGIC = 0xF30A
_OLD_INODE = 128  # bytes of an inode as ext2 had it
_OLD_DESCRIPTOR = 32  # bytes of a block group's description without the feature 64bit
_LONGEST = 1 << 20  # bytes of a file or directory that is read
_MOST_BLOCKS = _LONGEST // 1024  # the smallest ones
_DEEPEST = 5  # of a tree of extents
_LARGEST_BLOCK = 6  # as the format counts: 64 KiB
_LONGEST_EXTENT = 32768  # blocks; a length above is that of blocks that were never written


class Ext4Error(PvmlabError):
    """A file system cannot be understood, or not be changed as wished."""


class Device(Protocol):
    """Something with blocks, such as :class:`lab.nbd.BlockDevice`."""

    def read(self, offset: int, length: int) -> bytes:
        """Return *length* bytes from *offset*."""

    def write(self, offset: int, data: bytes) -> None:
        """Write *data* at *offset*."""


class Ext4:
    """The file system that begins at byte *start* of *device*.

    :ivar is_clean: it was unmounted: its journal has nothing that would overwrite what is written here.
    """

    def __init__(self, device: Device, start: int) -> None:
        """:raises Ext4Error: if there is none, or one with features that are not known here."""
        self._device, self._start = device, start
        block = device.read(start + _SUPER, 1024)
        if _u16(block, 0x38) != _MAGIC:
            raise Ext4Error("there is no ext4 file system")
        incompatible, read_only = _u32(block, 0x60), _u32(block, 0x64)
        if not incompatible & _EXTENTS or incompatible & (_INLINE | _ENCRYPTED):
            raise Ext4Error(f"the ext4 file system has features that are not known here ({incompatible:#x})")
        self.is_clean = not incompatible & _NEEDS_RECOVERY
        # A guest wrote all this, and may mean harm: what it says is measured before it is believed.
        if (shift := _u32(block, 0x18)) > _LARGEST_BLOCK:
            raise Ext4Error("the ext4 file system is damaged: the size of its blocks")
        self._block_size = 1024 << shift
        self._first_block, self._per_group, self._inode_size = _u32(block, 0x14), _u32(block, 0x28), _u16(block, 0x58)
        self._descriptor_size = _u16(block, 0xFE) if incompatible & _64BIT else _OLD_DESCRIPTOR
        if not self._per_group or not _OLD_INODE <= self._inode_size <= self._block_size:
            raise Ext4Error("the ext4 file system is damaged: its inodes")
        if not _OLD_DESCRIPTOR <= self._descriptor_size <= self._block_size:
            raise Ext4Error("the ext4 file system is damaged: its block groups")
        self._seed: int | None = None
        if read_only & _METADATA_CSUM:
            has_seed = incompatible & _CSUM_SEED
            self._seed = _u32(block, 0x270) if has_seed else crc32c(block[0x68:0x78])

    def find(self, path: str) -> int | None:
        """Return the inode of the regular file *path*, or None if there is none. Links are not followed."""
        inode = _ROOT
        for name in path.strip("/").split("/"):
            data = self._read_inode(inode)
            if not stat.S_ISDIR(_u16(data, 0)):
                return None
            found = self._entries(data).get(name.encode())
            if found is None:
                return None
            inode = found
        return inode if stat.S_ISREG(_u16(self._read_inode(inode), 0)) else None

    def read(self, inode: int) -> bytes:
        """Return what is in the file *inode*. :raises Ext4Error: if it is too large or damaged."""
        return self._content(self._read_inode(inode))

    def replace_text(self, inode: int, text: str) -> None:
        """Put *text* into the file *inode*, followed by empty lines if it was longer before.

        :raises Ext4Error: if it is longer than the file's blocks; or longer than the file, and the file system was
            not unmounted.
        """
        data = self._read_inode(inode)
        size = _size_to_read(data)
        new = text.encode().ljust(size, b"\n")
        blocks = list(itertools.islice(self._blocks(data), _MOST_BLOCKS))
        if len(new) > len(blocks) * self._block_size:
            raise Ext4Error("the text does not fit into the file's blocks")
        if len(new) > size and not self.is_clean:
            raise Ext4Error("the file system was not unmounted, and the file would have to grow")
        for number, block in enumerate(blocks):
            part = new[number * self._block_size : (number + 1) * self._block_size]
            if part:
                self._device.write(self._start + block * self._block_size, part.ljust(self._block_size, b"\0"))
        if len(new) > size:
            self._write_inode(inode, data[:4] + struct.pack("<I", len(new)) + data[8:])

    def _entries(self, directory: bytes) -> dict[bytes, int]:
        """Return the names in a directory with their inodes. Those with an index have it in what looks unused."""
        content, entries, position = self._content(directory), dict[bytes, int](), 0
        while position + 8 <= len(content):
            inode, length, name_length = struct.unpack_from("<IHB", content, position)
            if length < 8:
                raise Ext4Error("a directory is damaged")
            if inode:
                entries[content[position + 8 : position + 8 + name_length]] = inode
            position += length
        return entries

    def _content(self, inode: bytes) -> bytes:
        size = _size_to_read(inode)
        needed = itertools.islice(self._blocks(inode), -(-size // self._block_size))
        parts = (self._device.read(self._start + at * self._block_size, self._block_size) for at in needed)
        content = b"".join(parts)[:size]
        if len(content) < size:
            raise Ext4Error("a file has holes")
        return content

    def _blocks(self, inode: bytes) -> Iterator[int]:
        """Yield the blocks of a file in their order."""
        if not _u32(inode, 0x20) & _HAS_EXTENTS:
            raise Ext4Error("a file is stored as ext3 does")
        yield from self._leaves(inode[0x28:0x64], deepest=_DEEPEST)

    def _leaves(self, node: bytes, *, deepest: int) -> Iterator[int]:
        """Yield the blocks below *node*, which is at most *deepest* above the leaves: nearer than the one above it."""
        magic, count, _, depth = struct.unpack_from("<HHHH", node)
        if magic != _EXTENT_MAGIC or 12 + 12 * count > len(node) or depth > deepest:
            raise Ext4Error("a file's list of blocks is damaged")
        for number in range(count):
            at = 12 + 12 * number
            if depth:
                low, high = struct.unpack_from("<IH", node, at + 4)
                below = self._device.read(self._start + (high << 32 | low) * self._block_size, self._block_size)
                yield from self._leaves(below, deepest=depth - 1)
                continue
            length, high, low = struct.unpack_from("<HHI", node, at + 4)
            if length > _LONGEST_EXTENT:
                raise Ext4Error("a file has blocks that were never written")
            yield from range(high << 32 | low, (high << 32 | low) + length)

    def _place(self, inode: int) -> int:
        group, index = divmod(inode - 1, self._per_group)
        table = self._start + (self._first_block + 1) * self._block_size + group * self._descriptor_size
        descriptor = self._device.read(table, self._descriptor_size)
        high = _u32(descriptor, 0x28) if self._descriptor_size >= 64 else 0
        return self._start + (high << 32 | _u32(descriptor, 8)) * self._block_size + index * self._inode_size

    def _read_inode(self, inode: int) -> bytes:
        return self._device.read(self._place(inode), self._inode_size)

    def _write_inode(self, inode: int, data: bytes) -> None:
        if self._seed is not None:
            data = self._with_checksum(inode, data, self._seed)
        self._device.write(self._place(inode), data)

    def _with_checksum(self, inode: int, data: bytes, seed: int) -> bytes:
        """Return the inode with its checksum, in whose place there are zeroes while it is made."""
        has_high = len(data) > _OLD_INODE and _u16(data, 0x80) >= 4
        data = data[:0x7C] + b"\0\0" + data[0x7E:]
        if has_high:
            data = data[:0x82] + b"\0\0" + data[0x84:]
        checksum = crc32c(struct.pack("<I", inode) + data[0x64:0x68] + data, seed)
        data = data[:0x7C] + struct.pack("<H", checksum & 0xFFFF) + data[0x7E:]
        return data[:0x82] + struct.pack("<H", checksum >> 16) + data[0x84:] if has_high else data


def crc32c(data: bytes, start: int = 0xFFFFFFFF) -> int:
    """Return the CRC-32C (Castagnoli) of *data* as ext4 has it: begun with ones, not inverted at the end."""
    for byte in data:
        start = _TABLE[(start ^ byte) & 0xFF] ^ start >> 8
    return start


def _row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_TABLE = [_row(value) for value in range(256)]


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _size_to_read(inode: bytes) -> int:
    """Return the size of a file or directory in bytes. :raises Ext4Error: if that is more than is read here."""
    size = _u32(inode, 0x6C) << 32 | _u32(inode, 4)
    if size > _LONGEST:
        raise Ext4Error(f"a file or directory has {size} bytes, more than is read here")
    return size
