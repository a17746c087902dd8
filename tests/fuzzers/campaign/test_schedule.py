"""Targets that brought something lately get more time, and each gets some."""

from __future__ import annotations

from collections import Counter

from fuzzers.campaign.schedule import MOST, Turn, choose, energy, merge_due, rest


def shares(news: dict[str, list[bool]], slices: int) -> Counter[str]:
    """Hand out slices to targets whose news do not change."""
    clocks = dict.fromkeys(news, 0.0)
    given: Counter[str] = Counter()
    for _ in range(slices):
        turn = choose([Turn(name, clocks[name], news[name]) for name in news], 0)
        assert turn is not None
        clocks[turn.target] += 1 / energy(turn.news)
        given[turn.target] += 1
    return given


def test_news_count_more_the_newer_they_are() -> None:
    assert energy([]) == MOST
    assert energy([True] * 10) == MOST
    assert energy([False] * 10) == 1
    assert 1 < energy([False] * 9 + [True]) < energy([True] + [False] * 9) < MOST
    assert energy([False] * 10 + [True]) == 1, "what is longer ago does not count"


def test_time_goes_where_something_is_found_and_nobody_starves() -> None:
    given = shares({"rich": [True] * 10, "poor": [False] * 10, "half": [True, False] * 5}, 900)
    assert given["rich"] > given["half"] > given["poor"]
    assert given["poor"] >= 900 // (3 * MOST)


def test_who_rests_is_passed_over() -> None:
    turns = [Turn("a", 0, (), resting_until=10), Turn("b", 5, ())]
    assert (choose(turns, 9), choose(turns, 10)) == (turns[1], turns[0])
    assert choose(turns[:1], 9) is None


def test_failures_make_rests_longer() -> None:
    rests = [rest(failures) for failures in range(40)]
    assert rests[0] == 0
    assert rests == sorted(rests)
    assert rests[-1] == 600


def test_a_corpus_is_merged_when_it_has_doubled() -> None:
    assert not merge_due(199, 0)
    assert merge_due(200, 0)
    assert not merge_due(399, 200)
    assert merge_due(400, 200)
