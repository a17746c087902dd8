"""Which recorded outcomes may be right: properties of the oracle's two relations."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from decoders.events import Fault, Outcome, Translation
from decoders.vtd.paging import page_mask
from harness.findings import FindingKind
from harness.model.caches import Dropped
from harness.model.translate import Candidate
from harness.oracle import compatible, judge, same_place

LEVELS = (1, 2, 3)
MASKS = tuple(page_mask(level) for level in LEVELS)
addresses = st.integers(0, (1 << 64) - 1)
masks = st.sampled_from(MASKS)
faults = st.builds(Fault, st.integers(1, 0x91))


@st.composite
def translations(draw: st.DrawFn, sizes: tuple[int, ...] = MASKS) -> Translation:
    mask = draw(st.sampled_from(sizes))
    return Translation(draw(st.integers(0, (1 << 52) - 1)) & ~mask, mask)


outcomes: st.SearchStrategy[Outcome] = st.one_of(faults, translations())


def fraction(whole: Translation, mask: int, iova: int) -> Translation:
    """Return the part of a page that a smaller one around iova is."""
    return Translation((whole.address | iova & whole.mask) & ~mask, mask)


@given(outcomes, addresses)
def test_every_outcome_agrees_with_itself(outcome: Outcome, iova: int) -> None:
    assert compatible(outcome, outcome, iova)
    assert same_place(outcome, outcome, iova)


@given(outcomes, outcomes, addresses)
def test_same_place_has_no_direction(left: Outcome, right: Outcome, iova: int) -> None:
    assert same_place(left, right, iova) == same_place(right, left, iova)


@given(outcomes, outcomes, addresses)
def test_what_agrees_leads_to_the_same_place(recorded: Outcome, whole: Outcome, iova: int) -> None:
    if isinstance(whole, Translation) and isinstance(recorded, Translation):
        recorded = fraction(whole, recorded.mask & whole.mask, iova)
        assert compatible(recorded, whole, iova)
    agree = compatible(recorded, whole, iova)
    assert not agree or same_place(recorded, whole, iova)


@given(translations(), masks, addresses)
def test_a_page_may_be_fractured(whole: Translation, mask: int, iova: int) -> None:
    mask &= whole.mask
    assert compatible(fraction(whole, mask, iova), whole, iova)


@given(translations(MASKS[:-1]), st.integers(1, len(MASKS) - 1), addresses)
def test_a_page_is_never_widened(part: Translation, larger: int, iova: int) -> None:
    mask = MASKS[min(MASKS.index(part.mask) + larger, len(MASKS) - 1)]
    wider = Translation(part.address & ~mask, mask)
    assert not compatible(wider, part, iova)


@given(translations(), masks, addresses, st.integers(12, 51))
def test_a_fraction_of_another_place_does_not_agree(
    whole: Translation, mask: int, iova: int, bit: int
) -> None:
    mask &= whole.mask
    assume(1 << bit > mask)
    right = fraction(whole, mask, iova)
    wrong = Translation(right.address ^ 1 << bit, mask)
    assert not compatible(wrong, whole, iova)
    assert not same_place(wrong, right, iova)


@given(translations(), masks, masks, addresses)
def test_fractions_of_fractions_agree(
    whole: Translation, middle: int, small: int, iova: int
) -> None:
    middle &= whole.mask
    small &= middle
    part = fraction(whole, middle, iova)
    assert fraction(part, small, iova) == fraction(whole, small, iova)
    assert compatible(fraction(part, small, iova), part, iova)
    assert compatible(fraction(part, small, iova), whole, iova)


@given(translations(), faults, addresses)
def test_a_fault_is_no_translation(translation: Translation, fault: Fault, iova: int) -> None:
    assert not compatible(fault, translation, iova)
    assert not compatible(translation, fault, iova)
    assert not same_place(fault, translation, iova)


@given(faults, faults, addresses)
def test_faults_agree_when_their_reasons_do(left: Fault, right: Fault, iova: int) -> None:
    assert compatible(left, right, iova) == (left.reason == right.reason)
    assert same_place(left, right, iova) == (left.reason == right.reason)


@given(translations(), addresses)
def test_only_the_page_of_the_address_matters(whole: Translation, iova: int) -> None:
    other = iova ^ whole.mask >> 1
    assert same_place(whole, whole, other)
    small = fraction(whole, MASKS[0], iova)
    if whole.mask != MASKS[0] and other >> 12 != iova >> 12:
        assert not compatible(small, whole, other)


# -- the order of findings -----------------------------------------------------------------------


@given(
    outcomes, st.lists(outcomes, min_size=1, max_size=4), st.lists(outcomes, max_size=2), addresses
)
def test_a_verdict_follows_from_what_agrees(
    recorded: Outcome, permitted: list[Outcome], dropped: list[Outcome], iova: int
) -> None:
    candidates = [
        Candidate(outcome, (), cache="iotlb" * (n > 0)) for n, outcome in enumerate(permitted)
    ]
    gone = [Dropped(outcome, 3, 4) for outcome in dropped]
    found = judge(7, iova, recorded, candidates, gone)
    fresh, stale = permitted[0], permitted[1:]
    expected: FindingKind | None = FindingKind.DIVERGENCE
    if compatible(recorded, fresh, iova):
        lucky = any(not same_place(outcome, fresh, iova) for outcome in stale)
        expected = FindingKind.UNFLUSHED if lucky else None
    elif any(compatible(recorded, outcome, iova) for outcome in stale):
        expected = FindingKind.STALE_USE
    elif any(compatible(recorded, outcome, iova) for outcome in dropped):
        expected = FindingKind.STALE_AFTER_INVALIDATION
    assert (found.kind if found else None) == expected
    if found is not None:
        assert (found.event, found.observed, found.permitted) == (7, recorded, tuple(permitted))


def test_a_verdict_names_the_invalidation_that_covered_the_entry() -> None:
    old, new = Translation(0x1000, 0xFFF), Translation(0x2000, 0xFFF)
    found = judge(9, 0, old, [Candidate(new, (), domain=5)], [Dropped(old, 3, 4)])
    assert found is not None
    assert (found.kind, found.filled_by, found.covered_by, found.domain) == (
        FindingKind.STALE_AFTER_INVALIDATION, 3, 4, 5,
    )  # fmt: skip


def test_the_first_stale_entry_that_agrees_is_named() -> None:
    fresh = Candidate(Fault(6), ())
    first = Candidate(Translation(0, 0x1FFFFF), (), cache="paging-structure", filled_by=1)
    second = Candidate(Translation(0, 0xFFF), (), cache="iotlb", filled_by=2)
    found = judge(9, 0x123, Translation(0, 0xFFF), [fresh, first, second], ())
    assert found is not None
    assert (found.kind, found.cache, found.filled_by) == (
        FindingKind.STALE_USE, "paging-structure", 1,
    )  # fmt: skip
