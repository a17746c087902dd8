"""Interrupt remapping: which message goes where, and which fault refuses one (VT-d 5.1, 7.1)."""

from __future__ import annotations

import pytest

from decoders.events import FaultRecord, Interrupt, Message, Posted
from decoders.fields import build, words
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.faults import Reason
from decoders.vtd.interrupt import (
    InterruptRemapEntry,
    PostedInterruptDescriptor,
    PostedInterruptEntry,
)
from tests.harness.unit.conftest import MakePlatform
from tests.writers.interrupts import INDEX, VECTOR, Interrupts, compatible, remappable, sent
from tests.writers.platform import DEVICE, OUTSIDE, Platform, fault

ENTRY = layout(InterruptRemapEntry)
POSTED = layout(PostedInterruptEntry)


@pytest.fixture
def interrupts(platform: Platform) -> Interrupts:
    """Make a table with one entry, and enable remapping."""
    made = Interrupts(platform)
    made.entry()
    return made


# -- what passes -----------------------------------------------------------------------------------


def test_nothing_is_remapped_before_it_is_enabled(platform: Platform) -> None:
    assert platform.unit.interrupt(DEVICE, *remappable()).taken == Message(*remappable())


def test_a_unit_without_interrupt_remapping_cannot_enable_it(make_platform: MakePlatform) -> None:
    interrupts = Interrupts(make_platform(ir=0))
    assert interrupts.send(compatible()) == Message(*compatible())


def test_a_message_is_replaced_by_what_its_entry_says(interrupts: Interrupts) -> None:
    assert interrupts.send() == sent()


@pytest.mark.parametrize(
    ("field", "value", "address", "data"),
    [("dm", 1, 1 << 2, 0), ("rh", 1, 1 << 3, 0), ("tm", 1, 0, 1 << 15), ("dlm", 4, 0, 4 << 8)],
)
def test_modes_of_the_entry_go_into_the_message(
    interrupts: Interrupts, field: str, value: int, address: int, data: int
) -> None:
    interrupts.entry(**{field: value})
    plain = sent()
    assert interrupts.send() == Message(plain.address | address, plain.data | data)


def test_the_last_bits_of_the_address_mean_nothing_and_stay(interrupts: Interrupts) -> None:
    address, data = remappable()
    assert interrupts.send((address | 3, data)) == Message(sent().address | 3, sent().data)


def test_a_subhandle_is_added_to_the_handle(interrupts: Interrupts) -> None:
    assert interrupts.send(remappable(INDEX - 3, 3)) == sent()


def test_without_a_subhandle_the_data_means_nothing(interrupts: Interrupts) -> None:
    assert interrupts.send((remappable()[0], 0xFFFF_FFFF)) == sent()


def test_the_top_bit_of_a_handle_is_apart(platform: Platform) -> None:
    interrupts = Interrupts(platform, size=15, table=platform.page(256))
    interrupts.entry(0x8001)
    assert interrupts.send(remappable(0x8001)) == sent()


def test_extended_mode_takes_all_bits_of_the_destination(platform: Platform) -> None:
    interrupts = Interrupts(platform, extended=True)
    interrupts.entry(dst=0x12345678)
    assert interrupts.send() == sent(target=0x12345678)


def test_compatibility_messages_pass_where_software_lets_them(interrupts: Interrupts) -> None:
    interrupts.platform.command(cfi=1)
    assert interrupts.send(compatible()) == Message(*compatible())


def test_a_table_is_used_once_it_is_latched(interrupts: Interrupts) -> None:
    old, interrupts.table = interrupts.table, interrupts.platform.page()
    interrupts.entry(vector=0x99)
    assert interrupts.send() == sent()
    interrupts.latch()
    assert interrupts.send() == sent(0x99)
    assert old != interrupts.table


def test_a_reset_disables_remapping(interrupts: Interrupts) -> None:
    interrupts.platform.unit.reset()
    assert interrupts.send(compatible()) == Message(*compatible())


# -- sources ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "sid", "passes"),
    [
        ({"svt": 0}, 0x4321, True),
        ({"svt": 1}, DEVICE, True),
        ({"svt": 1}, DEVICE + 1, False),
        ({"svt": 1, "sq": 1}, DEVICE | 0b100, True),
        ({"svt": 1, "sq": 1}, DEVICE | 0b010, False),
        ({"svt": 1, "sq": 2}, DEVICE | 0b110, True),
        ({"svt": 1, "sq": 2}, DEVICE | 0b001, False),
        ({"svt": 1, "sq": 3}, DEVICE | 0b111, True),
        ({"svt": 1, "sq": 3}, DEVICE ^ 0b1000, False),
        ({"svt": 2, "sid": 0x0503}, 0x0300, True),
        ({"svt": 2, "sid": 0x0503}, 0x05FF, True),
        ({"svt": 2, "sid": 0x0503}, 0x0600, False),
        ({"svt": 2, "sid": 0x0503}, 0x02FF, False),
        ({"svt": 3}, DEVICE, False),
        ({"svt": 1}, None, True),
    ],
)
def test_the_source_is_checked(
    interrupts: Interrupts, fields: dict[str, int], sid: int | None, passes: bool
) -> None:
    interrupts.entry(**fields)
    assert interrupts.send(sid=sid) == (sent() if passes else fault(Reason.REMAP_SOURCE))


# -- a test for each fault -------------------------------------------------------------------------


def test_0x20_reserved_bits_of_the_data(interrupts: Interrupts) -> None:
    reserved = fault(Reason.REMAP_REQUEST_RESERVED)
    assert interrupts.send(remappable(INDEX, 1 << 16)) == reserved


def test_0x20_is_found_before_the_entry_is_read(interrupts: Interrupts) -> None:
    interrupts.clear()
    reserved = fault(Reason.REMAP_REQUEST_RESERVED)
    assert interrupts.send(remappable(INDEX, 1 << 31)) == reserved


@pytest.mark.parametrize("address", [0x1_FEE0_00B0, 0xFED0_00B0, 0xFEF0_00B0])
def test_0x20_addresses_that_are_no_interrupts(interrupts: Interrupts, address: int) -> None:
    assert interrupts.send((address, 0)) == fault(Reason.REMAP_REQUEST_RESERVED)


@pytest.mark.parametrize("message", [remappable(256), remappable(255, 1), remappable(0, 0xFFFF)])
def test_0x21_index_beyond_the_table(interrupts: Interrupts, message: tuple[int, int]) -> None:
    assert interrupts.send(message) == fault(Reason.REMAP_INDEX)


def test_0x21_index_of_more_than_16_bits(platform: Platform) -> None:
    interrupts = Interrupts(platform, size=15, table=platform.page(256))
    interrupts.entry(0)
    assert interrupts.send(remappable(0xFFFF, 1)) == fault(Reason.REMAP_INDEX)


def test_0x21_table_beyond_the_host_address_width(make_platform: MakePlatform) -> None:
    interrupts = Interrupts(make_platform(width=46), table=1 << 46)
    assert interrupts.send() == fault(Reason.REMAP_INDEX)


def test_0x22_entry_not_present(interrupts: Interrupts) -> None:
    interrupts.entry(p=0)
    assert interrupts.send() == fault(Reason.REMAP_NOT_PRESENT)


def test_0x23_entry_not_readable(make_platform: MakePlatform) -> None:
    interrupts = Interrupts(make_platform(ram=True), table=OUTSIDE)
    assert interrupts.send() == fault(Reason.REMAP_ACCESS)


@pytest.mark.parametrize(
    "bits",
    [(0, 12), (0, 14), (0, 15), (0, 24), (0, 31), (0, 32), (0, 39), (0, 48), (0, 63), (1, 20)],
)
def test_0x24_reserved_bits_of_the_entry(interrupts: Interrupts, bits: tuple[int, int]) -> None:
    word, bit = bits
    at = interrupts.place() + 8 * word
    interrupts.platform.store(at, interrupts.platform.load(at) | 1 << bit)
    assert interrupts.send() == fault(Reason.REMAP_RESERVED)


@pytest.mark.parametrize("bit", [32, 39, 48, 63])
def test_extended_mode_reserves_no_destination(platform: Platform, bit: int) -> None:
    interrupts = Interrupts(platform, extended=True)
    interrupts.entry(dst=1 << bit - 32)
    assert interrupts.send() == sent(target=1 << bit - 32)


@pytest.mark.parametrize(("cfi", "extended"), [(0, False), (0, True), (1, True)])
def test_0x25_compatibility_format_blocked(platform: Platform, cfi: int, extended: bool) -> None:
    interrupts = Interrupts(platform, extended=extended)
    platform.command(cfi=cfi)
    assert interrupts.send(compatible()) == fault(Reason.REMAP_COMPATIBILITY_BLOCKED)


def test_0x26_wrong_source(interrupts: Interrupts) -> None:
    assert interrupts.send(sid=DEVICE + 8) == fault(Reason.REMAP_SOURCE)


def test_reserved_bits_come_before_the_source(interrupts: Interrupts) -> None:
    interrupts.entry(reserved0_12=1)
    assert interrupts.send(sid=DEVICE + 8) == fault(Reason.REMAP_RESERVED)


# -- posted interrupts -----------------------------------------------------------------------------


@pytest.fixture
def posting(make_platform: MakePlatform) -> Interrupts:
    """Make a table in a unit that posts interrupts."""
    return Interrupts(make_platform(pi=1, ram=True), extended=True)


def post_descriptor(interrupts: Interrupts, **fields: int) -> int:
    """Write a posted descriptor that notifies local APIC 9 with vector 0xf2; return its place."""
    place = interrupts.platform.page() + 0x40
    content = build(PostedInterruptDescriptor, **({"nv": 0xF2, "ndst": 9} | fields))
    interrupts.platform.write(place, content)
    return place


NOTIFICATION = Interrupt(sent(0xF2, 9).address, sent(0xF2, 9).data)


def test_a_posted_interrupt_sets_its_bit_and_notifies(posting: Interrupts) -> None:
    place = post_descriptor(posting)
    posting.posted(place)
    posting.platform.observed()
    assert posting.send() == Posted(place, VECTOR, False)
    expected = build(PostedInterruptDescriptor, pir0=1 << VECTOR, on=1, nv=0xF2, ndst=9)
    assert posting.platform.unit.load(place, 64) == bytes(expected)
    assert posting.platform.observed() == [NOTIFICATION]


def test_one_notification_is_enough(posting: Interrupts) -> None:
    posting.posted(post_descriptor(posting))
    posting.send()
    posting.send()
    assert posting.platform.observed() == [NOTIFICATION]


@pytest.mark.parametrize(("urgent", "notifications"), [(0, []), (1, [NOTIFICATION])])
def test_suppression_holds_for_what_is_not_urgent(
    posting: Interrupts, urgent: int, notifications: list[Interrupt]
) -> None:
    place = post_descriptor(posting, sn=1)
    posting.posted(place, urg=urgent, vector=0xFF)
    assert posting.send() == Posted(place, 0xFF, bool(urgent))
    assert posting.platform.load(place + 24) == 1 << 63
    assert posting.platform.observed() == notifications


def test_0x24_reserved_bits_of_a_posting_entry(posting: Interrupts) -> None:
    posting.posted(post_descriptor(posting), reserved0_24=1)
    assert posting.send() == fault(Reason.REMAP_RESERVED)


def test_0x24_posting_entry_in_a_unit_that_cannot(interrupts: Interrupts) -> None:
    interrupts.posted(post_descriptor(interrupts))
    assert interrupts.send() == fault(Reason.REMAP_RESERVED)


def test_0x27_posted_descriptor_not_readable(posting: Interrupts) -> None:
    posting.posted(OUTSIDE)
    assert posting.send() == fault(Reason.POSTED_ACCESS)


@pytest.mark.parametrize(
    "field", ["reserved4_2", "reserved4_24", "reserved5_0", "reserved6_0", "reserved7_0"]
)
def test_0x28_reserved_bits_of_the_posted_descriptor(posting: Interrupts, field: str) -> None:
    posting.posted(post_descriptor(posting, **{field: 1}))
    assert posting.send() == fault(Reason.POSTED_RESERVED)


# -- fault records ---------------------------------------------------------------------------------


def record(reason: int, index: int, sid: int = DEVICE) -> FaultRecord:
    """Return the record of a refused interrupt."""
    return FaultRecord(0, index << 48, sid | int(reason) << 32)


def test_a_fault_record_names_the_index(interrupts: Interrupts) -> None:
    interrupts.clear()
    interrupts.send()
    assert interrupts.platform.observed() == [record(Reason.REMAP_NOT_PRESENT, INDEX)]
    assert interrupts.platform.field(vtd.FSTS, "ppf") == 1


def test_a_fault_record_without_a_source(interrupts: Interrupts) -> None:
    interrupts.clear()
    interrupts.send(sid=None)
    assert interrupts.platform.observed() == [record(Reason.REMAP_NOT_PRESENT, INDEX, 0xFFFF)]


QUALIFIED = {
    Reason.REMAP_NOT_PRESENT: {"p": 0},
    Reason.REMAP_RESERVED: {"reserved0_12": 1},
    Reason.REMAP_SOURCE: {"sid": DEVICE + 8},
}


@pytest.mark.parametrize("reason", QUALIFIED)
@pytest.mark.parametrize("fpd", [0, 1])
def test_the_entry_disables_its_faults(interrupts: Interrupts, reason: Reason, fpd: int) -> None:
    interrupts.entry(fpd=fpd, **QUALIFIED[reason])
    assert interrupts.send() == fault(reason)
    assert interrupts.platform.observed() == ([] if fpd else [record(reason, INDEX)])


@pytest.mark.parametrize(
    ("reason", "message", "index"),
    [
        (Reason.REMAP_REQUEST_RESERVED, remappable(INDEX, 1 << 16), INDEX),
        (Reason.REMAP_INDEX, remappable(300), 300),
        (Reason.REMAP_COMPATIBILITY_BLOCKED, compatible(), 0),
    ],
)
def test_faults_before_the_entry_are_always_recorded(
    interrupts: Interrupts, reason: Reason, message: tuple[int, int], index: int
) -> None:
    interrupts.entry(fpd=1)
    assert interrupts.send(message) == fault(reason)
    assert interrupts.platform.observed() == [record(reason, index)]


def test_entries_are_two_quadwords(interrupts: Interrupts) -> None:
    verdict = interrupts.request()
    steps = verdict.permitted[0].steps
    assert [step.address for step in steps] == [interrupts.place(), interrupts.place() + 8]
    entry = build(InterruptRemapEntry, p=1, vector=VECTOR, dst=0x200, sid=DEVICE, svt=1)
    assert tuple(step.value for step in steps) == words(entry)
