"""QEMU's trace log: every kind of line, in the three ways a line can bear its time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from decoders.capture.lines import NAMES_LIMIT, OTHER, OVERLONG, SAMPLES_LIMIT
from decoders.capture.qemu_events import EVENT_LINES, INTERNAL_LINES
from decoders.capture.qemu_log import QemuLogDecoder, detect, hints
from decoders.capture.recorder import VERBS
from decoders.events import (
    Access,
    AccessKind,
    Clock,
    Descriptor,
    DeviceReset,
    Event,
    Fault,
    FaultRecord,
    Features,
    Gap,
    Interrupt,
    InterruptRequest,
    Message,
    RegRead,
    RegWrite,
    Release,
    Reset,
    Role,
    Snapshot,
    StatusWrite,
    Store,
    Translation,
)

GOLDEN = Path(__file__).parents[2] / "golden"


def page(**quadwords: int) -> bytes:
    """Build a page from quadwords by hexadecimal index (_0=1, _1ff=2)."""
    data = bytearray(4096)
    for name, value in quadwords.items():
        index = int(name[1:], 16)
        data[index * 8 : index * 8 + 8] = value.to_bytes(8, "little")
    return bytes(data)


LINES: list[tuple[str, Event]] = [
    ("vtd_reg_write addr 0x20 size 0x8 value 0x1234400", RegWrite(0x20, 8, 0x1234400)),
    ("vtd_reg_read addr 0x1c size 0x4", RegRead(0x1C, 4, None)),
    (
        "vtd_dmar_translate dev 3a:1f.07 iova 0xfffff000 -> gpa 0xfdce3000 mask 0xfff",
        Access(0x3AFF, None, 0xFFFFF000, AccessKind.UNKNOWN, Translation(0xFDCE3000, 0xFFF)),
    ),
    (
        "vtd_dmar_translate dev 00:03.00 iova 0x0 -> gpa 0xffffffffffffffff mask 0x1fffff",
        Access(0x18, None, 0, AccessKind.UNKNOWN, Translation(2**64 - 1, 0x1FFFFF)),
    ),
    (
        "vtd_dmar_fault sid 0x18 fault 6 addr 0xfffff123 write 0",
        Access(0x18, None, 0xFFFFF123, AccessKind.READ, Fault(6)),
    ),
    (
        "vtd_dmar_fault sid 0xffff fault 91 addr 0x0 write 1",  # decimal: 0x5b
        Access(0xFFFF, None, 0, AccessKind.WRITE, Fault(0x5B)),
    ),
    (
        "vtd_frr_new index 0 high 0xc000000600000018 low 0xfffff000",
        FaultRecord(0, 0xFFFFF000, 0xC000000600000018),
    ),
    (
        "vtd_inv_desc invalidate desc type iotlb high 0x1 low 0x10012",
        Descriptor((0x10012, 1)),
    ),
    (
        "vtd_inv_desc invalidate desc type context-cache high 0x0 low 0x11",
        Descriptor((0x11, 0)),
    ),
    (
        "vtd_inv_desc_wait_sw wait invalidate status write addr 0x1234 data 0x2",
        StatusWrite(0x1234, 2),
    ),
    ("vtd_irq_generate addr 0xfee01004 data 0x4021", Interrupt(0xFEE01004, 0x4021)),
    (
        "vtd_ir_remap_msi_req addr 0xfee000b0 data 0x2",
        InterruptRequest(None, 0xFEE000B0, 2, None),
    ),
    (
        "vtd_ir_remap_msi (addr 0xfee000b0, data 0x2) -> (addr 0xfee02000, data 0x4031)",
        InterruptRequest(None, 0xFEE000B0, 2, Message(0xFEE02000, 0x4031)),
    ),
    ("vtd_reset_exit ", Reset()),
    (
        "dmr snap 7f001000 5 1 0:12345003 1ff:7f002003",
        Snapshot(0x7F001000, Role.SECOND_STAGE, 1, page(_0=0x12345003, _1ff=0x7F002003)),
    ),
    ("dmr snap 1000 0 0", Snapshot(0x1000, Role.ROOT, 0, bytes(4096))),
    ("dmr st 7f001008 8 12345003", Store(0x7F001008, 8, 0x12345003)),
    ("dmr rel 7f001000", Release(0x7F001000)),
    ("dmr lost ring full, 12 records", Gap("ring full, 12 records")),
    ("dmr vfeat 77", Features(0x77, 0x77)),
    ("dmr vcfg 24 1 0", RegWrite(36, 1, 0)),
    ("dmr vrst", DeviceReset()),
]

PREFIXES: dict[str, Callable[[int], str]] = {
    "none": lambda us: "",
    "thread": lambda us: f"4242@17600{us // 10**6:05}.{us % 10**6:06}:",
    "iso": lambda us: f"2025-11-21T08:30:{us // 10**6:02}.{us % 10**6:06}Z ",
}


def decode(data: bytes | str) -> tuple[list[Event], QemuLogDecoder]:
    decoder = QemuLogDecoder()
    raw = data.encode() if isinstance(data, str) else data
    events = [*decoder.feed(raw), *decoder.finish()]
    assert decoder.lines == (
        decoder.blank + decoder.counts.total() + decoder.malformed.total() + decoder.unknown.total()
    )
    return events, decoder


@pytest.mark.parametrize("style", PREFIXES)
@pytest.mark.parametrize(("line", "event"), LINES, ids=[line for line, _ in LINES])
def test_each_line(style: str, line: str, event: Event) -> None:
    # QEMU up to 10.0 puts no time before what a plugin prints.
    prefix = "" if style == "thread" and line.startswith("dmr") else PREFIXES[style](1)
    events, decoder = decode(f"{prefix}{line}\n")
    assert [found for found in events if not isinstance(found, Clock)] == [event]
    name = " ".join(line.split()[: 1 + line.startswith("dmr")])
    assert decoder.counts == {name: 1}
    assert [found for found in events if isinstance(found, Clock)] == [Clock(0)] * bool(prefix)
    assert decode(f"{prefix}{line}\r\n")[0] == events


def test_every_event_line_has_a_case() -> None:
    told = {line.split()[0] for line, _ in LINES} - {"dmr"}
    assert told == {name.decode() for name in EVENT_LINES}
    verbs = {line.split()[1] for line, _ in LINES if line.startswith("dmr")}
    assert verbs | {"begin", "reg", "rd", "vreq"} == {verb.decode() for verb in VERBS}


@pytest.mark.parametrize("style", PREFIXES)
def test_internal_lines_are_counted(style: str) -> None:
    names = sorted(name.decode() for name in INTERNAL_LINES)
    text = "".join(f"{PREFIXES[style](5)}{name} whatever 0x1\n" for name in names)
    events, decoder = decode(text)
    assert events == []
    assert decoder.counts == decoder.internal == Counter(names)


BROKEN = [
    "vtd_reg_write addr 0x20 size 0x8 value ",
    "vtd_reg_write addr 0x20 size 0x8",
    "vtd_reg_write addr 0x20 size 0x3 value 0x1",
    "vtd_reg_write addr 0x20 size 0x4 value 0x100000000",
    "vtd_reg_write addr 0x20 size 0x8 value 0x1 2",
    "vtd_reg_write addr 0x2_0 size 0x8 value 0x1",
    "vtd_reg_write addr -0x20 size 0x8 value 0x1",
    "vtd_reg_write addr 0x20 size 0x8 value 0x10000000000000000",
    "vtd_reg_write addr 0x20 size 0x8 valvtd_reg_write addr 0x20 size 0x8 value 0x1",
    "vtd_dmar_translate dev 00:20.00 iova 0x0 -> gpa 0x0 mask 0xfff",
    "vtd_dmar_translate dev 00:03.08 iova 0x0 -> gpa 0x0 mask 0xfff",
    "vtd_dmar_fault sid 0x10000 fault 6 addr 0x0 write 0",
    "vtd_dmar_fault sid 0x18 fault -6 addr 0x0 write 0",
    "vtd_frr_new index 0 low 0x0 high 0x0",
    "vtd_inv_desc_wait_sw wait invalidate status write addr 0x1234 data 0x100000000",
    "vtd_reset_exit now",
    "vtd_inv_qi_fetch vtd_reset_exit ",
    "vtd_inv_qi_head read headdmr st 1000 8 1",
    "dmr st 1000 8",
    "dmr st 1000 3 1",
    "dmr st 1000 1 100",
    "dmr st ffc 8 1",
    "dmr st 1000 8 0x1",
    "dmr st 1000 8 FF",
    "dmr snap 1001 0 0",
    "dmr snap 1000 9 0",
    "dmr snap 1000 0",
    "dmr snap 1000 0 0 200:1",
    "dmr snap 1000 0 0 0:1 0:2",
    "dmr snap 1000 0 0 0:",
    "dmr snap 1000 0 0  0:1",
    "dmr rel 1",
    "dmr reg 20 8",
    "dmr rd 20 4 123456789",
    "dmr begin",
    "dmr begin 2",
]


@pytest.mark.parametrize("style", PREFIXES)
@pytest.mark.parametrize("line", BROKEN)
def test_a_broken_line_leaves_a_gap(style: str, line: str) -> None:
    before, after = f"{PREFIXES[style](0)}vtd_reset_exit \n", "dmr rel 1000\n"
    events, decoder = decode(f"{before}{PREFIXES[style](1)}{line}\n{after}")
    name = " ".join(line.split()[: 1 + line.startswith("dmr")])
    assert [found for found in events if not isinstance(found, Clock)] == [
        Reset(),
        Gap(f"malformed {name} in line 2"),
        Release(0x1000),
    ]
    assert decoder.malformed == {name: 1}
    assert decoder.malformed_samples[0].line == 2
    assert decoder.malformed_samples[0].text.endswith(line)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("something else", "something"),
        ("vtd_reg_writes addr 0x20 size 0x8 value 0x1", "vtd_reg_writes"),
        ("dmr", "dmr "),
        ("dmr nonsense 1", "dmr nonsense"),
        (" vtd_reset_exit ", "vtd_reset_exit"),
        ("4242@1.5:vtd_reset_exit ", "4242@1.5:vtd_reset_exit"),
        ("4242@1.000005:e1000_reset ", "e1000_reset"),
        ("2025-11-21T08:30:00Z e1000_reset ", "e1000_reset"),
        ("2025-13-21T08:30:00Z vtd_reset_exit ", "2025-13-21T08:30:00Z"),
        ("\x00\x01", "\x00\x01"),
        ("   ", "(white space)"),
    ],
)
def test_unknown_lines_are_counted(line: str, word: str) -> None:
    events, decoder = decode(line + "\n")
    assert events == []
    assert decoder.unknown == {word: 1}
    assert [sample.line for sample in decoder.unknown_samples] == [1]


def test_unknown_words_and_samples_are_bounded() -> None:
    text = "".join(f"word{n}\n" for n in range(NAMES_LIMIT + 50))
    _, decoder = decode(text)
    assert len(decoder.unknown) == NAMES_LIMIT + 1
    assert decoder.unknown[OTHER] == 50
    assert len(decoder.unknown_samples) == SAMPLES_LIMIT


@pytest.mark.parametrize("step", [1 << 20, 1000])
def test_an_over_long_line_is_skipped(step: int) -> None:
    line = b"vtd_reset_exit \n" + b"dmr snap 1000 0 0" + b" 0:1" * 20_000 + b"\ndmr rel 1000\n"
    decoder = QemuLogDecoder()
    events: list[Event] = []
    for at in range(0, len(line), step):
        events += decoder.feed(line[at : at + step])
        assert len(decoder._tail) <= decoder.line_limit + 1
    events += decoder.finish()
    assert events == [Reset(), Release(0x1000)]
    assert decoder.unknown == {OVERLONG: 1}


def test_a_last_line_without_its_end_is_torn() -> None:
    events, decoder = decode("vtd_reset_exit \nvtd_reg_write addr 0x20 size 0x8 value 0x12")
    assert events == [Reset(), Gap("malformed vtd_reg_write in line 2")]
    assert decoder.malformed == {"vtd_reg_write": 1}
    _, decoder = decode("vtd_reset_exit \nvtd_reg_wri")
    assert decoder.unknown == {"vtd_reg_wri": 1}
    assert decode("vtd_reset_exit ")[1].malformed == {"vtd_reset_exit": 1}
    assert decode("dmr st 1000 8")[1].malformed == {"dmr st": 1}
    assert decode("1@1.000000:dmr st 1000 8")[1].malformed == {"dmr st": 1}
    assert decode("\n\n")[1].blank == 2


def test_a_read_gets_its_value_from_the_next_line() -> None:
    text = """vtd_reg_read addr 0x1c size 0x4
vtd_inv_qi_fetch
dmr rd 1c 4 80000000
vtd_reg_read addr 0x34 size 0x4
vtd_reg_read addr 0x220 size 0x8
dmr rd 220 8 1
vtd_reg_read addr 0x34 size 0x4
vtd_reset_exit
dmr rd 34 4 0
vtd_reg_read addr 0x34 size 0x4
dmr rd 30 4 0
"""
    events, decoder = decode(text)
    assert events == [
        RegRead(0x1C, 4, 0x80000000),
        RegRead(0x34, 4, None),
        RegRead(0x220, 8, 1),
        RegRead(0x34, 4, None),
        Reset(),
        RegRead(0x34, 4, None),
    ]
    assert [problem.line for problem in decoder.problems] == [9, 11]


def test_a_register_write_is_confirmed() -> None:
    text = """dmr begin 1
vtd_reg_write addr 0x20 size 0x8 value 0x1000
dmr reg 20 8 1000
vtd_reg_write addr 0x18 size 0x4 value 0x1
vtd_reg_write addr 0x88 size 0x8 value 0x2
dmr reg 88 8 2
dmr reg 18 4 1
"""
    assert decode(text)[1].problems == []
    wrong = text + "vtd_reg_write addr 0x20 size 0x8 value 0x2000\ndmr reg 20 4 2000\n"
    (problem,) = decode(wrong)[1].problems
    assert problem.line == 9
    assert "line 8" in problem.text
    (problem,) = decode(text + "dmr reg 34 4 1\n")[1].problems
    assert "the unit did not" in problem.text
    write = "vtd_reg_write addr 0x20 size 0x8 value 0x1000\n"
    (problem,) = decode(text + write * 2)[1].problems
    assert "not seen by the recorder" in problem.text
    assert decode(text + write * 100)[1].problem_count == 99
    assert decode(text + write)[1].problems == []
    assert decode(write * 100)[1].problems == []
    assert decode(text + write * 9 + "dmr lost some\n")[1].problems == []


def test_beginning_again_is_a_gap() -> None:
    events, decoder = decode("dmr begin 1\ndmr rel 1000\ndmr begin 1\n")
    assert events == [Release(0x1000), Gap("recorder restarted")]
    assert decoder.grammar == 1
    assert decode("dmr begin 2\n")[1].problem_count == 1


def test_a_refused_status_write_is_a_problem() -> None:
    _, decoder = decode("vtd_inv_desc_wait_write_fail write fail for wait desc hi 0x0 lo 0x25\n")
    assert decoder.problem_count == 1


@pytest.mark.parametrize("style", ["thread", "iso"])
def test_clocks_are_a_millisecond_apart(style: str) -> None:
    times = [0, 400, 999, 1000, 1500, 900, 2500, 1_002_500]
    text = "".join(f"{PREFIXES[style](us + 7)}vtd_reset_exit \n" for us in times)
    events, _ = decode(text)
    clocks = [Clock(us) for us in (0, 1000, 2500, 1_002_500)]
    assert [event for event in events if isinstance(event, Clock)] == clocks
    assert events[:2] == [Clock(0), Reset()]
    # Lines that become nothing move the clock, without an event of its own.
    text = f"{PREFIXES[style](0)}vtd_reset_exit \n{PREFIXES[style](5000)}vtd_inv_qi_fetch \n"
    assert decode(text)[0] == [Clock(0), Reset()]


def test_the_caller_gives_the_time_when_the_log_does_not() -> None:
    decoder = QemuLogDecoder()
    events = [
        *decoder.feed(b"vtd_reset_exit \nvtd_reset", 50_000),
        *decoder.feed(b"_exit \n", 52_000),
        # Once lines bear their time, it counts; it goes on from where the caller's ended.
        *decoder.feed(b"7@1.000000:vtd_reset_exit \n", 99_000),
        *decoder.feed(b"7@1.005000:vtd_reset_exit \n", 99_000),
    ]
    assert [event for event in events if isinstance(event, Clock)] == [
        Clock(0),
        Clock(2000),
        Clock(7000),
    ]


@pytest.mark.parametrize("time", ["2025-11-21T08:30:00Z", "2025-11-21T10:30:00+02:00"])
def test_times_of_every_zone_are_read(time: str) -> None:
    # GLib leaves the fraction out when it is zero.
    text = f"2025-11-21T08:29:59.990000Z vtd_reset_exit \n{time} vtd_reset_exit \n"
    assert decode(text)[0] == [Clock(0), Reset(), Clock(10_000), Reset()]


def test_an_unused_iterator_loses_nothing() -> None:
    decoder = QemuLogDecoder()
    decoder.feed(b"vtd_reset_exit \ndmr rel 1000\n")
    second = decoder.feed(b"dmr rel 2000\n")
    assert next(second) == Reset()
    assert list(decoder.finish()) == [Release(0x1000), Release(0x2000)]


def test_detection_and_hints() -> None:
    assert detect(b"noise\n1@1.000000:vtd_inv_qi_fetch \n")
    assert detect(b"dmr begin 1\n")
    assert not detect(b"[I 0.000001] OPENED\n")
    assert not detect(b"")
    dialects = {
        "vtd_inv_qi_fetch \n": "qemu",
        "vtd_reset_exit \n": "qemu-10.0",
        "2025-11-21T08:30:00Z vtd_reset_exit \n": "qemu-10.1",
        "vtd_pasid_cache_reset \n": "qemu-11.0",
    }
    for text, dialect in dialects.items():
        assert hints(decode(text)[1])["dialect"] == dialect
    assert "dialect" not in hints(decode("dmr begin 1\n")[1])


REAL = {
    "qemu-legacy-strict": {
        "RegWrite": 23,
        "RegRead": 14,
        "Store": 65,
        "Snapshot": 11,
        "Descriptor": 19,
        "StatusWrite": 9,
        "Access": 5,
        "Reset": 1,
        "InterruptRequest": 2,
    },
    "qemu-scalable-first-stage": {
        "RegWrite": 17,
        "RegRead": 13,
        "Store": 64,
        "Snapshot": 16,
        "Descriptor": 9,
        "StatusWrite": 5,
        "Access": 11,
        "Reset": 1,
        "InterruptRequest": 1,
    },
    "qemu-faults": {
        "RegWrite": 5,
        "RegRead": 11,
        "Store": 2,
        "Descriptor": 2,
        "StatusWrite": 1,
        "Access": 6,
        "FaultRecord": 3,
        "Interrupt": 3,
        "InterruptRequest": 2,
    },
    "qemu-thread-times": {
        "RegWrite": 8,
        "RegRead": 3,
        "Descriptor": 3,
        "StatusWrite": 1,
        "Access": 6,
        "FaultRecord": 1,
        "Reset": 1,
        "Clock": 5,
        "InterruptRequest": 1,
    },
}
"""What the samples hold, counted with grep.

The first three are excerpts, joined where no register access is under way, of recorded boots of
Linux 6.12 on QEMU 10.0.2; qemu-thread-times.log and qtest.log are the logs of vm.record().
"""


@pytest.mark.parametrize("name", REAL)
def test_real_logs(name: str) -> None:
    events, decoder = decode((GOLDEN / f"{name}.log").read_bytes())
    assert decoder.unknown == {}
    assert decoder.malformed == {}
    assert decoder.problems == []
    assert Counter(type(event).__name__ for event in events) == REAL[name]


def test_real_snapshots() -> None:
    events, _ = decode((GOLDEN / "qemu-legacy-strict.log").read_bytes())
    leaf = next(e for e in events if isinstance(e, Snapshot) and e.level == 1 and any(e.data))
    # The kernel's identity map of the first 2 MiB: readable, writable.
    for index in range(512):
        quadword = int.from_bytes(leaf.data[index * 8 : index * 8 + 8], "little")
        assert quadword == index << 12 | 3
