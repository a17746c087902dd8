"""Insufficient invalidations leave the old answer a stale use; sufficient ones never do.

Each change is tried with every invalidation of each cache, through registers and the queue.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from decoders.events import Outcome
from harness.findings import FindingKind
from tests.harness.unit.conftest import MakePlatform
from tests.harness.unit.stale.changes import CHANGES, SOURCE, Situation
from tests.harness.unit.stale.invalidations import enough, invalidate, sequences
from tests.harness.unit.stale.table import page
from tests.writers.invalidations import WAYS
from tests.writers.platform import Platform

PASID = 1


def situation(make_platform: MakePlatform, name: str, way: str, pasid: int | None) -> Situation:
    """Return a changed situation that was in use before."""
    platform: Platform = make_platform(nest=1)
    if way == "queue":
        platform.start_queue(wide=not name.startswith("legacy"))
    made = CHANGES[name].setup(platform, pasid)
    before = platform.read(made.iova, sid=SOURCE, pasid=made.pasid)
    assert before == made.old, f"{name} begins with {before}"
    made.change()
    return made


def judged(made: Situation, recorded: Outcome) -> list[FindingKind]:
    """Return the kinds of findings about a recorded answer."""
    return [
        finding.kind
        for finding in made.platform.judge(made.iova, recorded, sid=SOURCE, pasid=made.pasid)
    ]


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_enough(make_platform: MakePlatform, name: str) -> None:
    legacy = name.startswith("legacy")
    needs = CHANGES[name].needs
    wrong = {}
    for way in WAYS if legacy else ("queue",):
        for done in sequences(needs, wide=not legacy):
            made = situation(make_platform, name, way, None if legacy else PASID)
            invalidate(made, done, way)
            old = judged(made, made.old)
            permitted = made.platform.permitted(made.iova, sid=SOURCE, pasid=made.pasid)
            # Another unit, for what follows a stale use is luck.
            made = situation(make_platform, name, way, None if legacy else PASID)
            invalidate(made, done, way)
            new = judged(made, made.new)
            if enough(needs, done):
                served = (FindingKind.STALE_AFTER_INVALIDATION, FindingKind.DIVERGENCE)
                good = len(old) == 1 and old[0] in served and not new and permitted == {made.new}
            else:
                good = old == [FindingKind.STALE_USE] and permitted == {made.old, made.new}
                good = good and new == [FindingKind.UNFLUSHED]
            if not good:
                wrong[way, done] = old, new, permitted
    assert not wrong, "\n".join(f"{case}: {seen}" for case, seen in wrong.items())


def test_requests_without_pasid_are_those_of_rid_pasid(make_platform: MakePlatform) -> None:
    for name in ("second PASID", "first", "nested second"):
        needs = CHANGES[name].needs
        for done in sequences(needs, wide=True):
            made = situation(make_platform, name, "queue", None)
            invalidate(made, done, "queue")
            stale = judged(made, made.old) == [FindingKind.STALE_USE]
            assert stale != enough(needs, done), (name, done)


def test_the_page_is_what_is_tested() -> None:
    path = Path(__file__).parents[4] / "docs" / "stale.md"
    assert path.read_text() == page(), (
        "run python -m tests.harness.unit.stale.table > docs/stale.md"
    )
