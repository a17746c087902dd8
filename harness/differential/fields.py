"""Say which fields software has set in the tables and registers of a sequence, and clear one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from decoders.events import RegWrite, Role, Store
from decoders.fields import Structure
from decoders.layout import Layout, layout
from decoders.vtd import registers as vtd
from decoders.vtd.tables import ScalableRootEntry
from harness.differential.bare import Life
from harness.explain import SHAPES
from harness.generate.vtd_steps import Step
from harness.generate.vtd_tables import Spot
from harness.qemu.vtd import VtdQemu

_POINTER: Final = 40
"""Bits from which on a field is a pointer: what leads nowhere any more says nothing."""

_WRITTEN: Final[dict[int, tuple[str, Layout]]] = {
    vtd.RTADDR.offset: ("RTADDR", layout(vtd.RootTableAddress)),
    vtd.IRTA.offset: ("IRTA", layout(vtd.Irta)),
    vtd.GCMD.offset: ("GCMD", layout(vtd.GlobalCommand)),
}
"""Registers that say how requests are handled."""

_GCMD: Final = layout(vtd.GlobalCommand)
_SWITCHES: Final = sum(_GCMD[name].mask for name in ("te", "qie", "ire", "srtp", "sirtp"))
_SCALABLE: Final = 1 << layout(vtd.RootTableAddress)["ttm"].low
_SMTS: Final = layout(vtd.ExtendedCapability)["smts"]
"""What switches scalable mode on, translation and the like: all depends on it that follows."""

_PRESENT: Final = "p"
"""Field without which a walk ends: it says least."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bits that software set: which step, which of its stores or writes, their name and rank.

    entry is the address of the table entry that they are of, None for a register.
    """

    step: int
    stored: bool
    number: int
    mask: int
    name: str
    rank: tuple[int, int, bool]
    entry: int | None = None


def set_fields(life: Life, qemu: VtdQemu) -> Iterator[Part]:
    """Yield the fields that are set in tables, and in registers that say how to handle requests."""
    width = qemu.width
    scalable = _SCALABLE if _SMTS.get((qemu.extended_capability,)) else 0
    switches = {vtd.RTADDR.offset: scalable, vtd.GCMD.offset: _SWITCHES}
    for number, step in enumerate(life.steps):
        for place, store in enumerate(step.stores):
            spot = _spot(life.spots, store.address)
            if spot is None:
                continue
            shape, word = layout(_shape(spot, life)), (store.address - spot.address) // 8
            name = spot.role.name.lower().replace("_", " ")
            for mask, what in _fields(shape, word, store.value, width):
                rank = int(spot.role), -spot.level, what == _PRESENT
                yield Part(number, True, place, mask, f"{name} {what}", rank, spot.address)
        for place, write in enumerate(step.writes):
            if write.offset in _WRITTEN:
                name, shape = _WRITTEN[write.offset]
                value = write.value & ~switches.get(write.offset, 0)
                for mask, what in _fields(shape, 0, value, width):
                    mask &= value
                    yield Part(number, False, place, mask, f"{name} {what}", (-1, 0, False))


def _fields(shape: Layout, word: int, value: int, width: int) -> Iterator[tuple[int, str]]:
    """Yield the fields of a word that are not zero, as mask and name."""
    for name, field in shape.fields.items():
        if field.word != word or not value & field.mask:
            continue
        if field.width < _POINTER:
            yield field.mask, name
        elif value & field.mask >> width << width:
            yield field.mask >> width << width, f"{name} beyond the host's width"
    for what, masks in (("reserved bits", shape.reserved), ("ignored bits", shape.ignored)):
        if value & masks[word]:
            yield masks[word], what


def _spot(spots: Sequence[Spot], address: int) -> Spot | None:
    inside = (one for one in spots if 0 <= address - one.address < 8 * len(one.words))
    return next(inside, None)


def _shape(spot: Spot, life: Life) -> type[Structure]:
    scalable = any(one.role == Role.SCALABLE_CONTEXT for one in life.spots)
    return ScalableRootEntry if spot.role == Role.ROOT and scalable else SHAPES[spot.role]


def cleared(steps: Sequence[Step], part: Part) -> list[Step]:
    """Return steps in which one field is zero."""
    made = list(steps)
    step = made[part.step]
    if part.stored:
        stores: list[Store] = list(step.stores)
        one = stores[part.number]
        stores[part.number] = replace(one, value=one.value & ~part.mask)
        made[part.step] = replace(step, stores=tuple(stores))
    else:
        writes: list[RegWrite] = list(step.writes)
        write = writes[part.number]
        writes[part.number] = replace(write, value=write.value & ~part.mask)
        made[part.step] = replace(step, writes=tuple(writes))
    return made
