"""Write ELF cores field by field, so that any of them can be wrong."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

PT_LOAD, PT_NOTE = 1, 4
ET_EXEC, ET_CORE = 2, 4
HEADER, SEGMENT, SECTION = "16sHHIQQQIHHHHHH", "IIQQQQQQ", "IIQQQQIIQQ"
HEADER32, SEGMENT32 = "16sHHIIIIIHHHHHH", "IIIIIIII"


@dataclass
class Segment:
    """Describe one program header; None lets the writer compute the value."""

    address: int
    data: bytes = b""
    type: int = PT_LOAD
    offset: int | None = None
    file_size: int | None = None
    memory_size: int | None = None


@dataclass
class Core:
    """Describe a core; None lets the writer compute the value."""

    segments: list[Segment] = field(default_factory=list)
    type: int = ET_CORE
    magic: bytes = b"\x7fELF"
    bits: int = 64
    order: str = "<"
    machine: int = 62
    table: int | None = None
    entry_size: int | None = None
    count: int | None = None
    sections: int = 0
    extended_count: int = 0

    def bytes(self) -> bytes:
        """Give the file: header, program headers, one section header if asked for, contents."""
        wide = self.bits == 64
        header = self.order + (HEADER if wide else HEADER32)
        segment = self.order + (SEGMENT if wide else SEGMENT32)
        section = struct.pack(self.order + SECTION, 0, 0, 0, 0, 0, 0, 0, self.extended_count, 0, 0)
        start = struct.calcsize(header)
        section_at = start + struct.calcsize(segment) * len(self.segments)
        body_at = section_at + len(section) * bool(self.sections)
        ident = self.magic + bytes([1 + wide, 1 + (self.order == ">"), 1]) + bytes(9)
        out = struct.pack(
            header,
            *(ident, self.type, self.machine, 1, 0),
            start if self.table is None else self.table,
            self.sections and section_at,
            *(0, start),
            struct.calcsize(segment) if self.entry_size is None else self.entry_size,
            len(self.segments) if self.count is None else self.count,
            *(len(section), self.sections, 0),
        )
        body = b""
        for one in self.segments:
            offset = body_at + len(body) if one.offset is None else one.offset
            size = len(one.data) if one.file_size is None else one.file_size
            memory = size if one.memory_size is None else one.memory_size
            values = (offset, 0, one.address, size, memory)
            out += (
                struct.pack(segment, one.type, 0, *values, 0)
                if wide
                else struct.pack(segment, one.type, *values, 0, 0)
            )
            body += one.data
        return out + section * bool(self.sections) + body
