"""The interrupt entry cache: what may be kept, what invalidations drop, what findings say."""

from __future__ import annotations

import pytest

from decoders.events import Fault, Message
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import InterruptEntryCacheInvalidation
from decoders.vtd.faults import QueueError, Reason
from harness.findings import FindingKind
from tests.harness.unit.conftest import MakePlatform
from tests.writers.interrupts import INDEX, Interrupts, compatible, remappable, sent
from tests.writers.platform import DEVICE, Platform, descriptor, fault

OLD, NEW = sent(0x41), sent(0x42)
ABSENT = fault(Reason.REMAP_NOT_PRESENT)


def invalidation(**fields: int) -> tuple[int, ...]:
    """Return an interrupt entry invalidation."""
    return descriptor(InterruptEntryCacheInvalidation, **fields)


@pytest.fixture
def interrupts(platform: Platform) -> Interrupts:
    """Make a table whose entry has been used with vector 0x41."""
    made = Interrupts(platform)
    platform.start_queue()
    made.entry(vector=0x41)
    assert made.send() == OLD
    return made


def test_a_changed_entry_may_still_be_in_use(interrupts: Interrupts) -> None:
    interrupts.entry(vector=0x42)
    assert interrupts.permitted() == {OLD, NEW}


def test_a_cleared_entry_may_still_be_in_use(interrupts: Interrupts) -> None:
    interrupts.clear()
    assert interrupts.permitted() == {OLD, ABSENT}


def test_an_entry_that_was_never_used_is_not_kept(interrupts: Interrupts) -> None:
    interrupts.entry(INDEX + 1, vector=0x41)
    interrupts.entry(INDEX + 1, vector=0x42)
    assert interrupts.permitted(remappable(INDEX + 1)) == {NEW}


def test_a_kept_entry_is_checked_for_its_own_source(interrupts: Interrupts) -> None:
    interrupts.entry(vector=0x42, sid=DEVICE + 8)
    assert interrupts.permitted() == {OLD, fault(Reason.REMAP_SOURCE)}


def test_a_refused_source_fills_the_cache_all_the_same(platform: Platform) -> None:
    interrupts = Interrupts(platform)
    interrupts.entry(sid=DEVICE + 8)
    interrupts.send()
    interrupts.entry(vector=0x42)
    assert interrupts.permitted() == {NEW, fault(Reason.REMAP_SOURCE)}


@pytest.mark.parametrize(("cm", "kept"), [(0, set()), (1, {ABSENT})])
def test_caching_mode_keeps_what_is_not_present(
    make_platform: MakePlatform, cm: int, kept: set[Fault]
) -> None:
    interrupts = Interrupts(make_platform(cm=cm))
    assert interrupts.send() == ABSENT
    interrupts.entry()
    assert interrupts.permitted() == {sent(), *kept}


@pytest.mark.parametrize(
    ("fields", "drops"),
    [
        ({"g": 0}, True),
        ({"g": 1, "iidx": INDEX}, True),
        ({"g": 1, "iidx": INDEX + 1}, False),
        ({"g": 1, "iidx": 4, "im": 1}, True),
        ({"g": 1, "iidx": 6, "im": 1}, False),
        ({"g": 1, "iidx": 0, "im": 3}, True),
        ({"g": 1, "iidx": 7, "im": 3}, True),
        ({"g": 1, "iidx": 8, "im": 3}, False),
        ({"g": 1, "iidx": 0, "im": 15}, True),
    ],
)
def test_what_an_invalidation_covers(
    interrupts: Interrupts, fields: dict[str, int], drops: bool
) -> None:
    interrupts.entry(vector=0x42)
    interrupts.platform.submit(invalidation(**fields))
    assert interrupts.permitted() == ({NEW} if drops else {OLD, NEW})


@pytest.mark.parametrize(("mask", "refused"), [(3, False), (4, True), (31, True)])
def test_a_mask_beyond_mhmv_is_an_error(
    make_platform: MakePlatform, mask: int, refused: bool
) -> None:
    platform = make_platform(mhmv=3)
    platform.submit(invalidation(g=1, im=mask))
    assert platform.field(vtd.FSTS, "iqe") == int(refused)
    assert platform.field(vtd.IQERCD, "iqei") == (QueueError.RESERVED if refused else 0)


@pytest.mark.parametrize(("esirtps", "drops"), [(0, False), (1, True)])
def test_latching_a_table_invalidates_where_the_unit_says_so(
    make_platform: MakePlatform, esirtps: int, drops: bool
) -> None:
    interrupts = Interrupts(make_platform(esirtps=esirtps))
    interrupts.entry(vector=0x41)
    interrupts.send()
    interrupts.table = interrupts.platform.page()
    interrupts.entry(vector=0x42)
    interrupts.latch()
    assert interrupts.permitted() == ({NEW} if drops else {OLD, NEW})


def test_a_reset_drops_everything(interrupts: Interrupts) -> None:
    interrupts.platform.unit.reset()
    interrupts.platform.levels_of_command = 0
    interrupts.latch()
    interrupts.platform.command(ire=1)
    interrupts.entry(vector=0x42)
    assert interrupts.permitted() == {NEW}


# -- findings --------------------------------------------------------------------------------------


def test_stale_use(interrupts: Interrupts) -> None:
    filled = interrupts.platform.unit.event
    changed = interrupts.entry(vector=0x42)
    (finding,) = interrupts.judge(OLD)
    assert finding.kind == FindingKind.STALE_USE
    assert (finding.subject, finding.cache) == ("interrupt-request", "interrupt-entry")
    assert (finding.observed, finding.permitted) == (OLD, (NEW, OLD))
    assert (finding.filled_by, finding.changed_by) == (filled, changed)


def test_unflushed(interrupts: Interrupts) -> None:
    changed = interrupts.entry(vector=0x42)
    (finding,) = interrupts.judge(NEW)
    assert finding.kind == FindingKind.UNFLUSHED
    assert finding.changed_by == changed


def test_stale_after_invalidation(interrupts: Interrupts) -> None:
    interrupts.entry(vector=0x42)
    interrupts.platform.submit(invalidation(g=0))
    covered = interrupts.platform.unit.event
    (finding,) = interrupts.judge(OLD)
    assert finding.kind == FindingKind.STALE_AFTER_INVALIDATION
    assert finding.covered_by == covered


def test_divergence(interrupts: Interrupts) -> None:
    (finding,) = interrupts.judge(sent(0x77))
    assert finding.kind == FindingKind.DIVERGENCE
    assert finding.permitted == (OLD,)


@pytest.mark.parametrize("recorded", [OLD, NEW])
def test_no_finding_once_it_is_flushed(interrupts: Interrupts, recorded: Message) -> None:
    interrupts.entry(vector=0x42)
    interrupts.platform.submit(invalidation(g=1, iidx=INDEX))
    assert len(interrupts.judge(recorded)) == (recorded != NEW)


def test_a_refusal_without_a_reason_may_be_any(interrupts: Interrupts) -> None:
    interrupts.clear()
    interrupts.platform.submit(invalidation(g=0))
    assert interrupts.judge(Fault(0)) == []
    # Its reason would have been in the record that it did not leave.
    assert interrupts.platform.observed()[1:] == []
    assert [one.kind for one in interrupts.judge(Fault(0), compatible())] == []


def test_a_refusal_of_what_must_pass_diverges(interrupts: Interrupts) -> None:
    (finding,) = interrupts.judge(Fault(0))
    assert finding.kind == FindingKind.DIVERGENCE


# -- what QEMU does differently --------------------------------------------------------------------


@pytest.fixture
def emulated(make_platform: MakePlatform) -> Interrupts:
    """Make a table behind a unit as QEMU emulates it."""
    made = Interrupts(make_platform(dialect="qemu-10.0"))
    made.entry()
    return made


def test_qemu_lets_the_compatibility_format_pass(emulated: Interrupts) -> None:
    assert emulated.send(compatible()) == Message(*compatible())


def test_qemu_checks_the_data_last_and_names_index_0(emulated: Interrupts) -> None:
    assert emulated.send(remappable(INDEX, 1 << 16)) == fault(Reason.REMAP_REQUEST_RESERVED)
    (record,) = emulated.platform.observed()
    assert record.low == 0  # type: ignore[union-attr]
    emulated.clear()
    assert emulated.send(remappable(INDEX, 1 << 16)) == ABSENT


def test_qemu_takes_the_index_modulo_its_width(emulated: Interrupts) -> None:
    assert emulated.send(remappable(0xFFFF, INDEX + 1)) == sent()


def test_qemu_checks_no_destination(emulated: Interrupts) -> None:
    emulated.entry(dst=0xFFFF_02FF)
    assert emulated.send() == sent()


def test_qemu_remaps_where_an_entry_posts(emulated: Interrupts) -> None:
    emulated.entry(im=1)
    assert emulated.send() == sent()


def test_qemu_takes_any_mask(emulated: Interrupts) -> None:
    emulated.platform.submit(invalidation(g=1, im=31))
    assert emulated.platform.field(vtd.FSTS, "iqe") == 0
