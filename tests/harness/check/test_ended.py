"""What was mapped last at an address is found as a search through all that has ended finds it."""

from __future__ import annotations

from random import Random

import pytest

from harness.check import ended
from harness.check.ended import LastEnded
from harness.model.virtio.domain import Mapping
from harness.model.virtio.state import Dropped

ADDRESSES, DOMAINS = 40, 2


def made_up(random: Random, event: int) -> Dropped:
    """Make up a mapping that has ended."""
    start = random.randrange(ADDRESSES)
    end = random.randrange(start, min(ADDRESSES, start + random.choice((1, 4, ADDRESSES))))
    return Dropped(random.randrange(DOMAINS), Mapping(start, end, 0, 3, event), event)


def test_the_last_one_at_each_address_is_found() -> None:
    for seed in range(40):
        random = Random(seed)
        known, all_of_them = LastEnded(), []
        for event in range(40):
            all_of_them.append(made_up(random, event))
            known.add(all_of_them[-1])
            for domain in range(DOMAINS):
                for address in range(ADDRESSES):
                    holding = (
                        one
                        for one in reversed(all_of_them)
                        if one.domain == domain and one.mapping.start <= address <= one.mapping.end
                    )
                    assert known.at(domain, address) == next(holding, None), f"Random({seed})"


def test_more_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended, "PIECES", 8)
    known = LastEnded()
    for page in range(9):
        known.add(Dropped(page % 2, Mapping(page, page, 0, 3, page), page))
    assert [known.at(page % 2, page) is not None for page in range(9)] == [False] * 8 + [True]
