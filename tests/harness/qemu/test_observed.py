"""What QEMU showed is told as accesses: each transfer, its outcome, its report."""

from __future__ import annotations

from collections.abc import Callable

from decoders.events import AccessKind, Fault, FaultReport, Outcome, Translation
from harness.qemu.dma import I82559, Piece
from harness.qemu.observed import Observed, observed
from harness.qemu.unit import POOL_START, Seen

ENDPOINT = 0x28
WROTE = b"\xff\xff\xff\xff\0\0\0\0"
IOVA = 0x8000_0000
READ, WRITE = AccessKind.READ, AccessKind.WRITE
SELF_TEST = I82559._TEST


def somewhere(_iova: int, _kind: AccessKind) -> list[Translation]:
    return [Translation(0, 0xFFF)]


def nowhere(_iova: int, _kind: AccessKind) -> list[Translation]:
    return [Translation(1 << 40, 0xFFF)]


def report(address: int, flags: int = 0x100) -> FaultReport:
    return FaultReport(2, flags, ENDPOINT, address)


def told(
    seen: Seen,
    iova: int = IOVA,
    pieces: tuple[Piece, ...] = SELF_TEST,
    guess: Callable[[int, AccessKind], list[Translation]] = somewhere,
) -> Observed:
    return observed(pieces, iova, ENDPOINT, seen, guess)


def short(result: Observed) -> list[tuple[int, AccessKind, Outcome | None]]:
    return [(access.iova, access.kind, access.outcome) for access, _ in result.accesses]


def test_data_that_landed_is_a_translation_of_its_first_byte() -> None:
    result = told(Seen(None, [(POOL_START + 0x1000, WROTE)], []))
    assert short(result) == [
        (IOVA, READ, Translation(0, 0xFFF)),
        (IOVA, WRITE, Translation(POOL_START + 0x1000, 0)),
    ]
    assert not result.landed
    assert not result.reports


def test_what_is_refused_is_retried_in_fours() -> None:
    faults = [report(IOVA), report(IOVA + 4)] * 2
    result = told(Seen(None, [], faults))
    assert short(result) == [
        (IOVA, READ, Fault(2)),
        (IOVA + 4, READ, Fault(2)),
        (IOVA, WRITE, Fault(2)),
        (IOVA + 4, WRITE, Fault(2)),
    ]
    assert [report for _, report in result.accesses] == faults


def test_a_report_about_writing_is_not_taken_for_one_about_reading() -> None:
    result = told(Seen(None, [], [report(IOVA, 0x102), report(IOVA + 4, 0x102)]))
    assert short(result) == [
        (IOVA, READ, Translation(0, 0xFFF)),
        (IOVA, WRITE, Fault(2)),
        (IOVA + 4, WRITE, Fault(2)),
    ]


def test_a_transfer_across_a_page_is_two_accesses() -> None:
    at = POOL_START + 0x1FFC
    result = told(Seen(None, [(at, WROTE[:4]), (POOL_START, WROTE[4:])], []), IOVA + 0xFFC)
    assert short(result)[2:] == [
        (IOVA + 0xFFC, WRITE, Translation(at, 0)),
        (IOVA + 0x1000, WRITE, Translation(POOL_START, 0)),
    ]


def test_unaligned_transfers_to_nothing_are_split_at_natural_bounds() -> None:
    result = told(Seen(None, [], []), IOVA + 3, (Piece(0, 8),), nowhere)
    assert [access.iova - IOVA for access, _ in result.accesses] == [3, 4, 8, 10]


def test_an_access_that_may_have_led_to_two_places_has_no_outcome() -> None:
    def either(iova: int, kind: AccessKind) -> list[Translation]:
        return [*somewhere(iova, kind), *nowhere(iova, kind)]

    assert short(told(Seen(None, [], []), pieces=(Piece(0, 4),), guess=either)) == [
        (IOVA, READ, None)
    ]


def test_what_landed_beside_is_left_over() -> None:
    stray = POOL_START + 0x5123
    result = told(Seen(None, [(POOL_START, WROTE), (stray, b"\0")], [report(IOVA + 0x40)]))
    assert result.landed == {stray: 0}
    assert result.reports == [report(IOVA + 0x40)]
