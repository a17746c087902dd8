"""What a reproducer on QEMU consists of: a machine, and commands that its qtest protocol has."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from harness.qemu import qtest

PROGRAM: Final = "qemu-system-x86_64"
LEAST_RAM: Final = 4 << 20
MOST_RAM: Final = 2 << 30
"""Bytes of RAM, as far as a q35 has it in one piece from 0."""

WINDOW: Final = 0xFE00_0000
"""Where the registers of devices are put."""
_WINDOW_STEP: Final = 0x10_0000

MARK: Final = 0x5A5A_5A5A_5A5A_5A5A
"""What is where a write of zeros should lead, before it does."""

_ADDRESS_PORT, _DATA_PORT = 0xCF8, 0xCFC
_COMMAND, _BAR, _BUS_NUMBERS, _MEMORY_WINDOW = 0x04, 0x10, 0x18, 0x20
_MEMORY_AND_MASTER: Final = 6


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the qtest protocol; expected is what a unit that does right answers.

    Of an answer only the bits of mask count. note says what the command is for, answer what the
    QEMU that was asked said.
    """

    line: str
    note: str = ""
    expected: int | None = None
    mask: int = (1 << 64) - 1
    answer: int | None = None

    @property
    def as_expected(self) -> bool | None:
        """Say whether the answer is the expected one, None where either is missing."""
        if self.answer is None or self.expected is None:
            return None
        return self.answer & self.mask == self.expected


@dataclass(slots=True)
class Program:
    """A machine and commands; left_out says what of the trace no command can do, and how often.

    asked names the QEMU whose answers the commands hold, and says how it ended if it did.
    """

    devices: list[str] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    ram: int = LEAST_RAM
    machine: str = "q35"
    asked: str = ""
    _windows: int = 0

    def add(self, line: str, note: str = "") -> None:
        """Append a command."""
        self.commands.append(Command(line, note))

    def expect(self, line: str, value: int, mask: int, note: str) -> None:
        """Append a command whose answer shows whether the unit does right."""
        self.commands.append(Command(line, note, value, mask))

    def leave_out(self, what: str) -> None:
        """Count something that no command can do."""
        self.left_out[what] = self.left_out.get(what, 0) + 1

    def reach(self, address: int, size: int) -> bool:
        """Let the machine have RAM there; say whether it can have any."""
        end = address + size
        if end > MOST_RAM:
            self.leave_out(f"memory above {MOST_RAM:#x}")
            return False
        while self.ram < end:
            self.ram *= 2
        return True

    def window(self) -> int:
        """Return addresses for the registers of one more device."""
        self._windows += 1
        return WINDOW + (self._windows - 1) * _WINDOW_STEP

    # -- PCI configuration -------------------------------------------------------------------

    def config(self, function: int, offset: int, size: int, value: int, note: str = "") -> None:
        """Write to the configuration space of a function."""
        self.add(qtest.out(_ADDRESS_PORT, 4, 1 << 31 | function << 8 | offset & 0xFC), note)
        self.add(qtest.out(_DATA_PORT + offset % 4, size, value))

    def enable(self, function: int, bar: int, note: str, wide: bool = False) -> int:
        """Give a function a place for a BAR and let it do DMA; return the place."""
        place = self.window()
        self.config(function, _BAR + 4 * bar, 4, place, note)
        if wide:
            self.config(function, _BAR + 4 * bar + 4, 4, 0)
        self.config(function, _COMMAND, 2, _MEMORY_AND_MASTER)
        return place

    def bridge(self, function: int, bus: int, place: int) -> None:
        """Let a bus be behind a function, with addresses that the next window() returns."""
        self.config(function, _BUS_NUMBERS, 4, bus << 16 | bus << 8, f"bus {bus:#x}")
        self.config(function, _MEMORY_WINDOW, 4, place >> 16 | place & 0xFFF0_0000)
        self.config(function, _COMMAND, 2, _MEMORY_AND_MASTER)

    @property
    def following(self) -> int:
        """Return what window() returns next."""
        return WINDOW + self._windows * _WINDOW_STEP

    # -- the command line --------------------------------------------------------------------

    def words(self) -> Iterator[str]:
        """Yield the command line's words behind the program, without what qtest speaks through."""
        yield from ("-nodefaults", "-display", "none", "-S", "-accel", "tcg")
        yield from ("-machine", self.machine, "-m", f"{self.ram >> 20}M")
        for device in self.devices:
            yield from ("-device", device)

    def command_line(self) -> str:
        """Return a command line that takes the commands from its standard input."""
        return f"{PROGRAM} {shlex.join(self.words())} -qtest stdio -qtest-log /dev/null"
