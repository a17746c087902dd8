"""What fuzz targets of a VT-d unit share: an input goes between the events of a scaffold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import lcm
from typing import Final

from decoders.events import Event, Role
from decoders.fields import Structure
from decoders.layout import Layout, layout
from decoders.vtd.descriptors import DESCRIPTORS, descriptor_type
from decoders.vtd.paging import FirstStageEntry, SecondStageEntry
from decoders.vtd.tables import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from fuzzers import judging
from fuzzers.real_memory import OnQemu, RealMemory
from fuzzers.scaffold import Scaffold as Scaffold
from fuzzers.scaffold import Scaffolds
from fuzzers.target import BARE, MODEL, NONE, QEMU, Runner
from fuzzers.word_mutations import WordMutator
from harness.trace import Header

_INTERRUPTS: Final = 0xFEE0_0000
"""Where a write is an interrupt on this architecture, whatever the tables are."""

_SHAPES: Final[Mapping[Role, Sequence[type[Structure]]]] = {
    Role.ROOT: (RootEntry, ScalableRootEntry),
    Role.CONTEXT: (ContextEntry,),
    Role.SCALABLE_CONTEXT: (ScalableContextEntry,),
    Role.PASID_DIRECTORY: (PasidDirectoryEntry,),
    Role.PASID_TABLE: (PasidEntry,),
    Role.FIRST_STAGE: (FirstStageEntry,),
    Role.SECOND_STAGE: (SecondStageEntry,),
}


class MemoryTarget:
    """Put inputs into memory that a unit reads."""

    traced: Sequence[str] = ()
    against: Sequence[str] = (MODEL, NONE)
    mutated: Sequence[str] = (MODEL, QEMU, BARE)

    def __init__(
        self,
        name: str,
        what: str,
        choices: Sequence[Scaffold],
        seeds: Iterable[bytes],
        words: Iterable[bytes] = (),
        on_qemu: OnQemu | None = None,
    ) -> None:
        self.name, self.what = name, what
        self._on_qemu = on_qemu
        if on_qemu is not None:
            self.against = (MODEL, NONE, QEMU, BARE)
        self.scaffolds: Final = Scaffolds(choices)
        self._seeds, self._words = tuple(seeds), tuple(words)
        self.max_size = 1 + max(one.size for one in choices)
        steps = [0 if one.tail is None else one.tail.step for one in choices]
        places = sorted({place for one in choices for place in one.places()})
        # One address among many means something else than a place.
        places += [_INTERRUPTS] * (1 + len(places) // 4)
        mutator = WordMutator(self._words, places, self._entries, steps, self._seeds)
        self.mutate: Callable[[bytes, int, int], bytes] = mutator.mutate
        self.cross: Callable[[bytes, bytes, int, int], bytes] = mutator.cross

    def _entries(self, data: bytes) -> list[tuple[int, Layout]]:
        """Return where entries and descriptors may be in an input's image."""
        scaffold, image = self.scaffolds.split(data)
        if scaffold.tail is not None:
            step = scaffold.tail.step
            kinds = (
                (at, DESCRIPTORS.get(descriptor_type(image[at] | image[at + 1] << 8)))
                for at in range(0, len(image) - step + 1, step)
            )
            return [(at, layout(kind)) for at, kind in kinds if kind is not None]
        found = []
        start = 0
        for piece in scaffold.pieces:
            for shape in map(layout, _SHAPES.get(piece.role, ())):
                ends = range(start, start + piece.size - shape.size + 1, shape.size)
                found += [(at, shape) for at in ends]
            start += piece.size
        return found

    def seeds(self) -> Iterable[bytes]:
        """Return inputs to begin with."""
        return self._seeds

    def dictionary(self) -> Iterable[bytes]:
        """Return words that inputs consist of."""
        return self._words

    def runner(self, against: str) -> Runner:
        """Return what runs an input."""
        if self._on_qemu is not None and against in (QEMU, BARE):
            return RealMemory(self._on_qemu, deviations=against == QEMU).run
        native = self.scaffolds.native()
        if against == NONE:
            run: Runner = native.run
            return run
        return judging.judge(self.scaffolds, native)

    def alike(self, data: bytes, number: int) -> bytes:
        """Return another input that means the same: its first byte chooses the same."""
        machines = {len(places) for places in self._on_qemu or ()}
        period = len(self.scaffolds.choices) * lcm(*(machines - {0}))
        head = (data[0] if data else 0) + number * period
        return bytes((head,)) + data[1:] if head < 1 << 8 else data

    def events(self, data: bytes) -> tuple[Header, list[Event]]:
        """Return what an input makes a unit go through."""
        scaffold, inner = self.scaffolds.split(data)
        return scaffold.header, scaffold.events(inner)
