"""A stopped PC whose RAM is ours too: writing queues and seeing where DMA landed cost nothing."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Final, Protocol, Self

from harness.errors import HarnessError
from harness.qemu.pci import Ports, Setup, number_buses
from harness.qemu.qmp import Qmp
from harness.qemu.qtest import Machine, Session

PROGRAM: Final = "qemu-system-x86_64"
RAM_SIZE: Final = 4 << 20
RAM_START: Final = 1 << 20
"""Below are holes and ROMs."""

_CONVENTIONAL: Final = 0xA_0000
"""RAM that begins at 0 ends here."""

# hw/i386/pc_q35.c of QEMU 10.0: where RAM below 4 GiB ends when there is more, and when not.
_MOST_BELOW, _SPLIT, _ABOVE = 0xB000_0000, 0x8000_0000, 1 << 32

CHIPSET: Final = frozenset({0x00, 0xF8, 0xFA, 0xFB})
"""What a q35 has by itself: host bridge, ISA bridge, SATA, SMBus. A reset takes longer when they
are in use."""

_MIB: Final = 1 << 20
_QMP_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.01

_HALT: Final = b"\xf4"
_FIRMWARE_SIZE: Final = 1 << 16
"""The least that QEMU takes for firmware."""


class Backend(Protocol):
    """Serve a device of QEMU through a socket that is its chardev."""

    name: str

    def attach(self, connection: socket.socket) -> None:
        """Serve a QEMU that is about to start."""
        ...


class Pc:
    """Run a PC (q35, TCG, stopped) with some devices, set up as firmware would.

    devices are the values of -device options, words are more options, and inherited are the files
    that these name; buses are numbers for those behind bridges. With backends it is not stopped,
    because QEMU starts vhost devices in running machines only; all its processor does is to halt.
    Use as a context manager, or close.
    """

    machine: Machine
    setup: Setup
    config: Ports

    def __init__(
        self,
        devices: Sequence[str],
        program: str = PROGRAM,
        ram_size: int = RAM_SIZE,
        words: Sequence[str] = (),
        inherited: Sequence[int] = (),
        backends: Sequence[Backend] = (),
        buses: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self._backends = backends
        self._cleanup = contextlib.ExitStack()
        self._memory = os.memfd_create("dmarewind-ram", os.MFD_CLOEXEC)
        self._cleanup.callback(os.close, self._memory)
        os.ftruncate(self._memory, ram_size)
        self._state = os.memfd_create("dmarewind-state", os.MFD_CLOEXEC)
        self._cleanup.callback(os.close, self._state)
        self.ram = mmap.mmap(self._memory, ram_size)
        self._cleanup.callback(self.ram.close)
        self._command = [program, "-nodefaults", "-display", "none", "-accel", "tcg"]
        self._command += ["-machine", "q35,memory-backend=ram", "-m", f"{ram_size >> 20}M"]
        self._command += [
            "-object",
            f"memory-backend-file,id=ram,size={ram_size},share=on,mem-path=/dev/fd/{self._memory}",
        ]
        for device in devices:
            self._command += ["-device", device]
        self._command += words
        self._inherited = [self._memory, self._state, *inherited]
        self._command += self._halted() if backends else ["-S"]
        self._run = contextlib.ExitStack()
        self._buses = buses
        self.starts = 0
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def memory(self) -> int:
        """Return the descriptor of the file that RAM is."""
        return self._memory

    def _halted(self) -> list[str]:
        """Return the options for firmware that halts: interrupts are off after a reset."""
        firmware = os.memfd_create("dmarewind-firmware", os.MFD_CLOEXEC)
        self._cleanup.callback(os.close, firmware)
        os.write(firmware, _HALT * _FIRMWARE_SIZE)
        self._inherited.append(firmware)
        return ["-bios", f"/dev/fd/{firmware}"]

    def start(self) -> None:
        """Start QEMU, anew when one runs or has ended; RAM keeps its content."""
        self._launch()
        self.config = Ports(self.machine)
        number_buses(self.config, self._buses)
        self.setup = Setup(self.config, idle=CHIPSET)

    def migrate(self) -> None:
        """Let a new QEMU of the same command line take over the state; the old one ends."""
        state = f"file:/dev/fd/{self._state}"
        self._connected().execute("migrate", uri=state)
        self._migrated()
        self._launch("-incoming", state)
        self._migrated()
        self.config.move(self.machine)

    def _migrated(self) -> None:
        deadline = time.monotonic() + _QMP_SECONDS
        while (status := self._connected().execute("query-migrate").get("status")) != "completed":
            if status == "failed" or time.monotonic() > deadline:
                raise HarnessError(f"QEMU's migration is {status}: {self._process.printed()}")
            time.sleep(_POLL_SECONDS)

    def _launch(self, *more: str) -> None:
        self._run.close()
        ours, theirs = socket.socketpair()
        self._run.callback(ours.close)
        words = [*self._command, "-qmp", "chardev:control", *more]
        with contextlib.ExitStack() as passed:
            inherited = list(self._inherited)
            for name, end in (("control", theirs), *self._served()):
                number = passed.enter_context(end).fileno()
                words += ["-chardev", f"socket,id={name},fd={number}"]
                inherited.append(number)
            session = Session(words, inherited)
        self._run.callback(session.close)
        self.machine, self._process = session.machine, session.process
        self._control = ours
        self._qmp: Qmp | None = None
        self.starts += 1

    def _served(self) -> Iterator[tuple[str, socket.socket]]:
        """Yield the chardevs of backends, each with QEMU's end of a socket that is served."""
        for backend in self._backends:
            ours, theirs = socket.socketpair()
            backend.attach(ours)
            yield backend.name, theirs

    def reset(self) -> None:
        """Reset the system, then set PCI up as before; RAM keeps its content."""
        self._connected().reset_system()
        self.machine.commands(self.config.again())
        self._process.bound_log()

    @property
    def version(self) -> tuple[int, ...]:
        """Return the version of this QEMU."""
        return self._connected().version

    def monitor(self, line: str) -> str:
        """Run a command of QEMU's human monitor and return what it prints."""
        return self._connected().monitor(line)

    def _connected(self) -> Qmp:
        if self._qmp is None:
            self._qmp = Qmp(self._control, self._alive, _QMP_SECONDS)
        return self._qmp

    def _alive(self) -> None:
        if not self._process.running:
            raise self._process.ended() or HarnessError("QEMU ended")

    def close(self) -> None:
        """End QEMU and free its RAM."""
        self._run.close()
        self._cleanup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def ram_ranges(ram_size: int) -> tuple[tuple[int, int], ...]:
    """Return where a PC has RAM that DMA reaches, as (start, length)."""
    if ram_size < _MOST_BELOW:
        return (0, _CONVENTIONAL), (RAM_START, ram_size - RAM_START)
    below = (0, _CONVENTIONAL), (RAM_START, _SPLIT - RAM_START)
    return *below, (_ABOVE, ram_size - _SPLIT)


def is_ram(address: int, ram_size: int = RAM_SIZE) -> bool:
    """Say whether a PC has RAM at an address."""
    if address < _CONVENTIONAL or ram_size < _MOST_BELOW:
        return address < _CONVENTIONAL or RAM_START <= address < ram_size
    return RAM_START <= address < _SPLIT or _ABOVE <= address < _ABOVE - _SPLIT + ram_size


def ram_offset(address: int) -> int:
    """Return where in the memory file RAM is: what is above 4 GiB follows what is below."""
    return address if address < _ABOVE else address - _ABOVE + _SPLIT


def ram_address(offset: int, ram_size: int) -> int:
    """Return where in the address space a place in the memory file is."""
    above = ram_size >= _MOST_BELOW and offset >= _SPLIT
    return offset - _SPLIT + _ABOVE if above else offset


def ram_size_for(last: int) -> int | None:
    """Return the bytes of RAM that a PC needs to have some at an address; None if it cannot."""
    if last < _MOST_BELOW - _MIB:
        return -(-(last + 1) // _MIB) * _MIB
    if last < _ABOVE:
        return None
    return max(_MOST_BELOW, -(-(ram_offset(last) + 1) // _MIB) * _MIB)
