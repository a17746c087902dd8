"""Every target runs its seeds and what becomes of them, and finds nothing in sound units."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from decoders.events import Store
from decoders.layout import layout
from decoders.vtd.tables import ScalableContextEntry
from fuzzers import machines as m
from fuzzers.command import write_dictionary
from fuzzers.scaffold import encoded
from fuzzers.target import (
    MODEL,
    NONE,
    FuzzTarget,
    Mutating,
    Traced,
    target_named,
    target_names,
)
from harness.errors import HarnessError
from harness.generate.vtd_tables import packed
from harness.native import available
from harness.trace import parse_text, write_text

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

SEEDS = 6
CHANGED = 12


@pytest.fixture(params=target_names())
def target(request: pytest.FixtureRequest) -> FuzzTarget:
    return target_named(request.param)


MUTATING = [name for name in target_names() if isinstance(target_named(name), Mutating)]
TRACED = [name for name in target_names() if isinstance(target_named(name), Traced)]


def changed(target: FuzzTarget, count: int) -> list[bytes]:
    """Return seeds changed as fuzzing would."""
    random = Random(1)
    seeds = list(islice(target.seeds(), 40))
    made = []
    for number in range(count):
        data = random.choice(seeds)
        if isinstance(target, Mutating):
            data = target.mutate(data, target.max_size, number)
            data = target.cross(data, random.choice(seeds), target.max_size, number)
        else:
            octets = bytearray(data)
            for _ in range(random.randrange(1, 4)):
                octets[random.randrange(len(octets))] ^= 1 << random.randrange(8)
            data = bytes(octets[: random.choice((len(octets), len(octets) // 2))])
        made.append(data)
    return made


def test_seeds_and_their_likes_show_nothing(target: FuzzTarget) -> None:
    for against in {MODEL, NONE}.intersection(target.against):
        run = target.runner(against)
        for data in (*islice(target.seeds(), SEEDS), *changed(target, CHANGED), b"", b"\xff"):
            run(data)


def test_seeds_fit(target: FuzzTarget) -> None:
    seeds = list(target.seeds())
    assert seeds
    assert max(map(len, seeds)) <= target.max_size


@pytest.mark.parametrize("name", MUTATING)
def test_what_a_mutator_makes_fits_and_repeats(name: str) -> None:
    target = target_named(name)
    assert isinstance(target, Mutating)
    first, second = list(islice(target.seeds(), 2))
    for number in range(50):
        made = target.mutate(first, 200, number)
        assert len(made) <= 200
        assert made == target.mutate(first, 200, number)
        assert len(target.cross(first, second, 150, number)) <= 150
    assert len({target.mutate(first, 200, number) for number in range(50)}) > 10


@pytest.mark.parametrize("name", TRACED)
def test_inputs_can_be_written_as_traces(name: str) -> None:
    target = target_named(name)
    assert isinstance(target, Traced)
    for data in (*islice(target.seeds(), 3), *changed(target, 3)):
        header, events = target.events(data)
        text = io.StringIO()
        write_text(text, header, events)
        assert parse_text(text.getvalue()) == (header, events)


def test_words_are_written_as_libfuzzer_reads_them(target: FuzzTarget, tmp_path: Path) -> None:
    path = tmp_path / "words"
    flags = write_dictionary(target, path)
    if not any(target.dictionary()):
        assert flags == []
        return
    assert flags == [f"-dict={path}"]
    for line in path.read_text().splitlines():
        assert line[0] == line[-1] == '"'
        assert bytes.fromhex(line.strip('"').replace("\\x", "")) in set(target.dictionary())


def test_unknown_targets_are_refused() -> None:
    with pytest.raises(HarnessError, match="no fuzz target 'nothing'; there are descriptors"):
        target_named("nothing")


def test_a_kept_pasid_entry_lets_nothing_in_that_the_context_refuses() -> None:
    """A request without PASID fills the cache; with PASIDE clear the same PASID is refused."""
    target = target_named("pasid")
    seed = bytearray(next(iter(target.seeds())))
    context = 1 + 128 + 16
    word = packed(layout(ScalableContextEntry), paside=1)[0]
    now = int.from_bytes(seed[context : context + 8], "little")
    assert now & word, "the seed has PASIDE set there"
    seed[context : context + 8] = (now & ~word).to_bytes(8, "little")
    target.runner(MODEL)(bytes(seed))


def test_what_lies_in_the_flush_queue_does_not_keep_the_flush_from_working() -> None:
    """A page is cached and changed, and the input has written where the flush is queued."""
    target = target_named("trace")
    leaf = m.SECOND + 2 * m.PAGE + 8
    spoilt = [Store(m.FLUSH_QUEUE + 8 * n, 8, 0xA012) for n in range(12)]
    target.runner(MODEL)(b"\0" + encoded((m.access(0), Store(leaf, 8, 0), *spoilt)))
