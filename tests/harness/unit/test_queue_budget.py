"""What a trace may make the invalidation queue do before it is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import IotlbInvalidation
from harness.model.queue import DescriptorBudgetError
from tests.harness.unit.test_queue import FLUSH
from tests.writers.platform import (
    DOMAIN,
    PAGE,
    Engine,
    Platform,
    Ring,
    descriptor,
    unit_config,
)


def full_ring(platform: Platform, one: tuple[int, ...], qs: int = 0) -> Ring:
    """Fill a ring with one descriptor again and again; do not run it yet."""
    ring = platform.start_queue(qs=qs)
    content = b"".join(word.to_bytes(8, "little") for word in one)
    for at in range(ring.base, ring.base + ring.size, PAGE):
        platform.unit.snapshot(at, content * (PAGE // len(content)))
    return ring


def test_a_trace_may_not_ring_without_end(engine: Engine) -> None:
    config = replace(unit_config(), descriptor_budget=1000)
    platform = Platform(engine(config), config)
    ring = full_ring(platform, FLUSH)
    platform.unit.event = 50
    tails = itertools.cycle((ring.size - ring.step, ring.size - 2 * ring.step))
    with pytest.raises(DescriptorBudgetError, match=r"more than 1000 .* --descriptor-budget"):
        for tail in tails:
            platform.unit.write_register(vtd.IQT.offset, 8, tail)
    # 1000 and 8 for each of 50 events went through; the next did not.
    assert len(platform.observed()) == 1400
    assert platform.register(vtd.IQH) == 1400 * ring.step % ring.size
    platform.unit.event = 51
    with pytest.raises(DescriptorBudgetError):
        platform.unit.write_register(vtd.IQT.offset, 8, next(tails))
    # The one refused counts, and so does the next.
    assert len(platform.observed()) == 7


def test_what_invalidations_look_at_counts(engine: Engine) -> None:
    config = replace(unit_config(), descriptor_budget=100)
    platform = Platform(engine(config), config)
    space = platform.legacy(domain=DOMAIN)
    space.map(0, 0, level=2)
    for number in range(512):
        space.map(number << 12 | 1 << 30, 0x10000)
        platform.read(number << 12 | 1 << 30)
    ring = full_ring(platform, descriptor(IotlbInvalidation, g=3, did=DOMAIN, am=9, addr=0))
    platform.unit.event = 0
    with pytest.raises(DescriptorBudgetError):
        platform.unit.write_register(vtd.IQT.offset, 8, ring.size - ring.step)
    # Each looks at 512 leaves and 3 table entries, which is half a descriptor.
    assert len(platform.observed()) == 67


def test_the_largest_ring_is_within_the_budget(platform: Platform) -> None:
    ring = full_ring(platform, FLUSH, qs=7)
    platform.program(vtd.IQT, ring.size - ring.step)
    assert len(platform.observed()) == ring.size // ring.step - 1
