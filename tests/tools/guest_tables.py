"""What a guest of the plugin's tests does: link tables, and let the unit execute descriptors."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from tests.tools.plugin_host import Host

GCMD, RTADDR, CCMD, FSTS, IQT, IQA, IVA, IOTLB = 0x18, 0x20, 0x28, 0x34, 0x88, 0x90, 0xF0, 0xF8
IRTA = 0xB8
SRTP, QIE, SIRTP = 1 << 30, 1 << 26, 1 << 24
SCALABLE = 1 << 10
WIDE = 1 << 11
QUEUE = 20
"""Page of the queue."""

Make = Callable[..., Host]
Descriptor = tuple[int, int]
Table = tuple[int, str, int]
"""Its page, what kind of table it is, its level."""

CONTEXT_GLOBAL, IOTLB_GLOBAL, PASID_GLOBAL = (0x11, 0), (0x12, 0), (0x37, 0)


def page(number: int) -> int:
    return number * 4096


def legacy(host: Host, levels: int = 3) -> None:
    """Link root 1, context 2 (00:00.0, domain 5), second-stage tables 3, 4 and 5 downwards."""
    host.store(page(1), page(2) | 1)
    host.store(page(2) + 8, 5 << 8 | (levels - 2))
    host.store(page(2), page(3) | 1)
    host.store(page(3), page(4) | 3)
    host.store(page(4), page(5) | 3)
    host.store(page(5), page(9) | 3)
    host.register(RTADDR, page(1), 8)
    host.register(GCMD, SRTP)


def scalable(host: Host, pasids: dict[int, tuple[int, int]], domain: int = 1) -> None:
    """Link root 1, context 2, directory 32, PASID table 6 and a first stage of two for each PASID.

    pasids gives the pages of its levels 4 and 3.
    """
    host.store(page(1), page(2) | 1)
    host.store(page(2), page(32) | 1)
    host.store(page(32), page(6) | 1)
    for pasid, (top, below) in pasids.items():
        host.store(page(6) + 64 * pasid + 8, domain)
        host.store(page(6) + 64 * pasid + 16, page(top))
        host.store(page(top), page(below) | 7)
        host.store(page(6) + 64 * pasid, 1 << 6 | 1)
    host.register(RTADDR, page(1) | SCALABLE, 8)
    host.register(GCMD, SRTP)


def queue(host: Host, *descriptors: Descriptor, wide: bool = False, at: int = QUEUE) -> list[str]:
    """Enable a queue when there is none, then let the unit execute descriptors one by one."""
    step = 32 if wide else 16
    if page(at) not in host.watched:
        host.register(IQA, page(at) | (WIDE if wide else 0), 8)
        host.register(GCMD, QIE)
        host.register(IQT, 0)
    tail = sum(1 for line in host.lines if line.startswith("dmr reg 88 4")) - 1
    lines = []
    for low, high in descriptors:
        host.store(page(at) + step * tail, low)
        host.store(page(at) + step * tail + 8, high)
        tail += 1
        lines += host.register(IQT, step * tail)
    return lines


def released(lines: list[str]) -> set[int]:
    """Return the numbers of the pages that lines give up."""
    return {int(line.split()[2], 16) >> 12 for line in lines if line.startswith("dmr rel")}


def watched(host: Host) -> set[int]:
    """Return the numbers of the pages that are watched."""
    return {address >> 12 for address in host.watched}


def context_domain(domain: int) -> Descriptor:
    return (0x21 | domain << 16, 0)


def context_device(domain: int, sid: int, mask: int = 0) -> Descriptor:
    return (0x31 | domain << 16 | sid << 32 | mask << 48, 0)


def iotlb_domain(domain: int) -> Descriptor:
    return (0x22 | domain << 16, 0)


def iotlb_page(domain: int, address: int, order: int, leaf_only: bool = False) -> Descriptor:
    return (0x32 | domain << 16, address | leaf_only << 6 | order)


def pasid_cache(domain: int, pasid: int | None = None) -> Descriptor:
    return (0x07 | domain << 16 if pasid is None else 0x17 | domain << 16 | pasid << 32, 0)


def pasid_iotlb(domain: int, pasid: int) -> Descriptor:
    return (0x26 | domain << 16 | pasid << 32, 0)


def pasid_iotlb_page(domain: int, pasid: int, address: int, order: int) -> Descriptor:
    return (0x36 | domain << 16 | pasid << 32, address | order)


def reachable(host: Host, starts: Iterable[Table], scalable: bool, pages: int) -> set[Table]:
    """Walk everything a unit could reach from some tables, in the first pages of RAM."""
    found: set[Table] = set()

    def visit(address: int, kind: str, level: int) -> None:
        address &= (1 << 48) - 4096
        if address >= page(pages) or (address, kind, level) in found:
            return
        found.add((address, kind, level))
        qwords = struct.unpack_from("<512Q", host.ram, address)
        if not any(qwords):
            return
        if kind == "root":
            for qword in qwords if scalable else qwords[::2]:
                if qword & 1:
                    visit(qword, "scalable" if scalable else "context", 0)
        elif kind == "context":
            for low, high in zip(qwords[::2], qwords[1::2], strict=True):
                if low & 1 and not low & 8 and 1 <= high & 7 <= 3:
                    visit(low, "second", (high & 7) + 2)
        elif kind == "scalable":
            for low in qwords[::4]:
                if low & 1:
                    for index in range(max((1 << (low >> 9 & 7)) // 4, 1)):
                        visit((low & ~0xFFF) + page(index), "directory", 0)
        elif kind == "directory":
            for qword in qwords:
                if qword & 1:
                    visit(qword, "pasids", 0)
        elif kind == "pasids":
            for index in range(0, 512, 8):
                low, first = qwords[index], qwords[index + 2]
                if low & 1 and low >> 6 & 7 in (1, 3) and first >> 2 & 3 < 2:
                    visit(first, "first", 4 + (first >> 2 & 1))
                if low & 1 and low >> 6 & 7 in (2, 3) and 1 <= low >> 2 & 7 <= 3:
                    visit(low, "second", (low >> 2 & 7) + 2)
        elif level > 1:
            for qword in qwords:
                if qword & (1 if kind == "first" else 7) and not qword & 0x80:
                    visit(qword, kind, level - 1)

    for start in starts:
        visit(*start)
    return found
