"""Memory images are read by the unit of a running QEMU as by the model that follows it."""

from __future__ import annotations

from contextlib import closing
from random import Random

import pytest

from fuzzers.memory_target import MemoryTarget
from fuzzers.real_memory import MACHINES, OnQemu, RealMemory
from fuzzers.target import Found, target_named
from fuzzers.targets import descriptors, pagetables, pasid

_EMPTY_WAIT = (5).to_bytes(32, "little")
_SCAFFOLDS = {
    "descriptors": descriptors.on_qemu,
    "pasid": pasid.on_qemu,
    "pagetables": pagetables.on_qemu,
}


def _images(target: MemoryTarget, count: int) -> list[bytes]:
    """Return seeds and changed ones, for each of the machines in turn."""
    random = Random(1)
    seeds = list(target.seeds())
    made = []
    for number in range(count):
        image = random.choice(seeds)
        if number % 2:
            image = target.mutate(image, target.max_size, number)
        made.append(bytes((number,)) + image[1:])
    return made


@pytest.mark.qemu
@pytest.mark.parametrize(("name", "scaffolds"), _SCAFFOLDS.items(), ids=list(_SCAFFOLDS))
def test_what_a_unit_makes_of_images_is_permitted_or_known(name: str, scaffolds: OnQemu) -> None:
    target = target_named(name)
    assert isinstance(target, MemoryTarget)
    with closing(RealMemory(scaffolds, deviations=True)) as real:
        for image in _images(target, 60):
            real.run(image)


@pytest.mark.qemu
def test_a_deviation_is_found_where_none_is_known() -> None:
    with closing(RealMemory(descriptors.on_qemu, deviations=False)) as real:
        for machine in range(len(MACHINES)):
            with pytest.raises(Found) as caught:
                real.run(bytes((machine,)) + _EMPTY_WAIT)
            assert "InvalidationWait" in str(caught.value.signature)
            assert caught.value.trace is not None
