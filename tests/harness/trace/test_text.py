"""Tests of the text form."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoders.errors import DecodeError
from decoders.events import (
    TAGS,
    Access,
    AccessKind,
    Attribute,
    Clock,
    ConfigSpace,
    Descriptor,
    DeviceReset,
    DeviceTlbMessage,
    Endpoint,
    Event,
    FaultRecord,
    FaultReport,
    Features,
    Gap,
    Interrupt,
    InterruptRequest,
    PageRequest,
    PageRequestFlag,
    PageRequestRecord,
    PageResponse,
    Posted,
    RegRead,
    RegWrite,
    Release,
    Request,
    Reset,
    Role,
    Snapshot,
    StatusWrite,
    Store,
    Translation,
)
from harness.trace import Header, TraceReader, TraceWriter, parse_text, read_text, write_text
from harness.trace.checks import (
    ANSWER_LIMIT,
    CONFIG_LIMIT,
    REGIONS_LIMIT,
    REQUEST_LIMIT,
    FieldError,
)
from harness.trace.lines import format_event, parse_event
from harness.trace.text import LINE_LIMIT
from tests.harness.trace.samples import EVENTS, HEADER
from tests.harness.trace.strategies import BY_KIND, events, headers

HEAD = f"dmarewind-text 1\nheader {HEADER.to_json()}\n"

LINES = """\
reset
clock 1500000
reg.write 0x020 8 0x1234400
reg.read 0x01c 4 0x80000000
reg.read 0x01c 4 -
snapshot 0x7f001000 second-stage 1 0=0x12345003
store 0x7f001008 8 0x12345003
clock 2500000
access 00:03.0 - 0xfffff000 read = 0xfdce3000 0xfff
access 00:03.0 0x12 0xfffff000 write ! 0x06
access 00:04.0 - 0x1000 unknown ?
descriptor 0x0000000000010012 0x0
fault-record 0 0xfffff000 0xc000000600000018
status 0x1234 0x2
interrupt 0xfee01004 0x4021
release 0x7f001000
gap recorder restarted
"""


def test_the_form_is_the_documented_one() -> None:
    assert "".join(format_event(event) + "\n" for event in EVENTS) == LINES
    assert parse_text(HEAD + LINES) == (HEADER, EVENTS)


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("read", 0),
        ("read+priv", 1),
        ("read+ats", 2),
        ("write+translated", 4),
        ("execute+priv+ats", 3),
        ("unknown+priv+translated", 5),
    ],
)
def test_attributes_follow_the_kind(kind: str, attributes: int) -> None:
    line = f"access 00:03.0 0x1 0x1000 {kind} = 0x5000 0xfff"
    event = parse_event(line)
    assert isinstance(event, Access)
    assert event.attributes == attributes
    assert format_event(event) == line


@pytest.mark.parametrize("kind", BY_KIND, ids=lambda kind: kind.__name__)
def test_line_round_trip(kind: type[Event]) -> None:
    @settings(deadline=None)
    @given(BY_KIND[kind])
    def check(event: Event) -> None:
        line = format_event(event)
        assert line.isprintable()
        assert parse_event(line) == event
        assert parse_event(f"  {line} ; a comment") == event

    check()


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50
)
@given(headers, st.lists(events, max_size=20))
def test_container_and_text_lose_nothing(
    tmp_path: Path, header: Header, written: list[Event]
) -> None:
    first, text, second = (tmp_path / name for name in ("a.trace", "a.txt", "b.trace"))
    with TraceWriter.create(first, header) as writer:
        for event in written:
            writer.append(event)
    with TraceReader(first) as reader:
        assert write_text(text, reader.header, reader) == len(written)
    reread = read_text(text)
    assert reread.header == header
    with TraceWriter.create(second, reread.header) as writer:
        for event in reread:
            writer.append(event)
    assert second.read_bytes() == first.read_bytes()


def test_comments_and_empty_lines() -> None:
    text = HEAD + "\n# a remark\n  \nreset ; why\nreset ;\n"
    assert len(parse_text(text)[1]) == 2


def test_upper_case_and_spaces_are_read() -> None:
    assert parse_event("  store   0x7F001008 8   0xAB ") == parse_event("store 0x7f001008 8 0xab")


def test_gap_keeps_comment_signs_and_spaces() -> None:
    for reason in ("a ; b", " x ", "", "  ", "\\x20", "a\nb\tc", "é\u2028\U0001f600"):
        line = format_event(Gap(reason))
        assert parse_event(line) == Gap(reason)
        assert line.isprintable()


BAD = {
    "walk 1": "no event",
    "reset 1": "1 words, not 0",
    "store 0x1000 8": "2 words, not 3",
    "store 1000 8 0x1": "address: '1000' is not",
    "store 0x1000 0x8 0x1": "size: '0x8' is not a decimal",
    "store 0x1000 8 0x11111111111111111": "value: ",
    "store 0x1000 3 0x1": "size: 3 is not",
    "store 0x1000 1 0x100": "value: 0x100 does not fit into 1 bytes",
    "clock -1": "microseconds",
    "clock 99999999999999999999": "microseconds",
    "clock \u0661": "microseconds",
    "release 0x1001": "address: ",
    "snapshot 0x1000 leaf 1": "role: 'leaf' is none of",
    "snapshot 0x1000 root 0 200=0x1": "data: '200=0x1'",
    "snapshot 0x1000 root 0 1=0x1 1=0x2": "given twice",
    "snapshot 0x1000 root 0 1:0x1": "data",
    "descriptor 0x1 0x2 0x3": "words: has 3 words",
    "access 00:20.0 - 0x0 read ?": "sid: ",
    "access 00:03.8 - 0x0 read ?": "sid: ",
    "access 00:03.0 - 0x0 stare ?": "kind: ",
    "access 00:03.0 - 0x0 read+ ?": "attributes: ",
    "access 00:03.0 - 0x0 read+priv+priv ?": "attributes: ",
    "access 00:03.0 - 0x0 read+ats+translated ?": "attributes: ",
    "access 00:03.0 - 0x0 +priv ?": "kind: ",
    "access 00:03.0 - 0x0 read": "4 words",
    "access 00:03.0 - 0x0 read ? 1": "outcome: ",
    "access 00:03.0 - 0x0 read = 0x1": "1 words, not 2",
    "access 00:03.0 - 0x0 read ! 6": "outcome.reason: ",
    "access 00:03.0 - 0x0 read ! 0x100": "outcome.reason: ",
    r"gap \q": "reason: ",
    r"gap \ud800": "reason: ",
    r"gap \Uffffffff": "reason: ",
    "gap \\": "reason: ",
}


@pytest.mark.parametrize(("line", "problem"), BAD.items())
def test_bad_line(line: str, problem: str) -> None:
    with pytest.raises(FieldError) as caught:
        parse_event(line)
    assert problem in str(caught.value)


def test_damage_names_event_and_line_after_what_precedes_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(HEAD + "reset\n# remark\nclock 5\nclock x\nreset\n")
    reader = read_text(path)
    found = []
    with pytest.raises(DecodeError) as caught:
        for event in reader:
            found.append(event)
    assert len(found) == 2
    assert str(caught.value).startswith("text.event[2].microseconds: ")
    assert str(caught.value).endswith(", at line 6")
    assert caught.value.offset == 6
    assert reader.damage is caught.value


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", 1),
        (b"dmarewind-text 2\n", 1),
        (b"dmarewind-text 1", 1),
        (b"dmarewind-text 1\n", 2),
        (b"dmarewind-text 1\nreset\n", 2),
        (b"dmarewind-text 1\nheader {}\n", 2),
        (b"\xff\n", 1),
    ],
)
def test_bad_head(tmp_path: Path, content: bytes, line: int) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(DecodeError) as caught:
        read_text(path)
    assert caught.value.offset == line


@pytest.mark.parametrize(
    ("tail", "problem"),
    [
        (b"clock 12", "no newline"),  # of 1234, perhaps
        (b"gap \xff\n", "not UTF-8"),
        (b"gap " + b"x" * LINE_LIMIT + b"\n", f"more than {LINE_LIMIT} bytes"),
        (b"x" * (4 << 20), f"more than {LINE_LIMIT} bytes"),
    ],
    ids=["torn", "not-utf-8", "long", "endless"],
)
def test_bad_tail(tmp_path: Path, tail: bytes, problem: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(HEAD.encode() + b"reset\n" + tail)
    events_of = iter(read_text(path))
    assert next(events_of) == EVENTS[0]
    with pytest.raises(DecodeError, match=problem):
        next(events_of)


def test_every_prefix_gives_a_prefix_of_the_events(tmp_path: Path) -> None:
    path, content = tmp_path / "a.txt", (HEAD + LINES).encode()
    for length in range(len(HEAD), len(content)):
        path.write_bytes(content[:length])
        whole = content[len(HEAD) : length].count(b"\n")
        found = []
        try:
            for event in read_text(path):
                found.append(event)
        except DecodeError:
            assert not content[:length].endswith(b"\n")
        else:
            assert content[:length].endswith(b"\n")
        assert found == EVENTS[:whole]


TOP = (1 << 64) - 1
WIDE = 0xFFFF_FFFF  # an endpoint, or another number of 32 bits
LONGEST_NAME = Attribute.TRANSLATED | Attribute.PRIVILEGED
LONGEST: list[Event] = [
    RegWrite(WIDE, 8, TOP),
    RegRead(WIDE, 8, TOP),
    Store(TOP - 7, 8, TOP),
    Snapshot(TOP - 4095, Role.SCALABLE_CONTEXT, 7, b"\xff" * 4096),
    Release(TOP - 4095),
    Access(WIDE, 0xFFFFF, TOP, AccessKind.EXECUTE, Translation(TOP, TOP), LONGEST_NAME),
    Descriptor((TOP,) * 4),
    FaultRecord(TOP, TOP, TOP),
    StatusWrite(TOP - 3, WIDE),
    Interrupt(TOP, WIDE),
    Reset(),
    Clock(TOP),
    Gap("\x01" * 4096),
    Gap("\U000e0001" * 1024),
    Request(b"\xff" * REQUEST_LIMIT, WIDE, b"\xff" * ANSWER_LIMIT),
    FaultReport(0xFF, WIDE, WIDE, TOP),
    Features(TOP, TOP),
    ConfigSpace(b"\xff" * CONFIG_LIMIT),
    DeviceReset(),
    Endpoint(WIDE, ((0xFF, TOP, TOP),) * REGIONS_LIMIT),
    InterruptRequest(0xFFFF, TOP, WIDE, Posted(TOP - 63, 0xFF, True)),
    PageRequest(0xFFFF, 0xFFFFF, TOP - 4095, PageRequestFlag(31), 511),
    PageRequestRecord(TOP - 31, (TOP,) * 4),
    PageResponse(0xFFFF, 0xFFFFF, 511, 15),
    DeviceTlbMessage(0xFFFF, 0xFFFFF, TOP - 4095, 4095),
]


@pytest.mark.parametrize("event", LONGEST, ids=lambda event: type(event).__name__)
def test_the_longest_line_of_each_kind_can_be_read(tmp_path: Path, event: Event) -> None:
    path = tmp_path / "a.txt"
    write_text(path, HEADER, [event])
    assert list(read_text(path)) == [event]


def test_each_kind_has_a_longest_line() -> None:
    assert {type(event) for event in LONGEST} == set(TAGS.values())


def test_a_bad_event_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"Gap\.reason"):
        write_text(tmp_path / "a.txt", HEADER, [Gap("\ud800")])


def test_ranges_and_times(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, HEADER, EVENTS)
    reader = read_text(path)
    assert list(reader.events(3, 6)) == EVENTS[3:6]
    assert reader.first_event_at(0) == 1
    assert reader.first_event_at(1_500_001) == 7
    assert reader.first_event_at(9_000_000) == len(EVENTS)
    reader.seek(15)
    assert list(reader) == EVENTS[15:]
