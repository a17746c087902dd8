"""Made-up invalidations of device TLBs: they say what they should, and all kinds come."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from decoders.layout import layout
from decoders.vtd.descriptors import DeviceTlbInvalidation, descriptor_type
from harness.generate.vtd import Generator
from harness.generate.vtd_device_tlb import span
from harness.generate.vtd_steps import Device, Scene
from harness.generate.vtd_tables import packed
from harness.model.device_tlb import invalidation
from tests.harness.generate.test_vtd import BOTH, POOL_PAGES, POOL_START, SECOND_STAGE

SHAPE = layout(DeviceTlbInvalidation)
PLAIN, ATS = 0x20, 0x400


@pytest.mark.parametrize("order", range(53))
def test_a_range_reads_as_what_it_was_made_for(order: int) -> None:
    for base in (0, 0x8000_3000, 0xFEE0_0000, (1 << 64) - 0x1000):
        large, address = span(base, order)
        told = invalidation(packed(SHAPE, type=3, sid=ATS, s=large, addr=address))
        size = 1 << order + 12
        assert (told.address, told.mask) == (base & -size & (1 << 64) - 1, size - 1)


def scene(*ats: int) -> Scene:
    devices = [Device(sid, 64, BOTH, 64, sid in ats) for sid in (PLAIN, ATS)]
    return Scene(SECOND_STAGE, devices, POOL_START, POOL_PAGES)


def kinds(made: Scene) -> Counter[int]:
    """Count the types of descriptors by what they begin with in the queue."""
    found: Counter[int] = Counter()
    for seed in range(5):
        generator = Generator(made, Random(seed))
        for step in generator.sequence(100):
            for store in step.stores:
                if 0x1E_0000 <= store.address < 0x1E_1000 and not store.address % generator.slot:
                    found[descriptor_type(store.value)] += 1
    return found


def test_devices_are_told_to_forget_where_there_are_any() -> None:
    found = kinds(scene(ATS))
    assert found[3] > 30 and found[8] > 3, found
    found = kinds(scene())
    assert not found[3] and not found[8], found


def test_the_device_may_keep_translations_and_others_may_not() -> None:
    for seed in range(20):
        generator = Generator(scene(ATS), Random(seed))
        generator.sequence(1)
        assert [place.ats for place in generator.tables.places] == [False, True]
