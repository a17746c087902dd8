"""QEMU's qtest log: commands with their replies, and what QEMU itself made of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from decoders.capture import open_capture
from decoders.capture.lines import OVERLONG
from decoders.capture.qtest_log import DATA_LIMIT, QtestLogDecoder, detect
from decoders.events import Access, Clock, Event, Gap, RegRead, RegWrite, Reset, Store
from tests.decoders.capture.vm import MAPPED, UNMAPPED, record

GOLDEN = Path(__file__).parents[2] / "golden"


def decode(
    text: str, decoder: QtestLogDecoder | None = None
) -> tuple[list[Event], QtestLogDecoder]:
    decoder = decoder or QtestLogDecoder()
    events = [*decoder.feed(text.encode()), *decoder.finish()]
    known = decoder.counts.total() + decoder.malformed.total() + decoder.unknown.total()
    assert decoder.lines == decoder.blank + known
    return [event for event in events if not isinstance(event, Clock)], decoder


def talk(command: str, reply: str = "OK") -> str:
    return f"[R +0.000001] {command}\n[S +0.000002] {reply}\n"


def stores(address: int, data: bytes) -> list[Event]:
    return [
        Store(address + at, 8, int.from_bytes(data[at : at + 8], "little"))
        for at in range(0, len(data), 8)
    ]


@pytest.mark.parametrize(
    ("command", "reply", "events"),
    [
        ("writeq 0xfed90020 0x1234400", "OK", [RegWrite(0x20, 8, 0x1234400)]),
        ("writel 0xfed90018 0x80000000", "OK", [RegWrite(0x18, 4, 0x80000000)]),
        ("writel 0xfed90018 0xffffffffffffffff", "OK", [RegWrite(0x18, 4, 0xFFFFFFFF)]),
        ("writew 4275634176 010", "OK", [RegWrite(0, 2, 8)]),
        ("readl 0xfed9001c", "OK 0x0000000080000000", [RegRead(0x1C, 4, 0x80000000)]),
        ("readq 0xFED90008", "OK 0xffffffffffffffff", [RegRead(8, 8, 2**64 - 1)]),
        ("readl 0xfed9001c", "FAIL", []),
        ("readq 0x100000", "OK 0x0000000000000000", []),
        ("writeb 0x100001 0x1ff", "OK", [Store(0x100001, 1, 0xFF)]),
        ("writew 0x100001 0x1234", "OK", [Store(0x100001, 1, 0x34), Store(0x100002, 1, 0x12)]),
        ("writeq 0x100000000 0x1", "OK", [Store(1 << 32, 8, 1)]),
        ("writel 0xfe000008 0x1", "OK", []),
        ("writel 0xa0000 0x1", "OK", []),
        ("writeq 0x9fffc 0x1", "OK", []),
        (
            "write 0xffc 0x9 0x000102030405060708",
            "OK",
            [Store(0xFFC, 4, 0x03020100), Store(0x1000, 4, 0x07060504), Store(0x1004, 1, 8)],
        ),
        ("write 0x1000 0x4 0xff", "OK", [Store(0x1000, 4, 0xFF)]),
        ("write 0x1000 0x1 0xffeedd", "OK", [Store(0x1000, 1, 0xFF)]),
        (
            "write 0xfed90020 0xc 0x000102030405060708090a0b",
            "OK",
            [RegWrite(0x20, 8, 0x0706050403020100), RegWrite(0x28, 4, 0x0B0A0908)],
        ),
        ("write 0x1000 0x1 0x", "ERR invalid argument size", []),
        ("b64write 0x1000 0x3 AQID", "OK", [Store(0x1000, 2, 0x0201), Store(0x1002, 1, 3)]),
        ("b64write 0x1000 0x2 AQID", "OK", [Store(0x1000, 2, 0x0201)]),
        ("memset 0x1000 0x20 0x1ab", "OK", stores(0x1000, b"\xab" * 32)),
        ("memset 0x1000 0x0 0x0", "OK", []),
        (
            f"memset 0x1000 {DATA_LIMIT + 1} 0x0",
            "OK",
            [Gap(f"memset of {DATA_LIMIT + 1} bytes, more than {DATA_LIMIT} are not kept")],
        ),
        ("outl 0xcf8 0x80001810", "OK", []),
        ("inl 0xcfc", "OK 0x8086", []),
        ("clock_step 100", "FAIL Unknown command 'clock_step'", []),
        ("read 0x155000 0x10", "OK 0xffffffff000000000000000000000000", []),
    ],
)
def test_each_command(command: str, reply: str, events: list[Event]) -> None:
    found, decoder = decode(talk(command, reply))
    assert found == events
    assert decoder.malformed == {}
    assert decoder.unknown == {}
    assert decode(talk(command, reply).replace("\n", "\r\n"))[0] == events


@pytest.mark.parametrize(
    "command",
    [
        *("writeq", "writeq 0x1000", "writeq 0x1000 zz", "writeq 1_000 0x1", "writeq -1 1"),
        *("writel 0x10000000000000000 0x1", "writel 0x1000 18446744073709551616", "readl"),
        *("readl 0xg", "write 0x1000 0x4", "write 0x1000 0x4 0x0g", "memset 0x1000 0x4"),
        *("b64write 0x1000 0x3 AQI", "b64write 0x1000 0x3 AQ!D", "writel 08 1"),
    ],
)
def test_a_malformed_command_leaves_a_gap(command: str) -> None:
    found, decoder = decode(talk(command) + talk("writeb 0x1000 0x1"))
    name = "R " + command.split()[0]
    assert found == [Gap(f"malformed {name} in line 1"), Store(0x1000, 1, 1)]
    assert decoder.malformed == {name: 1}


def test_the_command_that_ended_it_is_kept() -> None:
    """QEMU died of it, so there is no reply; that is the command worth having."""
    assert decode("[R +0.000001] writeq 0xfed90038 0x1\n")[0] == [RegWrite(0x38, 8, 1)]
    assert decode("[R +0.000001] readq 0xfed90038\n")[0] == [RegRead(0x38, 8, None)]
    torn = decode(talk("writeb 0x1000 0x1") + "[R +0.000003] writeq 0xfed90038 0x1")
    assert torn[0] == [Store(0x1000, 1, 1), Gap("malformed R writeq in line 3")]


def test_replies_out_of_turn() -> None:
    found, decoder = decode("[S +0.000001] OK\n")
    assert (found, len(decoder.problems)) == ([], 1)
    found, decoder = decode(talk("writel 0xfed90018 0x1", "FAIL"))
    assert (found, len(decoder.problems)) == ([], 1)
    text = "[R +0.1] nonsense\n[R +0.000001] writel 0xfed90018 0x1\n[S +0.000002] IRQ raise 3\n"
    found, decoder = decode(text + "[S +0.000002] OK\n")
    assert found == [RegWrite(0x18, 4, 1)]
    assert decoder.unknown == {"[R": 1}
    assert decoder.counts == {"R writel": 1, "S IRQ": 1, "S OK": 1}
    for reply in ("OK", "OK 0x1 0x2", "OK 0x100000000", "OK 12"):
        found, decoder = decode(talk("readl 0xfed90018", reply))
        assert found == [RegRead(0x18, 4, None)]
        assert decoder.malformed == {"S OK": 1}
    unknown = "[R +0.000001] dance 1\n[S +0.000001] MAYBE\n[I +0.000001] NOTE\nnoise\n"
    assert decode(unknown)[1].unknown == {"R dance": 1, "S MAYBE": 1, "NOTE": 1, "noise": 1}


def test_other_places() -> None:
    decoder = QtestLogDecoder(registers=(0x1000_0000, 0x400), ram=[(0, 0x1000)])
    text = talk("writel 0x100003fc 0x1") + talk("writel 0x10000400 0x1") + talk("writel 0xffc 0x1")
    found, decoder = decode(text + talk("writel 0x1000 0x1"), decoder)
    assert found == [RegWrite(0x3FC, 4, 1), Store(0xFFC, 4, 1)]
    assert decoder.internal == {"R writel": 2, "S OK": 4}


def test_an_over_long_line_is_skipped() -> None:
    decoder = QtestLogDecoder()
    long = "[R +0.000001] write 0x1000 0x1 0x" + "00" * decoder.line_limit + "\n"
    found, _ = decode(long + talk("writeb 0x1000 0x1"), decoder)
    assert found == [Store(0x1000, 1, 1)]
    assert decoder.unknown == {OVERLONG: 1}


def test_time() -> None:
    text = "[I 0.000001] OPENED\n[R +0.000001] readl 0xfed90000\n[S +0.000002] OK 0x1\n"
    text += "[R +1.500001] writel 0xfed90018 0x0\n[S +1.500002] OK\n"
    events = list(QtestLogDecoder().feed(text.encode()))
    assert [event for event in events if isinstance(event, Clock)] == [Clock(1), Clock(1_500_001)]


def test_a_real_log() -> None:
    found, decoder = decode((GOLDEN / "qtest.log").read_text())
    assert detect((GOLDEN / "qtest.log").read_bytes())
    assert (decoder.unknown, decoder.malformed, decoder.problems) == ({}, {}, [])
    assert found == EXPECTED


EXPECTED: list[Event] = [
    RegRead(0x8, 8, 0x00D2008C222F0606),
    RegWrite(0x38, 4, 0x80000000),
    *stores(0x100000, bytes(32)),
    Store(0x100000, 8, 0x101001),
    Store(0x101180, 8, 0x102001),
    Store(0x101188, 8, 0x501),
    Store(0x102000, 8, 0x103003),
    Store(0x103008, 8, 0x104003),
    Store(0x104018, 8, 0x155003),
    RegWrite(0x20, 8, 0x100000),
    RegWrite(0x18, 4, 0x40000000),
    RegWrite(0x88, 8, 0),
    RegWrite(0x90, 8, 0x105000),
    RegWrite(0x18, 4, 0x4000000),
    Store(0x105000, 8, 0x11),
    Store(0x105008, 8, 0),
    Store(0x105010, 8, 0x12),
    Store(0x105018, 8, 0),
    Store(0x105020, 8, 0x700000025),
    Store(0x105028, 8, 0x106000),
    RegWrite(0x88, 8, 0x30),
    RegWrite(0x18, 4, 0x84000000),
    RegRead(0x1C, 4, 0xC4000000),
    RegRead(0x34, 4, 0x2),
]


@pytest.mark.qemu
def test_both_logs_of_a_real_run_agree(tmp_path: Path) -> None:
    qtest_log, trace_log = record(tmp_path, "-msg", "timestamp=on")
    told, seen = open_capture(qtest_log), open_capture(trace_log)
    assert (told.format, seen.format) == ("qtest-log", "qemu-log")
    commands, traced = list(told.events()), list(seen.events())
    for capture in (told, seen):
        assert (capture.unknown, capture.malformed, capture.problems) == ({}, {}, [])
    writes = [event for event in commands if isinstance(event, RegWrite)]
    assert writes == [event for event in traced if isinstance(event, RegWrite)]
    reads = [RegRead(e.offset, e.size, None) for e in commands if isinstance(e, RegRead)]
    assert reads == [event for event in traced if isinstance(event, RegRead)]
    assert Counter(traced)[Reset()] == 1
    accesses = [event.iova for event in traced if isinstance(event, Access)]
    assert accesses[:3] == [MAPPED, MAPPED, UNMAPPED]
