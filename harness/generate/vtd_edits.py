"""Make up another content for an entry of VT-d's tables: sound, or in violation of something."""

from __future__ import annotations

from random import Random
from typing import Final

from decoders.events import Role
from decoders.layout import Layout, layout
from decoders.vtd.interrupt import INTERRUPT_FIRST
from decoders.vtd.tables import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from harness.generate.vtd_tables import NOWHERE, Place, Spot, Tables

Words = tuple[int, ...]

_RAM_BITS: Final = 22
"""Bits of an address inside RAM: those above lead out of it."""

_PAGE_BITS: Final = 12
_ALL_ONES: Final = (1 << 64) - 1
_LOW_RIGHTS: Final = {
    Role.SECOND_STAGE: (0, 1, 2, 3, 4, 7),
    Role.FIRST_STAGE: (0, 1, 3, 5, 6, 7, 0x27, 0x67),
}
_FIELDS: Final[dict[Role, tuple[tuple[str, tuple[int, ...]], ...]]] = {
    Role.CONTEXT: (
        ("p", (0,)), ("fpd", (1,)), ("tt", (0, 1, 2, 3)), ("aw", tuple(range(8))),
        ("did", (0, 1, 2, 3, 0x40, 0xFFFF)),
    ),
    Role.SCALABLE_CONTEXT: (
        ("p", (0,)), ("fpd", (1,)), ("dte", (0, 1)), ("paside", (1,)), ("pre", (1,)),
        ("pdts", (1, 7)), ("rid_pasid", (0, 1, 7, 64, 100, 0x3FFF, 0xFFFFF)), ("rid_priv", (1,)),
    ),
    Role.PASID_DIRECTORY: (("p", (0,)), ("fpd", (1,))),
    Role.PASID_TABLE: (
        ("p", (0,)), ("fpd", (1,)), ("pgtt", tuple(range(8))), ("aw", tuple(range(8))),
        ("did", (0, 1, 2, 3, 0x40, 0xFFFF)), ("ssade", (1,)), ("ssee", (1,)), ("fspm", (1, 2, 3)),
        ("eafe", (1,)), ("wpe", (1,)), ("nxe", (1,)), ("sre", (1,)), ("ere", (1,)),
        ("pgsnp", (1,)), ("pwsnp", (1,)), ("cd", (1,)), ("emte", (1,)),
    ),
}  # fmt: skip
"""Fields, and values that they get; sound or not depends on the unit."""

_SHAPES: Final = {
    Role.CONTEXT: ContextEntry,
    Role.SCALABLE_CONTEXT: ScalableContextEntry,
    Role.PASID_DIRECTORY: PasidDirectoryEntry,
    Role.PASID_TABLE: PasidEntry,
}


def edited(spot: Spot, tables: Tables, random: Random) -> Words:
    """Return another content of an entry: another sound one, or one with a violation."""
    if spot.space >= 0:
        return (_paging(spot, tables, random),)
    if spot.role == Role.ROOT:
        shape = layout(ScalableRootEntry if tables.scalable else RootEntry)
        return _flipped(spot.words, shape, random)
    shape = layout(_SHAPES[spot.role])
    draw = random.random()
    if draw < 0.35 and spot.role in (Role.CONTEXT, Role.PASID_TABLE):
        return _moved(spot, tables, random)
    if draw < 0.8:
        name, values = random.choice(_FIELDS[spot.role])
        words = list(spot.words)
        shape[name].put(words, random.choice(values))
        return tuple(words)
    return _flipped(spot.words, shape, random)


def _moved(spot: Spot, tables: Tables, random: Random) -> Words:
    """Return an entry that leads to another space, or passes through."""
    index = random.randrange(-1, len(tables.spaces))
    if spot.role == Role.PASID_TABLE:
        return tables.pasid_words(index)
    return tables.context_words(Place(0, index))


def _flipped(words: Words, shape: Layout, random: Random) -> Words:
    """Return an entry without presence, elsewhere, or with a bit that does not belong there."""
    changed = list(words)
    draw = random.random()
    if draw < 0.2:
        changed[0] = 0
    elif draw < 0.3:
        changed[0] = changed[0] & (1 << _PAGE_BITS) - 1 | NOWHERE
    elif draw < 0.7:
        word = random.randrange(len(words))
        reserved = [bit for bit in range(64) if shape.reserved[word] >> bit & 1]
        if reserved:
            changed[word] |= 1 << random.choice(reserved)
        else:
            changed[word] ^= 1 << random.randrange(_PAGE_BITS)
    else:
        changed[0] ^= 1 << random.randrange(_RAM_BITS, 64)
    return tuple(changed)


def _paging(spot: Spot, tables: Tables, random: Random) -> int:
    """Return another paging entry."""
    (value,) = spot.words
    draw = random.random()
    if draw < 0.12:
        return 0
    if draw < 0.3:
        rights = random.choice(_LOW_RIGHTS[spot.role])
        return value & ~0x7 | rights
    if draw < 0.5 and spot.leaf and spot.level == 1:
        return value & (1 << _PAGE_BITS) - 1 | tables.target()
    if draw < 0.55:
        return value & (1 << _PAGE_BITS) - 1 | NOWHERE if spot.level == 1 else _ALL_ONES
    if draw < 0.6 and spot.leaf and spot.level == 1:
        return value & (1 << _PAGE_BITS) - 1 | INTERRUPT_FIRST
    if draw < 0.65 and not spot.leaf:
        return value & (1 << _PAGE_BITS) - 1 | tables.zeros
    # A large leaf's lower address bits are reserved; those of a pointer would lead to a table.
    low = [bit for bit in range(_PAGE_BITS) if spot.leaf or bit != 7]
    if not spot.leaf:
        low.append(7)
    elif spot.level > 1:
        low = [bit for bit in low if bit != 7] + [_PAGE_BITS, _PAGE_BITS + 1]
    bit: int = random.choice((*low, *range(_RAM_BITS, 64)))
    return value ^ 1 << bit
