"""Move a table elsewhere: copy what software has stored there, and lead to the copy."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace
from typing import Final

from decoders.events import Role, Store
from harness.generate.vtd_tables import PAGE, Spot, Tables

Words = tuple[int, ...]

_LEADING: Final = (Role.ROOT, Role.PASID_DIRECTORY, Role.SECOND_STAGE, Role.FIRST_STAGE)
"""Entries that alone lead to the page they lead to."""

_POINTER: Final = (1 << 21) - PAGE
"""Bits of an address of a table."""

_SPARE: Final = 16
"""Pages that are left to what is laid out later."""


def moved_root(tables: Tables, now: MutableMapping[int, Words]) -> list[Store]:
    """Move the root table; return the stores that this takes, none where there is no room."""
    if not _room(tables):
        return []
    to = tables.page()
    stores = _copied(tables, now, tables.root, to)
    tables.root = to
    return stores


def moved(spot: Spot, tables: Tables, now: MutableMapping[int, Words]) -> list[Store]:
    """Move the page that an entry leads to; return the stores, none where it leads to none."""
    if spot.leaf or spot.role not in _LEADING or now[spot.address] != spot.words:
        return []
    number = next((n for n, word in enumerate(spot.words) if word), None)
    if number is None or not _room(tables):
        return []
    old, to = spot.words[number] & _POINTER, tables.page()
    stores = _copied(tables, now, old, to)
    words = list(spot.words)
    words[number] ^= old ^ to
    at = tables.spots.index(spot)
    tables.spots[at] = replace(spot, words=tuple(words))
    now[spot.address] = tuple(words)
    return [*stores, Store(spot.address + 8 * number, 8, words[number])]


def _room(tables: Tables) -> bool:
    return tables.pages_left > _SPARE


def _copied(tables: Tables, now: MutableMapping[int, Words], old: int, to: int) -> list[Store]:
    stores: list[Store] = []
    for number, spot in enumerate(tables.spots):
        if spot.address & -PAGE == old:
            address = spot.address ^ old ^ to
            tables.spots[number] = replace(spot, address=address)
            now[address] = now.pop(spot.address)
            tables.relocated(spot.address, address)
            stores += tables.put(address, now[address])
    return stores
