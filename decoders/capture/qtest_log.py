"""Read the log of QEMU's qtest protocol (`-qtest-log FILE`).

A line is ``[R +seconds] command``, ``[S +seconds] reply`` or ``[I +seconds] note``; a command
takes effect between its own line and its reply. What goes to the VT-d register page becomes
register accesses, what is written to RAM becomes stores; port I/O, accesses to other devices and
the rest of the protocol are counted. Nothing in such a log tells what the unit did by itself: no
DMA, no faults, no resets. Source: `system/qtest.c` of QEMU 10.0.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

from decoders.capture.lines import OVERLONG, LineDecoder, first_word
from decoders.events import Event, Gap, RegRead, RegWrite, Store

NAME: Final = "qtest-log"

REGISTERS: Final = (0xFED9_0000, 0x1000)
"""Where the q35 machine has the VT-d register page: address and size."""

RAM: Final = ((0, 0xA_0000), (0x10_0000, 0x8000_0000), (1 << 32, 1 << 39))
"""Where a PC has RAM (from, to) when nothing else is known: not at the PCI hole and the BIOS."""

DATA_LIMIT: Final = 1024 * 1024
"""Bytes that one command may write; a larger one leaves a Gap."""

_SIZES: Final = {b"b": 1, b"w": 2, b"l": 4, b"q": 8}
_WIDTHS: Final = (b"b", b"w", b"l", b"q")
_READS: Final = {b"read" + width: _SIZES[width] for width in _WIDTHS}
_WRITES: Final = {b"write" + width: _SIZES[width] for width in _WIDTHS}
_BLOCKS: Final = frozenset({b"write", b"b64write", b"memset"})
_OTHERS: Final = frozenset(
    b"inb inw inl outb outw outl read b64read irq_intercept_in irq_intercept_out set_irq_in"
    b" clock_step clock_set endianness module_load".split()
)
_REPLIES: Final = frozenset({b"OK", b"FAIL", b"ERR"})

_line = re.compile(rb"\[([RSI]) \+?([0-9]{1,10})\.([0-9]{6})\] (.*)", re.DOTALL).fullmatch
_number_text = re.compile(rb"0[xX]([0-9a-fA-F]{1,16})|0([0-7]*)|([1-9][0-9]*)").fullmatch
_reply_value = re.compile(rb"0x([0-9a-fA-F]{1,16})").fullmatch


def _number(word: bytes) -> int | None:
    """Read a 64-bit number as strtoul does with base 0."""
    match = _number_text(word[:32])
    if match is None:
        return None
    hexadecimal, octal, decimal = match.groups()
    if hexadecimal is not None:
        return int(hexadecimal, 16)
    value = int(octal or b"0", 8) if octal is not None else int(decimal)
    return None if value >> 64 else value


def _pieces(address: int, data: bytes) -> Iterator[tuple[int, int, int]]:
    """Cut data into naturally aligned accesses of at most 8 bytes: address, size, value."""
    at = 0
    while at < len(data):
        where = address + at
        size = 8
        while where % size or size > len(data) - at:
            size //= 2
        yield where, size, int.from_bytes(data[at : at + size], "little")
        at += size


class QtestLogDecoder(LineDecoder):
    """Turn the bytes of a qtest log, cut anywhere, into events.

    registers is where the unit's register page lies (address, size), ram where memory is (ranges
    from, to): a store to anywhere else is a device's business. A command's events come with its
    reply; a refused command has none, and one that never got its reply (QEMU died of it) has
    them all the same. Counts are by ``R command``, ``S word`` and ``I word``.
    """

    # `write` carries its data as hex.
    line_limit: ClassVar[int] = 4 * DATA_LIMIT

    def __init__(
        self,
        registers: tuple[int, int] = REGISTERS,
        ram: Sequence[tuple[int, int]] = RAM,
    ) -> None:
        super().__init__()
        self._registers = registers
        self._ram = tuple(ram)
        self._pending: list[Event] | None = None
        self._internal: Counter[str] = Counter()

    @property
    def internal(self) -> Counter[str]:
        """Count the well-formed lines that are no access to the unit or to memory, by name."""
        return Counter(self._internal)

    def _decode(self, lines: list[bytes], now_us: int | None) -> Iterator[Event]:
        for line in lines:
            out: list[Event] = []
            self.lines += 1
            if len(line) > self.line_limit:
                self._count_unknown(OVERLONG, line)
            elif not line or line == b"\r":
                self.blank += 1
            else:
                match = _line(line.rstrip(b"\r"))
                if match is None:
                    self._count_unknown(first_word(line), line)
                    continue
                direction, seconds, microseconds, text = match.groups()
                self._set_time(int(seconds) * 1_000_000 + int(microseconds))
                words = text.split(b" ")
                if direction == b"R":
                    self._command(words, line, out)
                else:
                    self._reply(direction, words, line, out)
            yield from out

    def _command(self, words: list[bytes], line: bytes, out: list[Event]) -> None:
        self._flush(out)
        name = words[0]
        if name in _OTHERS:
            self._count_internal(b"R " + name)
            self._pending = []
            return
        if name not in _READS and name not in _WRITES and name not in _BLOCKS:
            self._count_unknown("R " + first_word(name), line)
            return
        events = self._block(name, words) if name in _BLOCKS else self._access(name, words)
        if events is None:
            self._count_malformed(b"R " + name, line, out)
            return
        self._pending = events
        if events:
            self._count(b"R " + name)
        else:
            self._count_internal(b"R " + name)

    def _access(self, name: bytes, words: list[bytes]) -> list[Event] | None:
        """Decode an access of a fixed size; None when it is not one."""
        address = _number(words[1]) if len(words) > 1 else None
        if address is None:
            return None
        base, length = self._registers
        if name in _READS:
            if base <= address < base + length:
                return [RegRead(address - base, _READS[name], None)]
            return []
        value = _number(words[2]) if len(words) > 2 else None
        if value is None:
            return None
        size = _WRITES[name]
        return self._written(address, (value & ((1 << size * 8) - 1)).to_bytes(size, "little"))

    def _block(self, name: bytes, words: list[bytes]) -> list[Event] | None:
        """Decode an access of any size; None when it is not one."""
        if len(words) != 4:
            return None
        address, size = _number(words[1]), _number(words[2])
        if address is None or size is None:
            return None
        if size > DATA_LIMIT:
            return [Gap(f"{name.decode()} of {size} bytes, more than {DATA_LIMIT} are not kept")]
        if name == b"memset":
            pattern = _number(words[3])
            return (
                None if pattern is None else self._written(address, bytes([pattern & 255]) * size)
            )
        try:
            if name == b"write":
                # Missing bytes are zeros, surplus ones are ignored.
                digits = words[3][2 : 2 + size * 2]
                data = binascii.unhexlify(digits[: len(digits) & ~1]).ljust(size, b"\0")
            else:
                data = base64.b64decode(words[3], validate=True)[:size]
        except binascii.Error:
            return None
        return self._written(address, data)

    def _written(self, address: int, data: bytes) -> list[Event]:
        """Make the events of bytes that were written."""
        base, length = self._registers
        if base <= address < base + length:
            return [RegWrite(a - base, size, value) for a, size, value in _pieces(address, data)]
        if any(start <= address and address + len(data) <= end for start, end in self._ram):
            return [Store(a, size, value) for a, size, value in _pieces(address, data)]
        return []

    def _reply(self, direction: bytes, words: list[bytes], line: bytes, out: list[Event]) -> None:
        name = direction + b" " + words[0]
        if direction == b"I":
            if words[0] in (b"OPENED", b"CLOSED"):
                self._count_internal(name)
            else:
                self._count_unknown(first_word(words[0]), line)
            return
        if words[0] in (b"IRQ", b"b64write:"):
            self._count_internal(name)
            return
        if words[0] not in _REPLIES:
            self._count_unknown("S " + first_word(words[0]), line)
            return
        pending = self._pending
        if pending and type(pending[0]) is RegRead and words[0] == b"OK":
            value = _reply_value(words[1]) if len(words) == 2 else None
            read = pending[0]
            if value is None or int(value[1], 16) >> (read.size * 8):
                self._count_malformed(name, line, out)
                return
            self._pending = [RegRead(read.offset, read.size, int(value[1], 16))]
        elif pending and words[0] != b"OK":
            self._problem(f"{pending[0]} was refused: {first_word(words[0])}")
            self._pending = None
        elif pending is None:
            self._problem(f"a reply without a command: {first_word(words[0])}")
        self._count_internal(name)
        self._flush(out)

    def _flush(self, out: list[Event]) -> None:
        if self._pending:
            self._tick(out)
            out += self._pending
        self._pending = None

    def _count_internal(self, name: bytes) -> None:
        self._count(name)
        self._internal[name.decode("ascii")] += 1

    def _known_name(self, line: bytes) -> bytes | None:
        match = _line(line)
        if match is None:
            return None
        name = match[4].partition(b" ")[0]
        known = name in _READS or name in _WRITES or name in _BLOCKS or name in _OTHERS
        return match[1] + b" " + name if known or name in _REPLIES else None

    def _is_event(self, name: bytes, line: bytes) -> bool:
        command = name[2:]
        return command in _WRITES or command in _BLOCKS or command in _READS


def detect(head: bytes) -> bool:
    """Say whether a file that begins with head looks like such a log."""
    return _line(head.split(b"\n", 1)[0].rstrip(b"\r")[:256]) is not None


def hints(decoder: QtestLogDecoder) -> dict[str, str]:
    """Give what is known of the log's origin: nothing but the emulator's name."""
    return {"dialect": "qemu"}
