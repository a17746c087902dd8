"""Fuzz what leads to paging tables: context entries, PASID directories and PASID tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from decoders.events import AccessKind, Event, Role
from decoders.layout import layout
from decoders.vtd.tables import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from fuzzers import machines as m
from fuzzers import words
from fuzzers.memory_target import MemoryTarget
from fuzzers.real_memory import FIRST_STAGE, LEGACY, SECOND_STAGE, OnQemu
from fuzzers.scaffold import Piece, Scaffold
from harness.generate.vtd_tables import packed

_SHAPES: Final = (
    *(RootEntry, ScalableRootEntry, ContextEntry, ScalableContextEntry),
    *(PasidDirectoryEntry, PasidEntry),
)
_POINTERS: Final = (m.CONTEXT | 1, m.DIRECTORY | 9, m.PASIDS | 1, m.FIRST, m.SECOND)

_ACCESSES: Final = (
    m.access(0),
    m.access(0, kind=AccessKind.WRITE, pasid=1),
    m.access(0, kind=AccessKind.EXECUTE, pasid=0, attributes=1),
    m.access(0, attributes=2),
)
"""Requests: without a PASID, with one, privileged, for a translation only."""


def _scaffold(scalable: bool, number: int, ground: m.Ground = m.MADE_UP) -> Scaffold:
    """Return a unit that looks the entries up; both stages have tables behind them."""
    accesses = [replace(one, sid=ground.sids[0]) for one in _ACCESSES]
    memory: list[Event] = m.paging(m.FIRST, 4, m.FIRST_FLAGS, ground.pool)
    memory += m.paging(m.SECOND, 4, m.SECOND_FLAGS, ground.pool)
    return Scaffold(
        ground.header,
        tuple(memory),
        tuple(m.enabled(scalable_mode=scalable, wide=scalable)),
        _pieces(scalable, ground),
        (accesses[number],),
        None,
        (*m.flushed(wide=scalable), *accesses),
    )


def _pieces(scalable: bool, ground: m.Ground) -> tuple[Piece, ...]:
    """Return the tables; that of devices begins where the first one's entry is."""
    size, role = (32, Role.SCALABLE_CONTEXT) if scalable else (16, Role.CONTEXT)
    context = Piece(m.CONTEXT, size, role, start=ground.sids[0] * size)
    root = Piece(m.ROOT, 16, Role.ROOT)
    if not scalable:
        return context, root
    entries = Piece(m.PASIDS, 128, Role.PASID_TABLE)
    return entries, Piece(m.DIRECTORY, 16, Role.PASID_DIRECTORY), context, root


def on_qemu() -> OnQemu:
    """Return what becomes of the scaffolds on QEMU's machines, whose devices read only."""
    scalable, legacy = (partial(_scaffold, mode, 0) for mode in (True, False))
    return (
        *[((FIRST_STAGE, scalable), (SECOND_STAGE, scalable))] * len(_ACCESSES),
        *[((LEGACY, legacy),)] * len(_ACCESSES),
    )


def _octets(words: Sequence[int]) -> bytes:
    return b"".join(word.to_bytes(8, "little") for word in words)


def _scalable_seed(kind: int, ground: m.Ground = m.MADE_UP) -> bytes:
    directory = packed(layout(PasidDirectoryEntry), p=1, smptblptr=m.PASIDS)
    context = packed(
        layout(ScalableContextEntry),
        p=1, dte=ground.has("dt"), paside=ground.has("pasid"), pre=ground.has("prs"),
        pasiddirptr=m.DIRECTORY,
    )  # fmt: skip
    root = packed(layout(ScalableRootEntry), lp=1, lctp=m.CONTEXT)
    entries = m.pasid_entry(ground, kind, 1) + m.pasid_entry(ground, kind % 4 + 1, 2)
    return _octets((*entries, *directory, 0, *context, *root))


def _legacy_seed(kind: int) -> bytes:
    context = packed(
        layout(ContextEntry), p=1, tt=kind, aw=2, did=1, ssptptr=0 if kind == 2 else m.SECOND
    )
    return _octets((*context, *packed(layout(RootEntry), p=1, ctp=m.CONTEXT)))


def create() -> MemoryTarget:
    """Build the target."""
    # Numbers of scaffolds: two bits for the access, one for the mode.
    count = len(_ACCESSES)
    scaffolds = [_scaffold(mode, number) for mode in (True, False) for number in range(count)]
    seeds = [bytes((n,)) + _scalable_seed(kind) for n in range(count) for kind in (1, 2, 3, 4)]
    # A unit that lacks all that can be left out reads these, too.
    seeds += [bytes((0,)) + _scalable_seed(kind, m.PLAIN) for kind in (1, 2, 3, 4)]
    seeds += [bytes((count + n,)) + _legacy_seed(kind) for n in range(count) for kind in (0, 1, 2)]
    return MemoryTarget(
        "pasid",
        "context, PASID directory and PASID entries",
        scaffolds,
        seeds,
        (*words.of_layouts(_SHAPES), *map(words.quadword, _POINTERS)),
        on_qemu(),
    )
