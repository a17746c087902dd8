"""A vhost-user device of a real QEMU: what it is given, what it is told to forget, what is odd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from decoders.events import AccessKind
from decoders.layout import layout
from decoders.vtd.faults import FaultRecordRegister, Reason
from harness.qemu.device_tlb import INTERRUPTS, shown
from harness.qemu.vhost_user import Iotlb, Permission
from harness.qemu.vtd import VtdQemu
from tests.harness.qemu.device_story import (
    CONTEXT_FLUSH,
    DEVICE_TLB,
    EVERYTHING,
    GIGABYTE,
    IOTLB_FLUSH,
    IQE,
    NEAR,
    PASSES,
    TRANSLATES,
    R,
    Story,
    W,
)

pytestmark = pytest.mark.qemu

READ, WRITE = AccessKind.READ, AccessKind.WRITE
RECORD = layout(FaultRecordRegister)
LAST = (1 << 64) - 1


@pytest.fixture(scope="module")
def machine() -> Iterator[VtdQemu]:
    with VtdQemu("device-tlb") as found:
        yield found


@pytest.fixture
def story(machine: VtdQemu) -> Story:
    return Story(machine)


def test_a_device_gets_what_the_tables_say(story: Story) -> None:
    told = story.told(NEAR + 0x123)
    assert (told.kind, told.iova, told.size) == (Iotlb.UPDATE, NEAR, 0x1000)
    assert told.address == story.target


def test_a_refusal_leaves_a_record_and_no_translation(story: Story) -> None:
    seen = story.ask(NEAR + 0x1000, WRITE)
    assert seen.asked is not None and seen.asked.answer is None
    assert RECORD["fr"].get(seen.record) == Reason.NO_WRITE
    assert RECORD["sid"].get(seen.record) == story.sid
    assert RECORD["at"].get(seen.record) == 0, "QEMU does not tell what kind of request it was"


def test_a_device_keeps_what_it_has_until_it_is_told(story: Story) -> None:
    story.ask(NEAR, keeps=True)
    moved = story.page(R | W, 0x3000)
    story.queue([moved], IOTLB_FLUSH)
    used = story.ask(NEAR, keeps=True).asked
    assert used is not None and used.used is not None, "it forgot without being told"
    assert used.used.address == story.target
    story.forget(NEAR, 0)
    asked = story.ask(NEAR, keeps=True).asked
    assert asked is not None and asked.used is None, "it did not forget"
    assert asked.answer is not None and asked.answer.address == story.target + 0x3000


@pytest.mark.parametrize(
    ("base", "order"),
    [(NEAR, 0), (NEAR + 0x3000, 1), (NEAR, 9), (0x1234_5678_9000, 18), (1 << 63, 20),
     (0xFEE0_0000, 9), (0xFEC0_0000, 10), (0, 51), (0, EVERYTHING)],
)  # fmt: skip
def test_a_device_is_told_every_range(story: Story, base: int, order: int) -> None:
    told = story.forget(base, order)
    size = 1 << order + 12
    expected = set(shown(base & -size, size - 1))
    assert {(one.iova, one.iova + one.size - 1) for one in told} == expected


def test_the_interrupt_range_is_nothing_that_a_device_hears_of(story: Story) -> None:
    assert story.forget(INTERRUPTS[0], 8) == []
    told = story.forget(0, EVERYTHING)
    assert {one.iova for one in told} == {0, INTERRUPTS[1] + 1}


def test_others_are_told_nothing_of_it(story: Story) -> None:
    assert story.forget(NEAR, 0, sid=0x20) == []
    assert story.forget(NEAR, 0, sid=0xFFFF) == []


# -- deviations (harness.deviations_device_tlb) ----------------------------------------------------


@pytest.mark.parametrize("tt", [TRANSLATES, DEVICE_TLB])
def test_the_type_of_translation_is_not_looked_at(story: Story, tt: int) -> None:
    story.queue(story.context(tt), CONTEXT_FLUSH, IOTLB_FLUSH)
    assert story.told(NEAR).address == story.target


def test_a_device_gets_rights_that_the_page_does_not_have(story: Story) -> None:
    story.queue([story.page(R)], IOTLB_FLUSH)
    assert story.ask(NEAR, WRITE).record[1] >> 63, "the page can be written"
    assert story.told(NEAR, READ).permission == Permission.BOTH


def test_a_translation_need_not_cover_what_was_asked_for(story: Story) -> None:
    inside = story.target & 0x3FFF_FFFF
    told = story.told(GIGABYTE + inside)
    assert told.iova == GIGABYTE and told.address == 0
    assert told.iova + told.size <= GIGABYTE + inside, "it covers what was asked for"


def test_a_device_that_passes_through_is_told_nothing(story: Story) -> None:
    assert story.told(NEAR).address == story.target
    story.queue(story.context(PASSES), CONTEXT_FLUSH, IOTLB_FLUSH)
    assert story.forget(0, EVERYTHING) == []
    story.queue(story.context(DEVICE_TLB), CONTEXT_FLUSH, IOTLB_FLUSH)
    assert story.forget(0, EVERYTHING) != []


def test_a_refused_invalidation_lets_it_pass_through_as_before(story: Story) -> None:
    story.queue(story.context(PASSES), CONTEXT_FLUSH, IOTLB_FLUSH)
    refused = (CONTEXT_FLUSH[0], 1 << 15)
    assert story.queue(story.context(DEVICE_TLB), refused).before & IQE, "bit 79 is reserved"
    story.resume()
    assert story.forget(0, EVERYTHING) == []
    story.queue([], CONTEXT_FLUSH)
    assert story.forget(0, EVERYTHING) != []


def test_what_was_taken_away_while_it_passed_through_is_used_again(story: Story) -> None:
    story.ask(NEAR, keeps=True)
    story.queue(story.context(PASSES), CONTEXT_FLUSH, IOTLB_FLUSH)
    story.queue([story.page(0)], IOTLB_FLUSH)
    assert story.forget(0, EVERYTHING) == []
    assert story.queue(story.context(DEVICE_TLB), CONTEXT_FLUSH, IOTLB_FLUSH).told == []
    used = story.ask(NEAR, keeps=True).asked
    assert used is not None and used.used is not None, "it forgot"
    assert used.used.address == story.target
    asked = story.ask(NEAR).asked
    assert asked is not None and asked.answer is None, "the page is mapped"


def test_a_device_is_told_nothing_while_nothing_is_translated(story: Story) -> None:
    story.switch(False)
    assert story.forget(NEAR, 0) == []
    story.switch(True)
    assert story.forget(NEAR, 0) != []


def test_a_physical_function_stops_the_queue(story: Story) -> None:
    assert story.forget(NEAR, 0, pfsid_low=1) == []
    assert story.ask(NEAR).before & IQE, "no invalidation queue error"
