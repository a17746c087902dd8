"""The invalidation queue: fetching, waiting, completion and errors (VT-d 6.5.2)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from decoders.events import Descriptor, Interrupt, StatusWrite
from decoders.fields import Structure
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    DESCRIPTORS,
    ContextCacheInvalidation,
    DeviceTlbInvalidation,
    InterruptEntryCacheInvalidation,
    InvalidationWait,
    IotlbInvalidation,
    PageGroupResponse,
    PasidCacheInvalidation,
    PasidDeviceTlbInvalidation,
    PasidIotlbInvalidation,
)
from decoders.vtd.faults import QueueError
from decoders.vtd.registers import InvalidationQueueAddress
from tests.harness.unit.conftest import MakePlatform
from tests.writers.platform import (
    DEVICE,
    OUTSIDE,
    Platform,
    descriptor,
    page,
    quadword,
)

IQE = 1 << 4
IM, IP = 1 << 31, 1 << 30
MESSAGE = Interrupt(0xFEE0_1000, 0x4022)
FLUSH = descriptor(IotlbInvalidation, g=1)
STATUS = 0x50_0000


def wait(data: int = 1, address: int = STATUS, **fields: int) -> tuple[int, ...]:
    return descriptor(
        InvalidationWait, **({"sw": 1, "stdata": data, "staddr": address >> 2} | fields)
    )


def error(platform: Platform) -> int | None:
    """Return IQERCD.IQEI while FSTS.IQE is set."""
    if not platform.field(vtd.FSTS, "iqe"):
        return None
    return platform.field(vtd.IQERCD, "iqei")


def head(platform: Platform) -> int:
    return platform.register(vtd.IQH)


# -- fetching ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wide", "step"), [(False, 16), (True, 32)])
def test_the_head_follows_the_tail(platform: Platform, wide: bool, step: int) -> None:
    platform.start_queue(wide=wide)
    platform.submit(FLUSH)
    assert head(platform) == step
    platform.submit(FLUSH, wait())
    assert head(platform) == 3 * step
    padding = (0,) * (step // 8 - 2)
    assert [seen for seen in platform.observed() if isinstance(seen, Descriptor)] == [
        Descriptor(words + padding) for words in (FLUSH, FLUSH, wait())
    ]


def test_nothing_is_fetched_before_the_queue_is_enabled(platform: Platform) -> None:
    base = platform.page()
    platform.store(base, *FLUSH)
    platform.program(vtd.IQA, base)
    platform.program(vtd.IQT, 16)
    assert (head(platform), platform.observed()) == (0, [])
    platform.command(qie=1)
    assert head(platform) == 16
    assert platform.observed() == [Descriptor(FLUSH)]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("qs", [0, 1])
def test_the_ring_wraps_around(platform: Platform, wide: bool, qs: int) -> None:
    ring = platform.start_queue(wide=wide, qs=qs)
    count = ring.size // ring.step
    assert count == {False: 256, True: 128}[wide] << qs
    platform.submit(*[FLUSH] * (count - 1))
    assert head(platform) == ring.size - ring.step
    platform.observed()
    platform.submit(FLUSH, wait(7))
    assert head(platform) == ring.step
    assert StatusWrite(STATUS, 7) in platform.observed()


def test_the_address_is_latched_when_the_queue_is_enabled(platform: Platform) -> None:
    platform.start_queue()
    elsewhere = platform.page()
    platform.store(elsewhere, 0xF)
    platform.program(vtd.IQA, elsewhere)
    platform.submit(FLUSH)
    assert (error(platform), head(platform)) == (None, 16)


def test_disabling_the_queue_resets_the_head(platform: Platform) -> None:
    platform.start_queue()
    platform.submit(FLUSH, wait())
    platform.command(qie=0)
    assert (head(platform), platform.field(vtd.GSTS, "qies")) == (0, 0)
    platform.observed()
    platform.program(vtd.IQT, 0)
    assert platform.observed() == []


def test_each_descriptor_is_executed(platform: Platform) -> None:
    space = platform.legacy()
    space.map(0x1000, 0x7000)
    platform.read(0x1000)
    space.map(0x1000, 0x8000)
    platform.submit(FLUSH)
    assert platform.permitted(0x1000) == {page(0x8000)}


@pytest.mark.parametrize(
    ("shape", "fields"),
    [
        (DeviceTlbInvalidation, {"sid": DEVICE, "addr": 5, "s": 1, "mip": 3, "pfsid_low": 1}),
        (InterruptEntryCacheInvalidation, {"g": 1, "iidx": 9, "im": 2}),
        (PasidDeviceTlbInvalidation, {"sid": DEVICE, "pasid": 4, "addr": 5, "g": 1}),
        (PageGroupResponse, {"rid": DEVICE, "pasid": 4, "pp": 1, "rc": 15, "prgi": 511}),
    ],
)
def test_what_concerns_others_is_taken(
    platform: Platform, shape: type[Structure], fields: dict[str, int]
) -> None:
    platform.start_queue(wide=True)
    content = descriptor(shape, **fields)
    platform.submit(content)
    assert (error(platform), head(platform)) == (None, 32)
    assert platform.observed()[0] == Descriptor((*content, 0, 0))


# -- waiting -------------------------------------------------------------------------------------


def test_a_wait_writes_its_status(platform: Platform) -> None:
    platform.unit.store(STATUS, 8, 0xAAAA_AAAA_BBBB_BBBB)
    platform.submit(wait(0x1234_5678))
    assert platform.observed() == [
        Descriptor(wait(0x1234_5678)),
        StatusWrite(STATUS, 0x1234_5678),
    ]
    assert platform.load(STATUS) == 0xAAAA_AAAA_1234_5678


def test_a_status_may_be_written_anywhere_four_bytes_fit(platform: Platform) -> None:
    platform.submit(wait(5, STATUS + 0xFFC))
    assert StatusWrite(STATUS + 0xFFC, 5) in platform.observed()
    assert platform.load(STATUS + 0xFF8) == 5 << 32


def test_a_wait_may_only_fence(platform: Platform) -> None:
    fence = wait(sw=0, fn=1)
    platform.submit(fence)
    assert (error(platform), platform.observed()) == (None, [Descriptor(fence)])


@pytest.fixture
def completing(platform: Platform) -> Platform:
    """Set the completion event up and unmask it."""
    platform.program(vtd.IEDATA, MESSAGE.data)
    platform.program(vtd.IEADDR, MESSAGE.address)
    platform.program(vtd.IECTL, 0)
    return platform


def test_completion_raises_its_event(completing: Platform) -> None:
    completing.submit(wait(sw=0, iflag=1))
    assert completing.observed()[1:] == [MESSAGE]
    assert completing.field(vtd.ICS, "iwc") == 1
    assert completing.register(vtd.IECTL) == 0


def test_status_is_written_before_the_event(completing: Platform) -> None:
    completing.submit(wait(3, iflag=1))
    assert completing.observed()[1:] == [StatusWrite(STATUS, 3), MESSAGE]


def test_completion_is_not_raised_twice(completing: Platform) -> None:
    completing.submit(wait(sw=0, iflag=1), wait(sw=0, iflag=1))
    assert completing.observed().count(MESSAGE) == 1
    completing.program(vtd.ICS, 1)
    assert completing.field(vtd.ICS, "iwc") == 0
    completing.submit(wait(sw=0, iflag=1))
    assert completing.observed().count(MESSAGE) == 1


def test_a_masked_completion_stays_pending_until_it_is_unmasked(completing: Platform) -> None:
    completing.program(vtd.IECTL, IM)
    completing.submit(wait(sw=0, iflag=1))
    assert MESSAGE not in completing.observed()
    assert completing.register(vtd.IECTL) == IM | IP
    completing.program(vtd.IECTL, 0)
    assert completing.observed() == [MESSAGE]
    assert completing.register(vtd.IECTL) == 0


def test_a_pending_completion_is_withdrawn_with_its_cause(completing: Platform) -> None:
    completing.program(vtd.IECTL, IM)
    completing.submit(wait(sw=0, iflag=1))
    completing.program(vtd.ICS, 1)
    assert completing.register(vtd.IECTL) == IM
    completing.observed()
    completing.program(vtd.IECTL, 0)
    assert completing.observed() == []


# -- errors --------------------------------------------------------------------------------------


def test_a_tail_beyond_the_ring(platform: Platform) -> None:
    ring = platform.start_queue()
    platform.program(vtd.IQT, ring.size)
    assert (error(platform), head(platform)) == (QueueError.TAIL, 0)


def test_a_tail_that_is_not_aligned(platform: Platform) -> None:
    platform.start_queue(wide=True)
    platform.program(vtd.IQT, 16)
    assert (error(platform), head(platform)) == (QueueError.ALIGNMENT, 0)


def test_a_descriptor_that_cannot_be_read(make_platform: MakePlatform) -> None:
    platform = make_platform(ram=True)
    platform.program(vtd.IQA, OUTSIDE)
    platform.command(qie=1)
    platform.program(vtd.IQT, 16)
    assert (error(platform), head(platform)) == (QueueError.FETCH, 0)
    assert platform.observed() == []


@pytest.mark.parametrize("kind", [0, 10, 11, 14, 15])
def test_a_type_that_means_nothing(platform: Platform, kind: int) -> None:
    platform.submit((kind, 0))
    assert error(platform) == QueueError.TYPE


@pytest.mark.parametrize("bit", [9, 10, 11])
def test_the_upper_bits_of_the_type_count(platform: Platform, bit: int) -> None:
    platform.submit((FLUSH[0] | 1 << bit, 0))
    assert error(platform) == QueueError.TYPE


@pytest.mark.parametrize(
    ("shape", "g"),
    [(PasidIotlbInvalidation, 2), (PasidCacheInvalidation, 3), (PasidDeviceTlbInvalidation, 1)],
)
def test_types_that_need_a_wide_queue(
    make_platform: MakePlatform, shape: type[Structure], g: int
) -> None:
    for wide, expected in ((True, None), (False, QueueError.TYPE)):
        platform = make_platform()
        platform.start_queue(wide=wide)
        platform.submit(descriptor(shape, g=g))
        assert error(platform) == expected


def test_a_wide_queue_needs_scalable_mode(make_platform: MakePlatform) -> None:
    platform = make_platform(smts=0)
    platform.start_queue(wide=True)
    platform.submit(FLUSH)
    assert (error(platform), head(platform)) == (QueueError.WIDTH, 0)


def reserved_bits() -> Iterator[tuple[int, int, int]]:
    """Yield type, quadword and bit: the lowest and the highest of each reserved run."""
    for kind, shape in DESCRIPTORS.items():
        for word, mask in enumerate(layout(shape).reserved):
            bits = [bit for bit in range(64) if mask >> bit & 1]
            for bit in bits:
                if bit - 1 not in bits or bit + 1 not in bits:
                    yield kind, word, bit


VALID = {
    ContextCacheInvalidation: {"g": 1},
    IotlbInvalidation: {"g": 1},
    PasidIotlbInvalidation: {"g": 2},
}


@pytest.mark.parametrize(("kind", "word", "bit"), list(reserved_bits()))
def test_reserved_bits(platform: Platform, kind: int, word: int, bit: int) -> None:
    platform.start_queue(wide=True)
    content = list(descriptor(DESCRIPTORS[kind], **VALID.get(DESCRIPTORS[kind], {})))
    platform.submit(tuple(content))
    assert error(platform) is None
    content[word] |= 1 << bit
    platform.submit(tuple(content))
    assert (error(platform), head(platform)) == (QueueError.RESERVED, 32)


@pytest.mark.parametrize("kind", sorted(DESCRIPTORS))
@pytest.mark.parametrize("word", [2, 3])
def test_the_upper_half_of_a_wide_descriptor_is_reserved(
    platform: Platform, kind: int, word: int
) -> None:
    platform.start_queue(wide=True)
    content = list(descriptor(DESCRIPTORS[kind], **VALID.get(DESCRIPTORS[kind], {})))
    content += [0, 0]
    content[word] = 1
    platform.submit(tuple(content))
    assert error(platform) == QueueError.RESERVED


@pytest.mark.parametrize(("pds", "expected"), [(1, None), (0, QueueError.RESERVED)])
def test_draining_page_requests_needs_the_capability(
    make_platform: MakePlatform, pds: int, expected: QueueError | None
) -> None:
    platform = make_platform(pds=pds)
    platform.submit(wait(pd=1))
    assert error(platform) == expected


@pytest.mark.parametrize(
    ("shape", "g"),
    [
        (ContextCacheInvalidation, 0),
        (IotlbInvalidation, 0),
        (PasidIotlbInvalidation, 0),
        (PasidIotlbInvalidation, 1),
        (PasidCacheInvalidation, 2),
    ],
)
def test_granularities_that_mean_nothing(
    platform: Platform, shape: type[Structure], g: int
) -> None:
    platform.start_queue(wide=True)
    platform.submit(descriptor(shape, g=g))
    assert (error(platform), head(platform)) == (QueueError.RESERVED, 0)


@pytest.mark.parametrize("shape", [IotlbInvalidation, PasidIotlbInvalidation])
def test_an_address_mask_beyond_the_limit(platform: Platform, shape: type[Structure]) -> None:
    platform.start_queue(wide=True)
    platform.submit(descriptor(shape, g=3, am=18))
    assert error(platform) is None
    platform.submit(descriptor(shape, g=3, am=19))
    assert error(platform) == QueueError.RESERVED


# -- after an error ------------------------------------------------------------------------------


def test_a_bad_descriptor_stops_the_queue_where_it_is(platform: Platform) -> None:
    platform.submit(FLUSH, (0xF, 0), FLUSH)
    assert (error(platform), head(platform)) == (QueueError.TYPE, 16)
    platform.observed()
    platform.submit(FLUSH)
    assert (head(platform), platform.observed()) == (16, [])


def test_a_repaired_descriptor_is_taken_when_the_error_is_cleared(platform: Platform) -> None:
    ring = platform.start_queue()
    platform.submit(FLUSH, (0xF, 0), wait(9))
    platform.store(ring.base + 16, *FLUSH)
    platform.observed()
    platform.program(vtd.FSTS, IQE)
    assert (error(platform), head(platform)) == (None, 48)
    assert StatusWrite(STATUS, 9) in platform.observed()


def test_an_error_that_was_not_repaired_comes_back(platform: Platform) -> None:
    platform.submit((0xF, 0))
    platform.program(vtd.FSTS, IQE)
    assert (error(platform), head(platform)) == (QueueError.TYPE, 0)


def test_clearing_other_status_does_not_resume(platform: Platform) -> None:
    ring = platform.start_queue()
    platform.submit((0xF, 0))
    platform.store(ring.base, *FLUSH)
    platform.program(vtd.FSTS, 0xFF & ~IQE)
    assert (error(platform), head(platform)) == (QueueError.TYPE, 0)


def test_an_error_raises_the_fault_event(platform: Platform) -> None:
    platform.program(vtd.FEDATA, MESSAGE.data)
    platform.program(vtd.FEADDR, MESSAGE.address)
    platform.program(vtd.FECTL, 0)
    platform.submit((0xF, 0))
    assert platform.observed() == [MESSAGE]
    platform.context()
    platform.read(0x1000)
    assert MESSAGE not in platform.observed()


def test_a_reset_disables_the_queue(platform: Platform) -> None:
    platform.submit(FLUSH)
    platform.unit.reset()
    platform.observed()
    platform.program(vtd.IQT, 32)
    assert (head(platform), platform.observed()) == (0, [])
    platform.ring, platform.levels_of_command = None, 0
    platform.start_queue(wide=True)
    platform.submit(FLUSH)
    assert head(platform) == 32


def test_a_reset_ends_an_error(platform: Platform) -> None:
    platform.submit((0xF, 0))
    platform.unit.reset()
    assert (error(platform), platform.register(vtd.IQERCD)) == (None, 0)
    assert platform.register(vtd.IQA) == platform.register(vtd.IQT) == 0


# -- a recording's own descriptors ---------------------------------------------------------------


def test_a_descriptor_taken_over_is_executed(platform: Platform) -> None:
    space = platform.legacy()
    space.map(0x1000, 0x7000)
    platform.read(0x1000)
    space.map(0x1000, 0x8000)
    platform.unit.adopt(Descriptor(FLUSH))
    assert platform.permitted(0x1000) == {page(0x8000)}


def test_a_descriptor_taken_over_goes_past_an_error(platform: Platform) -> None:
    platform.submit((0xF, 0), wait(4))
    platform.observed()
    platform.unit.adopt(Descriptor(FLUSH))
    assert (error(platform), head(platform)) == (None, 32)
    assert StatusWrite(STATUS, 4) in platform.observed()


def test_a_wait_taken_over_writes_nothing(platform: Platform) -> None:
    platform.unit.adopt(Descriptor(wait(4)))
    assert platform.load(STATUS) == 0
    platform.unit.adopt(StatusWrite(STATUS, 4))
    assert platform.load(STATUS) == 4


def test_iqa_selects_size_and_width(platform: Platform) -> None:
    value = quadword(InvalidationQueueAddress, qs=7, dw=1, iqa=0x1234)
    platform.program(vtd.IQA, value)
    assert platform.register(vtd.IQA) == value
