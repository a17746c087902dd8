"""What no log may do: raise, lose a good line, slip through uncounted, depend on how it is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from decoders.capture.lines import LineDecoder
from decoders.capture.qemu_log import QemuLogDecoder
from decoders.capture.qtest_log import QtestLogDecoder
from decoders.events import Clock, Event, Store

GOLDEN = Path(__file__).parents[2] / "golden"
SAMPLES: dict[str, Callable[[], LineDecoder]] = {
    "qemu-legacy-strict": QemuLogDecoder,
    "qemu-scalable-first-stage": QemuLogDecoder,
    "qemu-faults": QemuLogDecoder,
    "qemu-thread-times": QemuLogDecoder,
    "qemu-virtio-iommu": QemuLogDecoder,
    "qtest": QtestLogDecoder,
}
LOGS = {name: (GOLDEN / f"{name}.log").read_bytes() for name in SAMPLES}


def run(new: Callable[[], LineDecoder], chunks: Iterable[bytes]) -> tuple[list[Event], LineDecoder]:
    decoder = new()
    events: list[Event] = []
    for chunk in chunks:
        events += decoder.feed(chunk)
    events += decoder.finish()
    return events, decoder


def state(decoder: LineDecoder) -> tuple[object, ...]:
    return (
        *(decoder.lines, decoder.blank, decoder.counts, decoder.internal),
        *(decoder.malformed, decoder.unknown, decoder.problems, decoder.problem_count),
        *(decoder.malformed_samples, decoder.unknown_samples),
    )


def accounted(decoder: LineDecoder, data: bytes) -> bool:
    lines = data.count(b"\n") + (not data.endswith(b"\n") and data != b"")
    known = decoder.counts.total() + decoder.malformed.total() + decoder.unknown.total()
    return decoder.lines == lines == decoder.blank + known


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


@pytest.mark.parametrize("name", SAMPLES)
def test_byte_by_byte_equals_at_once(name: str) -> None:
    data = LOGS[name]
    events, decoder = run(SAMPLES[name], [data])
    singly, other = run(SAMPLES[name], (data[at : at + 1] for at in range(len(data))))
    assert events == singly
    assert state(decoder) == state(other)
    assert accounted(decoder, data)


@given(st.sampled_from(sorted(SAMPLES)), st.lists(st.integers(0, 1 << 20), max_size=30))
def test_cutting_changes_nothing(name: str, places: list[int]) -> None:
    events, decoder = run(SAMPLES[name], [LOGS[name]])
    pieces, other = run(SAMPLES[name], cut(LOGS[name], places))
    assert events == pieces
    assert state(decoder) == state(other)


TEXT = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            *(b"\n", b"\r\n", b"\0", b" ", b"vtd_", b"vtd_reg_write ", b"dmr ", b"dmr st "),
            *(b"virtio_iommu_translate ", b"dmr vreq 04 4 00", b"dmr vrst\n"),
            *(b"0x", b"-", b"_", b"1@1.000000:", b"9999-12-31T23:59:59.999999Z "),
            *(b"[R +0.000001] ", b"[S +0.000002] OK\n", b"memset 0x0 0xffffffffffffffff 0x1\n"),
            *(b"[R +1.000000] write 0xffffffffffffffff 0x10 0x00\n", b"f" * 20),
        ]
    ),
)
EDITS = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.integers(0, 60), TEXT), min_size=1, max_size=8
)


@given(st.sampled_from(sorted(SAMPLES)), EDITS, st.lists(st.integers(0, 1 << 20), max_size=5))
def test_damage_never_raises_and_is_accounted_for(
    name: str, edits: list[tuple[int, int, bytes]], places: list[int]
) -> None:
    data = LOGS[name]
    for place, length, text in edits:
        at = place % (len(data) + 1)
        data = data[:at] + text + data[at + length :]
    _, decoder = run(SAMPLES[name], cut(data, places))
    assert accounted(decoder, data)


@given(st.sampled_from(sorted(SAMPLES)), st.binary(max_size=300))
def test_noise_never_raises(name: str, data: bytes) -> None:
    assert accounted(run(SAMPLES[name], [data])[1], data)


def one_line(text: bytes) -> bytes:
    return text.replace(b"\n", b"")


@given(
    st.sampled_from([name for name in SAMPLES if name != "qtest"]),
    st.integers(0, 1 << 20),
    st.one_of(
        st.binary(max_size=80).map(one_line),
        st.sampled_from(
            [line[:length] for line in LOGS["qemu-faults"].splitlines() for length in (5, 17, 30)]
        ),
    ),
)
@example("qemu-legacy-strict", 0, b"dmr snap 1000 0")
def test_a_bad_line_costs_no_other(name: str, place: int, bad: bytes) -> None:
    """Insert a line that means nothing; everything else still comes, in order."""
    noise, decoder = run(SAMPLES[name], [bad + b"\n"])
    if decoder.counts:
        return  # it means something
    lines = LOGS[name].splitlines(keepends=True)
    at = place % (len(lines) + 1)
    data = b"".join([*lines[:at], bad + b"\n", *lines[at:]])
    events, decoder = run(SAMPLES[name], [data])
    whole, other = run(SAMPLES[name], [LOGS[name]])
    gaps = [type(event) for event in noise if not isinstance(event, Clock)]
    kept = [event for event in events if type(event) not in gaps]
    # A gap ends the wait for a read's value, and no sample has values.
    assert [e for e in kept if not isinstance(e, Clock)] == [
        e for e in whole if not isinstance(e, Clock)
    ]
    assert decoder.counts == other.counts
    assert decoder.malformed.total() + decoder.unknown.total() + decoder.blank == 1


def test_memory_stays_bounded_whatever_a_line_asks_for() -> None:
    """A short line may stand for a megabyte; it is given piece by piece."""
    line = b"[R +0.000001] memset 0x100000 0x100000 0xff\n[S +0.000002] OK\n"
    decoder = QtestLogDecoder()
    events = decoder.feed(line * 4000)
    assert next(events) == Clock(1)
    assert next(events) == Store(0x100000, 8, 2**64 - 1)
    assert decoder.lines == 2
