"""Read guest memory from an ELF core, as QMP's `dump-guest-memory` writes it.

Such a core has a PT_LOAD segment for each piece of RAM; p_paddr is the guest-physical address.
Headers are hostile input and are checked before they are believed; contents are read on demand.
Source: the System V ABI, chapters 4 and 5, and `dump/dump.c` of QEMU 10.0.
"""

from __future__ import annotations

import bisect
import io
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.elf.elffile import ELFFile

from decoders.errors import DecodeError

NAME: Final = "elf-core"

SEGMENTS_LIMIT: Final = 4096
"""Program headers that are read; a machine has a handful of pieces of RAM."""

READ_LIMIT: Final = 64 * 1024 * 1024
"""Bytes that one call of read() gives at most."""

PAGE: Final = 4096
"""Bytes of a page."""

_MANY: Final = 0xFFFF
_PADDED: Final = 64


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """Say where a piece of guest memory is in the file."""

    address: int
    size: int
    offset: int

    @property
    def end(self) -> int:
        """Give the first address beyond."""
        return self.address + self.size


def detect(head: bytes) -> bool:
    """Say whether a file that begins with head is an ELF core of either byte order."""
    if head[:4] != b"\x7fELF" or len(head) < 18:
        return False
    return head[16:18] == (b"\x00\x04" if head[5] == 2 else b"\x04\x00")


def _segment_count(elf: ELFFile, size: int) -> int:
    """Count the program headers, which may be more than their 16-bit field can say."""
    count: int = elf["e_phnum"]
    if count == _MANY:
        at: int = elf["e_shoff"]
        if not 0 < at <= size - elf.structs.Elf_Shdr.sizeof():
            raise DecodeError("elf.e_shoff", f"{at:#x} is outside the file", 0)
        # The number then stands in the first section header, which is there for nothing else.
        count = struct_parse(elf.structs.Elf_Shdr, elf.stream, stream_pos=at)["sh_info"]
    if count > SEGMENTS_LIMIT:
        raise DecodeError("elf.e_phnum", f"{count} segments, more than {SEGMENTS_LIMIT}", 0)
    return count


def _load_ranges(elf: ELFFile, size: int) -> list[Range]:
    """Read the program headers; give what they say is memory and in the file."""
    count = _segment_count(elf, size)
    table: int = elf["e_phoff"]
    entry: int = elf["e_phentsize"]
    if count and entry < elf.structs.Elf_Phdr.sizeof():
        raise DecodeError("elf.e_phentsize", f"{entry} bytes cannot hold a program header", 0)
    if table + count * entry > size:
        raise DecodeError("elf.e_phoff", f"{count} program headers run past the file", table)
    ranges = []
    for index in range(count):
        at = table + index * entry
        header = struct_parse(elf.structs.Elf_Phdr, elf.stream, stream_pos=at)
        # Memory that was left out of the dump has a length in memory and none in the file.
        if header["p_type"] != "PT_LOAD" or not header["p_filesz"]:
            continue
        found = Range(header["p_paddr"], header["p_filesz"], header["p_offset"])
        path = f"elf.segment[{index}]"
        if found.offset + found.size > size:
            raise DecodeError(f"{path}.p_offset", "the segment runs past the file", at)
        if found.size > header["p_memsz"]:
            raise DecodeError(f"{path}.p_filesz", "more in the file than in memory", at)
        if found.end > 1 << 64:
            raise DecodeError(f"{path}.p_paddr", "the segment runs past 64 bits", at)
        ranges.append(found)
    return ranges


def _merge(ranges: list[Range]) -> list[Range]:
    """Sort the ranges and join those that are one.

    A dump made with paging has a segment per virtual mapping, so two may show the same memory;
    they are believed when they show the same bytes of the file.
    """
    merged: list[Range] = []
    for found in sorted(ranges):
        last = merged[-1] if merged else None
        if last is None or found.address > last.end:
            merged.append(found)
        elif found.offset - last.offset == found.address - last.address:
            size = max(last.end, found.end) - last.address
            merged[-1] = Range(last.address, size, last.offset)
        elif found.address == last.end:
            merged.append(found)
        else:
            problem = f"two segments claim the memory at {found.address:#x}"
            raise DecodeError("elf.p_paddr", problem, found.offset)
    return merged


class MemoryImage:
    """Give access to the guest memory in a core; nothing is read before it is asked for.

    DecodeError when the file is not an ELF core or contradicts itself, with the offset in the
    file of the header that does; OSError as usual.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = self.path.open("rb")
        try:
            self._size = self._file.seek(0, io.SEEK_END)
            self.ranges = tuple(self._parse())
        except BaseException:
            self._file.close()
            raise
        self._starts = [found.address for found in self.ranges]

    def _parse(self) -> list[Range]:
        self._file.seek(0)
        head = self._file.read(_PADDED)
        if not detect(head):
            raise DecodeError("elf.e_type", "not an ELF core", 0)
        try:
            elf = ELFFile(self._file)
            return _merge(_load_ranges(elf, self._size))
        except ELFError as error:
            raise DecodeError("elf", f"not an ELF core: {error}", 0) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __contains__(self, address: int) -> bool:
        return self._find(address) is not None

    def _find(self, address: int) -> Range | None:
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0 or address >= self.ranges[index].end:
            return None
        return self.ranges[index]

    def read(self, address: int, length: int) -> bytes:
        """Read guest memory; DecodeError when part of it is not in the image.

        At most READ_LIMIT bytes at a time. A read may span ranges that touch.
        """
        if not 0 <= length <= READ_LIMIT:
            raise DecodeError("memory", f"a read of {length} bytes, {READ_LIMIT} are the most")
        pieces = []
        while length:
            found = self._find(address)
            if found is None:
                raise DecodeError("memory", f"{address:#x} is not in the image")
            size = min(length, found.end - address)
            offset = found.offset + address - found.address
            self._file.seek(offset)
            data = self._file.read(size)
            if len(data) != size:
                raise DecodeError("memory", "the file has become shorter", offset)
            pieces.append(data)
            address += size
            length -= size
        return b"".join(pieces)

    def page(self, address: int) -> bytes | None:
        """Read the page that address lies in; None when the image does not have all of it."""
        address -= address % PAGE
        try:
            return self.read(address, PAGE)
        except DecodeError:
            return None
