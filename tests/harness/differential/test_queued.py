"""Of the descriptors that are queued, a unit acts upon those that it does not stop at."""

from __future__ import annotations

import pytest

from decoders.events import RegWrite, Store
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    ContextCacheInvalidation,
    IotlbInvalidation,
    PageGroupResponse,
)
from decoders.vtd.tables import ContextEntry, RootEntry
from harness.deviations_vtd import DEVIATIONS
from harness.differential.deviation import Situation
from harness.differential.queued import head, oddity, taken
from harness.differential.teller import Teller
from harness.generate.vtd_tables import QUEUE, packed
from harness.model.config import UnitConfig
from harness.model.dialects import dialect_named
from harness.targets.model import ModelReplay

SID, SLOT = 0x400, 16
ROOT, CONTEXTS = 0x10_0000, 0x10_1000
TE, SRTP, QIE, IQE = 1 << 31, 1 << 30, 1 << 26, 1 << 4
TRANSLATES, PASSES = 0, 2
CONFIG = UnitConfig(
    capability=packed(layout(vtd.Capability), sagaw=4, mgaw=47, fro=0x22)[0],
    extended_capability=packed(layout(vtd.ExtendedCapability), qi=1, pt=1, iro=0xF)[0],
    dialect=dialect_named("qemu-10.0"),
)
CONTEXT_FLUSH = packed(layout(ContextCacheInvalidation), type=1, g=1)
IOTLB_FLUSH = packed(layout(IotlbInvalidation), type=2, g=1)
REFUSED = (CONTEXT_FLUSH[0], 1 << 15)
"""A context-cache invalidation with a reserved bit."""

Words = tuple[int, ...]


class Software:
    """Have a source that passes through, in a unit that translates."""

    def __init__(self) -> None:
        self.guide = ModelReplay(CONFIG)
        self.teller = Teller([self.guide], [SID], SLOT)
        root = packed(layout(RootEntry), p=1, ctp=CONTEXTS)[0]
        self.teller.tell(Store(ROOT + 16 * (SID >> 8), 8, root))
        self.context(PASSES)
        self.write(vtd.RTADDR, ROOT)
        self.write(vtd.IQA, QUEUE)
        for command in (SRTP, QIE, QIE | TE):
            self.write(vtd.GCMD, command)

    def write(self, register: vtd.Register, value: int) -> None:
        self.teller.write(RegWrite(register.offset, register.size, value))

    def context(self, tt: int) -> None:
        words = packed(layout(ContextEntry), p=1, tt=tt, aw=2, did=1)
        at = CONTEXTS + 16 * (SID & 0xFF)
        self.teller.tell(*(Store(at + 8 * n, 8, word) for n, word in enumerate(words)))

    def queue(self, at: int, *descriptors: Words) -> None:
        """Store descriptors from a slot on, and move the tail behind them."""
        places = [QUEUE + SLOT * (at + n) for n in range(len(descriptors))]
        stores = [
            Store(place + 8 * n, 8, word)
            for place, words in zip(places, descriptors, strict=True)
            for n, word in enumerate(words)
        ]
        self.teller.tell(*stores)
        self.teller.stores(stores)
        self.write(vtd.IQT, SLOT * (at + len(descriptors)))

    def untranslated(self) -> bool:
        return SID in self.teller.history.untranslated(self.guide)


@pytest.fixture
def software() -> Software:
    return Software()


def test_a_source_translates_once_the_unit_looks_at_its_entry(software: Software) -> None:
    software.context(TRANSLATES)
    assert software.untranslated(), "nothing made the unit look"
    software.queue(0, IOTLB_FLUSH)
    assert software.untranslated(), "it forgets translations only"
    software.queue(1, CONTEXT_FLUSH)
    assert not software.untranslated()


@pytest.mark.parametrize("before", [(), (IOTLB_FLUSH,)])
@pytest.mark.parametrize("behind", [(), (CONTEXT_FLUSH,)])
def test_a_refused_invalidation_makes_no_unit_look(
    software: Software, before: tuple[Words, ...], behind: tuple[Words, ...]
) -> None:
    software.context(TRANSLATES)
    software.queue(0, *before, REFUSED, *behind)
    assert software.guide.unit.queue.stopped
    assert software.untranslated(), "the unit stopped before it would have looked"


def test_what_is_before_a_refused_one_counts(software: Software) -> None:
    software.context(TRANSLATES)
    software.queue(0, CONTEXT_FLUSH, REFUSED)
    assert software.guide.unit.queue.stopped
    assert not software.untranslated()


def test_what_waited_behind_a_refused_one_is_taken_later(software: Software) -> None:
    software.context(TRANSLATES)
    software.queue(0, REFUSED, CONTEXT_FLUSH)
    software.teller.tell(Store(QUEUE, 8, IOTLB_FLUSH[0]), Store(QUEUE + 8, 8, 0))
    software.write(vtd.FSTS, IQE)
    assert software.untranslated(), "the queue does not resume by itself"
    software.queue(2, IOTLB_FLUSH)
    assert not software.untranslated()
    assert taken(software.guide, 0, SLOT) == [IOTLB_FLUSH, CONTEXT_FLUSH, IOTLB_FLUSH]


def test_the_queue_is_a_ring(software: Software) -> None:
    software.queue(0, *[IOTLB_FLUSH] * 255)
    last = head(software.guide)
    assert last == 4096 - SLOT
    software.teller.tell(Store(QUEUE + last, 8, CONTEXT_FLUSH[0]))
    software.queue(0, CONTEXT_FLUSH)
    assert taken(software.guide, last, SLOT) == [CONTEXT_FLUSH] * 2


@pytest.mark.parametrize("page_requests", [False, True])
def test_a_response_that_is_refused_is_known_where_nothing_asks(page_requests: bool) -> None:
    """A unit with ECAP.PRS that stops at a page group response does something else wrong."""
    (row,) = [one for one in DEVIATIONS if one.id == "page-response-refused"]
    odd = oddity(packed(layout(PageGroupResponse), type=9), page_requests=page_requests)
    found = Situation("IQH", "0", frozenset(), frozenset({f"stopped at a {odd}"}))
    assert (row.condition(found, (10, 0, 2)) is None) == page_requests
