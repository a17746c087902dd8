"""Changes of inputs make what a single number does not: what meets, repeats, or ends too early."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from random import Random

from decoders.bytewise import packed
from decoders.events import Access, AccessKind, Event, Gap, RegRead, RegWrite, Request, Store
from decoders.virtio_iommu.constants import RequestType
from decoders.virtio_iommu.structures import Map
from fuzzers.event_mutations import EventMutator
from fuzzers.event_values import numbers, placed
from fuzzers.memory_target import MemoryTarget
from fuzzers.scaffold import encoded, sound
from fuzzers.target import target_named
from harness.trace.codec import to_fields

TRIES = 2000
START, END = 0x8000_0000, 0x8000_0FFF
MAP = Request(packed(Map).pack(RequestType.MAP, bytes(3), 1, START, END, 0x4000, 3), 4, None)
STORE = Store(0x1000, 8, 0x2003)
USE = Access(8, None, 0x5000, AccessKind.READ, None)


def changed(*events: Event, words: Iterable[Event] = ()) -> list[bytes]:
    """Return what one mutator makes of a stream."""
    mutator = EventMutator(tuple(words), 1, [(0x38, (4, 8)), (0x20, (8, 4))])
    return [mutator.mutate(b"\0" + encoded(events), 2048, number) for number in range(TRIES)]


def ranges(data: bytes) -> list[tuple[int, int]]:
    found = (one.data for one in sound(data[1:]) if isinstance(one, Request))
    return [packed(Map).unpack(one)[3:5] for one in found if len(one) == packed(Map).size]


def test_numbers_of_a_request_are_those_of_its_fields() -> None:
    assert numbers(to_fields(MAP)) == [1, START, END, 0x4000, 3, 4]


def test_a_number_is_put_where_it_fits() -> None:
    forms = packed(Map)
    for seed in range(100):
        made = placed(MAP.data, 1 << 40, Random(seed))
        assert isinstance(made, bytes)
        head, _, domain, *_, flags = forms.unpack(made)
        assert (head, domain, flags, len(made)) == (RequestType.MAP, 1, 3, len(MAP.data))


def test_a_range_begins_at_the_end_of_another_or_close_to_it() -> None:
    begun = {
        start
        for found in map(ranges, changed(MAP))
        if (START, END) in found
        for start, _ in found
        if start != START
    }
    assert END in begun
    assert {END - 8, END - 1, END + 1, END + 8} & begun


def test_one_place_gets_many_contents_with_a_use_behind_each() -> None:
    most = 0
    for data in changed(STORE, USE):
        events = list(sound(data[1:]))
        contents = {
            one.value
            for one, behind in pairwise(events)
            if isinstance(one, Store) and one.address == STORE.address and behind == USE
        }
        most = max(most, len(contents))
    assert most >= 5


def test_registers_are_accessed_in_each_size() -> None:
    made = Counter(
        (type(one), one.offset, one.size)
        for data in changed(USE)
        for one in sound(data[1:])
        if isinstance(one, RegWrite | RegRead)
    )
    both = {(0x38, 4), (0x38, 8), (0x20, 8), (0x20, 4)}
    assert set(made) >= {(kind, *one) for kind in (RegWrite, RegRead) for one in both}


def test_a_stream_ends_within_text() -> None:
    whole = encoded((Gap("lost"),))
    ends = {data for data in changed(Gap("lost")) if whole.startswith(data[1:])}
    assert {b"\0" + whole[: len(whole) - cut] for cut in (1, 2, 3)} <= ends


def test_images_for_different_scaffolds_are_hardly_mixed() -> None:
    target = target_named("pagetables")
    assert isinstance(target, MemoryTarget)
    first, second = list(target.seeds())[:2]
    words = {first[at : at + 8] for at in range(1, len(first), 8)}
    foreign = {second[at : at + 8] for at in range(1, len(second), 8)} - words
    mixed = [target.cross(first, second, target.max_size, n) for n in range(200)]
    ours = [one for one in mixed if one[0] == first[0]]
    many = [one for one in ours if sum(word in one for word in foreign) > len(foreign) // 2]
    # A change may choose another scaffold, too.
    assert len(many) < len(ours) / 10
