"""Read the memory of a virtual machine, and its firmware configuration files, through qtest."""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import Final

from harness.acpi.linker import add_checksums
from harness.errors import HarnessError

TIMEOUT: Final = 60.0
"""Seconds that one answer may take."""

_SELECT, _READ, _ERROR = 8, 2, 1
_DIRECTORY: Final = 0x19
_PIECE: Final = 1 << 16

LARGEST_FILE: Final = 1 << 24
"""Bytes that are read of one firmware configuration file."""


class Machine:
    """Ask a running QEMU through its qtest socket; addresses are guest-physical."""

    def __init__(self, connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._connection = connection
        self._connection.settimeout(TIMEOUT)
        self._process = process
        self._stream = connection.makefile("rwb")

    def command(self, line: str) -> str:
        """Send one command and return what follows OK in the answer."""
        try:
            self._stream.write(line.encode() + b"\n")
            self._stream.flush()
            while True:
                answer = self._stream.readline().decode("ascii", "replace").split()
                if answer[:1] != ["IRQ"]:
                    break
        except OSError as error:
            raise HarnessError(f"QEMU does not answer qtest commands: {error}") from error
        if answer[:1] != ["OK"]:
            said = " ".join(answer) or "nothing"
            raise HarnessError(f"QEMU answers {said!r} to {line[:60]!r}")
        return answer[1] if len(answer) > 1 else ""

    def read(self, address: int, size: int) -> bytes:
        """Read memory."""
        data = bytearray()
        while len(data) < size:
            piece = min(_PIECE, size - len(data))
            answer = self.command(f"b64read {address + len(data):#x} {piece:#x}")
            data += base64.b64decode(answer)
        return bytes(data)

    def write(self, address: int, data: bytes) -> None:
        """Write memory, or a device."""
        self.command(f"write {address:#x} {len(data):#x} 0x{data.hex()}")


class FirmwareFiles:
    """Read the files that QEMU has for firmware (fw_cfg) by DMA.

    dma is the address of the DMA register, scratch that of RAM which nobody uses.
    """

    def __init__(self, machine: Machine, dma: int, scratch: int) -> None:
        self._machine, self._dma, self._scratch = machine, dma, scratch
        (count,) = struct.unpack(">I", self._item(_DIRECTORY, 4))
        listing = self._item(_DIRECTORY, 4 + 64 * min(count, 1024))
        self._files: dict[str, tuple[int, int]] = {}
        for size, key, _, name in struct.iter_unpack(">IHH56s", listing[4:]):
            self._files[name.rstrip(b"\0").decode("ascii", "replace")] = key, size

    def read(self, name: str) -> bytes:
        """Return the content of a file; raise HarnessError when there is none."""
        if name not in self._files:
            raise HarnessError(f"this machine has no firmware file {name}")
        key, size = self._files[name]
        if size > LARGEST_FILE:
            raise HarnessError(f"{name} has {size} bytes, more than {LARGEST_FILE}")
        return self._item(key, size)

    def acpi_tables(self) -> bytes:
        """Return the ACPI tables, one after another, with their checksums."""
        name = "etc/acpi/tables"
        return add_checksums(self.read(name), self.read("etc/table-loader"), name)

    def _item(self, key: int, size: int) -> bytes:
        target = self._scratch + 16
        control = key << 16 | _SELECT | _READ
        self._machine.write(self._scratch, struct.pack(">IIQ", control, size, target))
        self._machine.write(self._dma, struct.pack(">Q", self._scratch))
        (status,) = struct.unpack(">I", self._machine.read(self._scratch, 4))
        if status & _ERROR:
            raise HarnessError(f"QEMU refuses to give firmware item {key:#x}")
        return self._machine.read(target, size)


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[Machine]:
    """Run a QEMU command line for as long as the body takes; raise HarnessError if it fails."""
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as log, ours, theirs:
        number = theirs.fileno()
        words = [*command, "-chardev", f"socket,id=qtest,fd={number}", "-qtest", "chardev:qtest"]
        try:
            process = subprocess.Popen(
                [*words, "-qtest-log", "/dev/null"],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        except OSError as error:
            raise HarnessError(f"cannot run {command[0]}: {error}") from error
        theirs.close()
        try:
            yield Machine(ours, process)
        except HarnessError as error:
            process.kill()
            process.wait()
            log.seek(0)
            said = log.read(2000).decode(errors="replace").strip()
            raise HarnessError(f"{error}: {said}" if said else str(error)) from error
        finally:
            process.kill()
            process.wait()
