"""Memory images are read by the unit of a running QEMU as by the model that follows it."""

from __future__ import annotations

from contextlib import closing
from random import Random

import pytest

from fuzzers.memory_target import MemoryTarget
from fuzzers.real import VtdJudge
from fuzzers.real_memory import OnQemu, RealMemory
from fuzzers.target import Found, target_named
from fuzzers.targets import descriptors, pagetables, pasid

_EMPTY_WAIT = (5).to_bytes(32, "little")
_SCAFFOLDS = {
    "descriptors": descriptors.on_qemu(),
    "pasid": pasid.on_qemu(),
    "pagetables": pagetables.on_qemu(),
}
_INPUTS = 80


def _target(name: str) -> MemoryTarget:
    target = target_named(name)
    assert isinstance(target, MemoryTarget)
    return target


def _images(target: MemoryTarget) -> list[bytes]:
    """Return seeds and changed ones, each for one of the machines that it can be on."""
    random = Random(1)
    seeds = list(target.seeds())
    made = []
    for number in range(_INPUTS):
        image = seeds[number // 2 % len(seeds)] if number % 2 else random.choice(seeds)
        if number % 4 == 3:
            image = target.mutate(image, target.max_size, number)
        # The first byte chooses the scaffold, then the machine.
        head = image[0] + random.randrange(2) * len(target.scaffolds.choices)
        made.append(bytes((head,)) + image[1:])
    return made


@pytest.mark.qemu
@pytest.mark.parametrize(("name", "scaffolds"), _SCAFFOLDS.items(), ids=list(_SCAFFOLDS))
def test_what_a_unit_makes_of_images_is_permitted_or_known(name: str, scaffolds: OnQemu) -> None:
    target = _target(name)
    assert len(scaffolds) == len(target.scaffolds.choices)
    with closing(RealMemory(scaffolds, deviations=True)) as real:
        for image in _images(target):
            real.run(image)
        for machine, judge in real.judges.items():
            assert isinstance(judge, VtdJudge)
            seen = judge.totals.seen
            done = f"{machine}: {dict(seen)}, {real.passed_over} passed over"
            assert seen["read translation"] >= 3, done
            assert seen["read translation"] >= seen["read fault"] / 8, done
        assert real.passed_over <= _INPUTS * 2 / 3, f"{real.passed_over} of {_INPUTS}"


@pytest.mark.qemu
def test_a_deviation_is_found_where_none_is_known() -> None:
    with closing(RealMemory(descriptors.on_qemu(), deviations=False)) as real:
        for head in (0, 1, 3):  # legacy mode; first stage, second stage
            with pytest.raises(Found) as caught:
                real.run(bytes((head,)) + _EMPTY_WAIT)
            assert "InvalidationWait" in str(caught.value.signature)
            assert caught.value.trace is not None


@pytest.mark.parametrize("name", _SCAFFOLDS)
def test_another_way_to_write_an_image_means_the_same(name: str) -> None:
    target = _target(name)
    image = next(iter(target.seeds()))
    other = target.alike(image, 1)
    assert other != image
    assert target.events(other) == target.events(image)
    places = [len(one) for one in _SCAFFOLDS[name]]
    rest, again = image[0] // len(places), other[0] // len(places)
    machines = places[image[0] % len(places)] or 1
    assert rest % machines == again % machines
