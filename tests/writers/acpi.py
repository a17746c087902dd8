"""Write ACPI tables field by field, so that any of them can be wrong.

Nothing of the decoders is used: formats are given by struct.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

HEADER = "<4sIBB6s8sI4sI"


def sealed(table: bytes) -> bytes:
    """Give the table the checksum that it should have."""
    data = bytearray(table)
    data[9] = 0
    data[9] = -sum(data) & 0xFF
    return bytes(data)


def table(
    signature: bytes,
    body: bytes,
    revision: int = 1,
    length: int | None = None,
    checksum: int | None = None,
) -> bytes:
    """Give a table; length and checksum are right unless they are given."""
    size = struct.calcsize(HEADER) + len(body) if length is None else length
    names = (b"TESTER", b"TESTTABL", 1, b"TEST", 1)
    data = struct.pack(HEADER, signature, size, revision, checksum or 0, *names) + body
    return data if checksum is not None else sealed(data)


# --- VIOT ----------------------------------------------------------------------------------------


def viot(
    nodes: Sequence[bytes], count: int | None = None, offset: int = 48, revision: int = 0
) -> bytes:
    count = len(nodes) if count is None else count
    head = struct.pack("<HH8x", count, offset)
    return table(b"VIOT", head + bytes(max(0, offset - 48)) + b"".join(nodes), revision)


def viot_node(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<BxH", kind, 4 + len(body) if length is None else length) + body


def pci_range(
    output: int,
    endpoint: int = 0,
    segments: tuple[int, int] = (0, 0),
    bdfs: tuple[int, int] = (0, 0xFFFF),
    length: int | None = None,
) -> bytes:
    body = struct.pack("<IHHHHH6x", endpoint, *segments, *bdfs, output)
    return viot_node(1, body, length)


def mmio_endpoint(output: int, endpoint: int, base: int) -> bytes:
    return viot_node(2, struct.pack("<IQH6x", endpoint, base, output))


def virtio_pci(segment: int = 0, bdf: int = 8) -> bytes:
    return viot_node(3, struct.pack("<HH8x", segment, bdf))


def virtio_mmio(base: int) -> bytes:
    return viot_node(4, struct.pack("<4xQ", base))


def draft_viot(inner: bytes) -> bytes:
    return table(b"VIOT", bytes(12) + inner, 0)


# --- IORT ----------------------------------------------------------------------------------------


def iort(
    nodes: Sequence[bytes], count: int | None = None, offset: int = 48, revision: int = 0
) -> bytes:
    count = len(nodes) if count is None else count
    head = struct.pack("<III", count, offset, 0)
    return table(b"IORT", head + bytes(max(0, offset - 48)) + b"".join(nodes), revision)


def iort_node(
    kind: int,
    body: bytes,
    mappings: Sequence[bytes] = (),
    *,
    revision: int = 0,
    identifier: int = 0,
    length: int | None = None,
    count: int | None = None,
    offset: int | None = None,
) -> bytes:
    """Give a node; the mappings follow its body, padded to 4 bytes."""
    body += bytes(-len(body) % 4)
    size = 16 + len(body) + 20 * len(mappings) if length is None else length
    count = len(mappings) if count is None else count
    offset = (16 + len(body) if mappings else 0) if offset is None else offset
    head = struct.pack("<BHBIII", kind, size, revision, identifier, count, offset)
    return head + body + b"".join(mappings)


def mapping(
    output: int, first: int = 0, count: int = 0x10000, base: int = 0, flags: int = 0
) -> bytes:
    """Give a mapping of count ids."""
    return struct.pack("<IIIII", first, count - 1, base, output, flags)


def its_group(*identifiers: int, count: int | None = None) -> bytes:
    count = len(identifiers) if count is None else count
    return iort_node(0, struct.pack(f"<I{len(identifiers)}I", count, *identifiers))


def named_component(name: bytes, *mappings: bytes) -> bytes:
    return iort_node(1, struct.pack("<IQB", 0, 0, 0) + name, mappings)


def root_complex(segment: int, *mappings: bytes, ats: int = 0, **more: int) -> bytes:
    body = struct.pack("<QIIBHB", 1, ats, segment, 64, 0, 0)
    return iort_node(2, body, mappings, **more)


def smmu(base: int, *mappings: bytes, interrupts: int = 1) -> bytes:
    start = 16 + 44
    numbers = (1, 1, start, interrupts, start + 16, 0, 0)
    body = struct.pack("<QQ7I", base, 0x10000, *numbers) + bytes(16 + 8 * interrupts)
    return iort_node(3, body, mappings)


def smmu_v3(base: int, *mappings: bytes, flags: int = 0, index: int = 0) -> bytes:
    body = struct.pack("<QIIQ7I", base, flags, 0, 0, 0, 0, 0, 0, 0, 0, index)
    return iort_node(4, body, mappings, revision=1)


def pmcg(base: int, reference: int, *mappings: bytes) -> bytes:
    return iort_node(5, struct.pack("<QIIQ", base, 0, reference, base), mappings, revision=1)


def reserved_memory(
    ranges: Sequence[tuple[int, int]],
    *mappings: bytes,
    count: int | None = None,
    offset: int = 28,
    flags: int = 0,
) -> bytes:
    count = len(ranges) if count is None else count
    body = struct.pack("<III", flags, count, offset)
    body += b"".join(struct.pack("<QQI", base, size, 0) for base, size in ranges)
    return iort_node(6, body, mappings, revision=1)


def iwb(base: int, name: bytes, *mappings: bytes) -> bytes:
    return iort_node(7, struct.pack("<QH", base, 0) + name, mappings)


# --- DMAR ----------------------------------------------------------------------------------------


def dmar(nodes: Sequence[bytes], width: int = 38, flags: int = 0, revision: int = 1) -> bytes:
    return table(b"DMAR", struct.pack("<BB10x", width, flags) + b"".join(nodes), revision)


def dmar_node(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HH", kind, 4 + len(body) if length is None else length) + body


def drhd(
    base: int, *scopes: bytes, everything: bool = False, segment: int = 0, size: int = 0
) -> bytes:
    body = struct.pack("<BBHQ", everything, size, segment, base)
    return dmar_node(0, body + b"".join(scopes))


def rmrr(base: int, end: int, *scopes: bytes, segment: int = 0) -> bytes:
    return dmar_node(1, struct.pack("<HHQQ", 0, segment, base, end) + b"".join(scopes))


def atsr(*scopes: bytes, all_ports: bool = False, segment: int = 0) -> bytes:
    return dmar_node(2, struct.pack("<BBH", all_ports, 0, segment) + b"".join(scopes))


def rhsa(base: int, domain: int = 0) -> bytes:
    return dmar_node(3, struct.pack("<IQI", 0, base, domain))


def andd(number: int, name: bytes) -> bytes:
    return dmar_node(4, struct.pack("<3xB", number) + name)


def satc(*scopes: bytes, required: bool = False, segment: int = 0) -> bytes:
    return dmar_node(5, struct.pack("<BBH", required, 0, segment) + b"".join(scopes))


def sidp(*scopes: bytes, segment: int = 0) -> bytes:
    return dmar_node(6, struct.pack("<HH", 0, segment) + b"".join(scopes))


def scope(
    kind: int,
    bus: int,
    *steps: tuple[int, int],
    enumeration: int = 0,
    length: int | None = None,
) -> bytes:
    length = 6 + 2 * len(steps) if length is None else length
    head = struct.pack("<BBBBBB", kind, length, 0, 0, enumeration, bus)
    return head + b"".join(struct.pack("<BB", *step) for step in steps)


# --- IVRS ----------------------------------------------------------------------------------------


def ivrs(nodes: Sequence[bytes], info: int = 0, revision: int = 2) -> bytes:
    return table(b"IVRS", struct.pack("<I8x", info) + b"".join(nodes), revision)


def ivhd(
    base: int,
    *entries: bytes,
    kind: int = 0x10,
    device: int = 2,
    segment: int = 0,
    length: int | None = None,
) -> bytes:
    tail = b"".join(entries)
    fixed = struct.pack("<HQHHI", 0x40, base, segment, 0, 0)
    if kind != 0x10:
        fixed += bytes(16)
    length = 6 + len(fixed) + len(tail) if length is None else length
    return struct.pack("<BBHH", kind, 0, length, device) + fixed + tail


def ivmd(
    start: int,
    size: int,
    kind: int = 0x20,
    device: int = 0,
    last: int = 0,
    flags: int = 1,
) -> bytes:
    return struct.pack("<BBHHH8xQQ", kind, flags, 32, device, last, start, size)


def entry(kind: int, device: int = 0, data: int = 0) -> bytes:
    return struct.pack("<BHB", kind, device, data)


def alias(kind: int, device: int, used: int) -> bytes:
    return entry(kind, device) + struct.pack("<BHB", 0, used, 0)


def extended(kind: int, device: int, data: int) -> bytes:
    return entry(kind, device) + struct.pack("<I", data)


def special(handle: int, used: int, variety: int) -> bytes:
    return entry(0x48) + struct.pack("<BHB", handle, used, variety)


def hid(device: int, name: bytes, uid: bytes = b"", uid_type: int | None = None) -> bytes:
    form = (2 if uid else 0) if uid_type is None else uid_type
    fixed = struct.pack("<8s8xBB", name, form, len(uid))
    return entry(0xF0, device) + fixed + uid


# --- acpidump ------------------------------------------------------------------------------------


def acpidump(*tables: bytes) -> bytes:
    lines = []
    for data in tables:
        lines.append(f"{data[:4].decode()} @ 0x0000000000000000")
        for at in range(0, len(data), 16):
            piece = data[at : at + 16]
            shown = "".join(chr(c) if 32 <= c < 127 else "." for c in piece)
            lines.append(f"    {at:04X}: {' '.join(f'{c:02X}' for c in piece):<48} {shown}")
        lines.append("")
    return "\n".join(lines).encode() + b"\n"
