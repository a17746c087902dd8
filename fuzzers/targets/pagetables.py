"""Fuzz paging tables: memory images of the first stage, the second, and one nested in the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from decoders.events import AccessKind, Role
from decoders.vtd.paging import FirstStageEntry, SecondStageEntry
from fuzzers import machines as m
from fuzzers import words
from fuzzers.memory_target import MemoryTarget
from fuzzers.real_memory import FIRST_STAGE, LEGACY, SECOND_STAGE, OnQemu, Places
from fuzzers.scaffold import Piece, Scaffold

_GROUND: Final = m.Ground(m.header(), (0,))
_MOST_LEVELS: Final = 5
"""Which QEMU has not."""

_PIECE: Final = 32
"""Bytes of each table that count: entries 0 to 3."""


@dataclass(frozen=True, slots=True)
class _Walk:
    """Describe how the requests of a scaffold are translated."""

    levels: int
    kind: int
    """PGTT of scalable mode: 1 first stage, 2 second, 3 nested; 0 for legacy mode."""

    access: AccessKind = AccessKind.READ
    tracked: bool = False
    """Whether the second stage keeps A and D bits."""


_WALKS: Final = (
    _Walk(3, 0),
    _Walk(4, 0, AccessKind.WRITE),
    _Walk(5, 0),
    _Walk(4, 1),
    _Walk(4, 1, AccessKind.WRITE),
    _Walk(5, 1, AccessKind.EXECUTE),
    _Walk(4, 2),
    _Walk(4, 3),
    _Walk(4, 3, AccessKind.WRITE),
    _Walk(4, 2, AccessKind.WRITE, tracked=True),
    _Walk(4, 3, AccessKind.WRITE, tracked=True),
)


def _tables(walk: _Walk) -> list[tuple[Piece, bytes]]:
    """Return the tables of a walk, the lowest first, with sound content."""
    first = walk.kind in (1, 3)
    made = [
        (Piece(address, _PIECE, Role.FIRST_STAGE if first else Role.SECOND_STAGE, level), content)
        for address, level, content in _stage(first, walk.levels)
    ]
    if walk.kind == 3:
        made += [
            (Piece(address, _PIECE, Role.SECOND_STAGE, level), content)
            for address, level, content in _host()
        ]
    return made


def _stage(first: bool, levels: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield address, level and content of each table of one stage."""
    top, flags = (m.FIRST, m.FIRST_FLAGS) if first else (m.SECOND, m.SECOND_FLAGS)
    for level in range(1, levels + 1):
        address = top + m.PAGE * (levels - level)
        index = int(level < 4)
        target = m.POOL if level == 1 else address + m.PAGE
        entries = [0] * 4
        entries[index] = target | flags
        if level == 2:
            # A large page beside the table.
            entries[2] = 0x20_0000 | flags | 0x80
        yield address, level, b"".join(one.to_bytes(8, "little") for one in entries)


def _host() -> Iterator[tuple[int, int, bytes]]:
    """Yield the second stage below a first one: large pages that lead to themselves."""
    large = 0x80 | m.SECOND_FLAGS
    yield m.SECOND, 4, _entries(m.SECOND + m.PAGE | m.SECOND_FLAGS)
    yield m.SECOND + m.PAGE, 3, _entries(m.SECOND + 2 * m.PAGE | m.SECOND_FLAGS)
    yield m.SECOND + 2 * m.PAGE, 2, _entries(*(number << 21 | large for number in range(4)))


def _entries(*entries: int) -> bytes:
    return b"".join(one.to_bytes(8, "little") for one in entries).ljust(_PIECE, b"\0")


def _scaffold(walk: _Walk, ground: m.Ground = _GROUND) -> Scaffold:
    """Return a unit that walks the tables, before and after it forgets what it has cached."""
    wide = walk.kind != 0
    if wide:
        memory = m.scalable(ground, (walk.kind,), walk.levels, tracked=walk.tracked)
    else:
        memory = m.legacy(ground, walk.levels)
    sid = ground.sids[0]
    used = m.access(sid, kind=walk.access)
    return Scaffold(
        ground.header,
        tuple(memory),
        tuple(m.enabled(scalable_mode=wide, wide=wide)),
        tuple(piece for piece, _ in _tables(walk)),
        (used,),
        None,
        (m.access(sid, m.IOVA + m.PAGE), *m.flushed(wide=wide), used),
    )


def on_qemu() -> OnQemu:
    """Return what becomes of the scaffolds on QEMU's machines.

    Nothing is written: whoever led that to a table would not know what the unit reads there.
    """
    machines = {0: LEGACY, 1: FIRST_STAGE, 2: SECOND_STAGE}
    made: list[Places] = []
    for walk in _WALKS:
        machine = machines.get(walk.kind)
        if machine is None or walk.levels == _MOST_LEVELS or walk.tracked:
            made.append(())
        else:
            made.append(((machine, partial(_scaffold, replace(walk, access=AccessKind.READ))),))
    return made


def create() -> MemoryTarget:
    """Build the target."""
    seeds = [
        bytes((number,)) + b"".join(content for _, content in _tables(walk))
        for number, walk in enumerate(_WALKS)
    ]
    return MemoryTarget(
        "pagetables",
        "paging tables of both stages, and nested",
        [_scaffold(walk) for walk in _WALKS],
        seeds,
        (
            *words.of_layouts((FirstStageEntry, SecondStageEntry)),
            *(words.quadword(m.FIRST + m.PAGE * n | m.FIRST_FLAGS) for n in range(5)),
            *(words.quadword(m.SECOND + m.PAGE * n | m.SECOND_FLAGS) for n in range(5)),
            *map(words.quadword, (m.POOL | m.FIRST_FLAGS, 0xFEE0_0000 | m.SECOND_FLAGS)),
        ),
        on_qemu(),
    )
