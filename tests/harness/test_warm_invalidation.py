"""Whatever invalidation covers a change, no batch answers from before it."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import partial

import pytest

from decoders.events import Translation
from harness.native import NativeUnit, available, core
from tests.writers.invalidations import (
    BY_DOMAIN,
    GLOBAL,
    SELECTIVE,
    WAYS,
    contexts,
    iotlb,
    pasid_entries,
    pasid_iotlb,
)
from tests.writers.platform import DEVICE, DOMAIN, READ, Platform, page, unit_config

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

IOVA, OLD, NEW = 0x1000, 0x10_0000, 0x20_0000
NEW_DOMAIN = 9
Step = Callable[[Platform], object]


def warm(platform: Platform, count: int, pasid: int | None) -> set[int]:
    """Return the addresses a warm batch of equal requests gives."""
    unit = platform.unit
    assert isinstance(unit, NativeUnit)
    none = core().NO_PASID if pasid is None else pasid
    addresses, statuses = array("Q", [0] * count), bytearray(count)
    unit.translate(
        array("H", [DEVICE] * count),
        array("I", [none] * count),
        array("Q", [IOVA] * count),
        bytes([READ] * count),
        addresses,
        statuses,
        cold=False,
    )
    assert not any(statuses)
    return set(addresses)


def legacy(platform: Platform) -> Step:
    space = platform.legacy()
    space.map(IOVA, OLD)
    return lambda platform: space.map(IOVA, NEW)


def large(platform: Platform) -> Step:
    space = platform.legacy()
    space.map(0, 0, level=2)
    return lambda platform: space.map(0, 0x4000_0000, level=2)


def moved(platform: Platform) -> Step:
    platform.legacy().map(IOVA, OLD)
    return lambda platform: platform.legacy(domain=NEW_DOMAIN).map(IOVA, NEW)


def opened(platform: Platform) -> Step:
    """Begin without translation, as a device in the identity domain does."""
    platform.context(tt=2, aw=3)
    return lambda platform: platform.legacy().map(IOVA, NEW)


def first_stage(platform: Platform) -> Step:
    space = platform.first_stage(1)
    space.map(IOVA, OLD)
    return lambda platform: space.map(IOVA, NEW)


def repointed(platform: Platform) -> Step:
    platform.first_stage(1).map(IOVA, OLD)
    return lambda platform: platform.first_stage(1, domain=NEW_DOMAIN).map(IOVA, NEW)


def readdressed(platform: Platform) -> Step:
    """Give a device another PASID directory."""
    platform.first_stage(1).map(IOVA, OLD)

    def change(platform: Platform) -> None:
        del platform.directories[DEVICE]
        platform.first_stage(1, domain=NEW_DOMAIN).map(IOVA, NEW)

    return change


def latched(platform: Platform) -> None:
    platform.command(srtp=1)


def reset(platform: Platform) -> None:
    platform.unit.reset()
    platform.set_root(platform.root, 0)
    platform.levels_of_command = 0
    platform.command(te=1)


def through_wide_queue(platform: Platform, g: int) -> None:
    platform.start_queue(wide=True)
    iotlb(platform, "queue", g)


def invalidate_wide(platform: Platform, g: int) -> None:
    """Invalidate scalable context entries and the PASID entries reached through them."""
    platform.start_queue(wide=True)
    contexts(platform, "queue", g)
    pasid_entries(platform, 1, domain=DOMAIN, pasid=1)


CASES: list[tuple[Callable[[Platform], Step], Step]] = [
    *((legacy, partial(iotlb, way=w, g=g, address=IOVA)) for w in WAYS for g in (1, 2, 3)),
    *((large, partial(iotlb, way=w, g=g, address=0x5000)) for w in WAYS for g in (1, 2, 3)),
    *((moved, partial(contexts, way=w, g=g)) for w in WAYS for g in (1, 2, 3)),
    *((opened, partial(contexts, way=w, g=g)) for w in WAYS for g in (1, 2, 3)),
    (first_stage, partial(pasid_iotlb, g=2, pasid=1)),
    (first_stage, partial(pasid_iotlb, g=3, pasid=1, address=IOVA)),
    *((first_stage, partial(through_wide_queue, g=g)) for g in (GLOBAL, BY_DOMAIN)),
    *((repointed, partial(pasid_entries, g=g, pasid=1)) for g in (0, 1, 3)),
    *((readdressed, partial(invalidate_wide, g=g)) for g in (GLOBAL, BY_DOMAIN, SELECTIVE)),
    *((change, latched) for change in (legacy, large, moved, opened, first_stage, repointed)),
    *((change, reset) for change in (legacy, large, moved, opened)),
]


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_no_stale_answer_is_left(case: int, count: int, wide: bool) -> None:
    prepare, invalidate = CASES[case]
    config = unit_config(esrtps=1)
    platform = Platform(NativeUnit(config), config)
    assert isinstance(platform.unit, NativeUnit)
    platform.unit.use_wide_registers(wide)
    change = prepare(platform)
    pasid = 1 if platform.directories else None
    before = warm(platform, count, pasid)
    assert warm(platform, count, pasid) == before
    change(platform)
    # Nothing was invalidated yet: that the old answer stays proves the case tests anything.
    assert warm(platform, count, pasid) == before
    invalidate(platform)
    after = warm(platform, count, pasid)
    assert after != before
    permitted = platform.permitted(IOVA, pasid=pasid)
    (address,) = after
    (outcome,) = permitted
    assert isinstance(outcome, Translation)
    assert outcome.address | IOVA & outcome.mask == address


def test_another_page_of_the_domain_stays() -> None:
    config = unit_config()
    platform = Platform(NativeUnit(config), config)
    space = platform.legacy()
    space.map(IOVA, OLD)
    assert warm(platform, 1, None) == {OLD}
    space.map(IOVA, NEW)
    iotlb(platform, "register", SELECTIVE, address=IOVA + 0x1000)
    assert warm(platform, 1, None) == {OLD}
    assert page(OLD) not in platform.permitted(IOVA)
