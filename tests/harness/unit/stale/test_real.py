"""A real QEMU serves DMA with the old translation until it has been told to forget it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from decoders.events import Outcome, Translation
from harness.qemu.vtd import VtdQemu
from tests.harness.unit.stale.changes import CHANGES
from tests.harness.unit.stale.invalidations import enough, invalidate, sequences
from tests.harness.unit.stale.real import RealUnit, platform_of, qemu_forgets
from tests.writers.invalidations import WAYS
from tests.writers.platform import PAGE

pytestmark = pytest.mark.qemu

UNITS = ("legacy", "second-stage", "first-stage")


@pytest.fixture(scope="module", params=UNITS)
def qemu(request: pytest.FixtureRequest) -> Iterator[VtdQemu]:
    with VtdQemu(request.param) as found:
        yield found


@pytest.fixture
def unit(request: pytest.FixtureRequest) -> str:
    """Return the unit that the machine has: the machine's name."""
    return str(request.node.callspec.params["qemu"])


def leads(outcome: Outcome, iova: int) -> int:
    """Return the page that an access reaches."""
    assert isinstance(outcome, Translation)
    return outcome.address | iova & outcome.mask & -PAGE


def test_what_is_served(qemu: VtdQemu, unit: str) -> None:
    wrong = {}
    stale = kept_longer = 0
    for name, change in CHANGES.items():
        if change.unit != unit:
            continue
        legacy = name.startswith("legacy")
        for way in WAYS if legacy else WAYS[1:]:
            for done in sequences(change.needs, wide=not legacy):
                platform = platform_of(qemu)
                if way == "queue":
                    platform.start_queue(wide=not legacy)
                made = change.setup(platform, None)
                real = platform.unit
                assert isinstance(real, RealUnit)
                old, new = leads(made.old, made.iova), leads(made.new, made.iova)
                assert real.landed(made.iova) == old, name
                made.change()
                invalidate(made, done, way)
                served = real.landed(made.iova)
                expected = new if qemu_forgets(name, done, qemu.version) else old
                stale += served == old
                kept_longer += served == old and enough(change.needs, done)
                if served != expected:
                    wrong[name, way, done] = served
    assert not wrong, "\n".join(f"{case}: {served}" for case, served in wrong.items())
    assert stale > 50, "what was not invalidated was hardly ever served"
    if qemu.version >= (11,):
        assert not kept_longer, "an invalidation that is enough was not"
