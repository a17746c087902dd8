"""Drive a QEMU through its qtest socket: one command a line, many lines a round trip."""

from __future__ import annotations

import base64
import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import Final

from harness.errors import HarnessError
from harness.qemu.process import HungError, Process

TIMEOUT: Final = 60.0
"""Seconds that one answer may take."""

BATCH: Final = 256
"""Commands on their way at a time: their answers have to fit into the socket."""

_LETTERS: Final = {1: "b", 2: "w", 4: "l", 8: "q"}
_LONGEST_ANSWER: Final = 1 << 20
_PIECE: Final = 1 << 16
_PORTS: Final = 1 << 16
_ADDRESSES: Final = 1 << 64


def store(address: int, size: int, value: int) -> str:
    """Return the command that stores 1, 2, 4 or 8 bytes; QEMU aborts on numbers out of range."""
    if not 0 <= address < _ADDRESSES or value < 0 or value >> (8 * size):
        raise ValueError(f"cannot store {value:#x} as {size} bytes at {address:#x}")
    return f"write{_LETTERS[size]} {address:#x} {value:#x}"


def load(address: int, size: int) -> str:
    """Return the command that loads 1, 2, 4 or 8 bytes."""
    if not 0 <= address < _ADDRESSES:
        raise ValueError(f"cannot load from {address:#x}")
    return f"read{_LETTERS[size]} {address:#x}"


def out(port: int, size: int, value: int) -> str:
    """Return the command that writes 1, 2 or 4 bytes to an I/O port."""
    if not 0 <= port < _PORTS or size == 8 or value < 0 or value >> (8 * size):
        raise ValueError(f"cannot write {value:#x} as {size} bytes to port {port:#x}")
    return f"out{_LETTERS[size]} {port:#x} {value:#x}"


def into(port: int, size: int) -> str:
    """Return the command that reads 1, 2 or 4 bytes from an I/O port."""
    if not 0 <= port < _PORTS or size == 8:
        raise ValueError(f"cannot read {size} bytes from port {port:#x}")
    return f"in{_LETTERS[size]} {port:#x}"


class Machine:
    """Ask a running QEMU through its qtest socket; addresses are guest-physical."""

    def __init__(self, connection: socket.socket, process: Process) -> None:
        self._connection = connection
        self._connection.settimeout(TIMEOUT)
        self.process = process
        self._buffer = b""

    def command(self, line: str) -> str:
        """Send one command and return what follows OK in the answer."""
        return self._exchange((line,))[0]

    def commands(self, lines: Sequence[str]) -> list[str]:
        """Send commands and return what follows OK in each answer."""
        if len(lines) <= BATCH:
            return self._exchange(lines)
        answers = []
        for at in range(0, len(lines), BATCH):
            answers += self._exchange(lines[at : at + BATCH])
        return answers

    def load(self, address: int, size: int) -> int:
        """Load 1, 2, 4 or 8 bytes."""
        return int(self.command(load(address, size)), 16)

    def store(self, address: int, size: int, value: int) -> None:
        """Store 1, 2, 4 or 8 bytes."""
        self.command(store(address, size, value))

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
        if data:
            self.command(f"write {address:#x} {len(data):#x} 0x{data.hex()}")

    def _exchange(self, lines: Sequence[str]) -> list[str]:
        self.send(lines)
        return self.receive(lines)

    def send(self, lines: Sequence[str]) -> None:
        """Send commands, at most BATCH; receive() has to follow before anything else is asked."""
        if len(lines) > BATCH:
            raise ValueError(f"{len(lines)} commands are more than {BATCH}")
        if not lines:
            return
        try:
            self._connection.sendall(("\n".join(lines) + "\n").encode())
        except OSError as error:
            raise self._lost(f"QEMU does not take qtest commands: {error}") from error

    def receive(self, lines: Sequence[str]) -> list[str]:
        """Return what follows OK in each answer to what was sent."""
        if not lines:
            return []
        answers: list[str] = []
        refused: str | None = None
        try:
            piece = self._connection.recv(_PIECE)
            if not self._buffer:
                simple = _all_ok(piece, len(lines))
                if simple is not None:
                    return simple
            while True:
                if not piece:
                    raise self._lost("QEMU closed its qtest socket")
                *whole, self._buffer = (self._buffer + piece).split(b"\n")
                for line in whole:
                    if line[:3] == b"IRQ":
                        continue
                    if line[:2] != b"OK" and refused is None and len(answers) < len(lines):
                        said = line.decode("ascii", "replace")[:80]
                        refused = f"QEMU answers {said!r} to {lines[len(answers)][:60]!r}"
                    answers.append(line[3:].decode("ascii", "replace"))
                if len(self._buffer) > _LONGEST_ANSWER:
                    raise HarnessError("QEMU's qtest socket answers without an end of line")
                if len(answers) >= len(lines):
                    break
                piece = self._connection.recv(_PIECE)
        except TimeoutError as error:
            said = self.process.printed() or "nothing"
            raise HungError(
                f"QEMU does not answer {lines[len(answers)][:60]!r}: {error}; it printed: {said}"
            ) from error
        except OSError as error:
            raise self._lost(f"QEMU does not answer qtest commands: {error}") from error
        if refused is not None:
            raise HarnessError(refused)
        if len(answers) > len(lines):
            raise HarnessError("QEMU's qtest socket answers more than it was asked")
        return answers

    def _lost(self, what: str) -> HarnessError:
        return self.process.ended() or HarnessError(what)


def _all_ok(piece: bytes, count: int) -> list[str] | None:
    """Return the answers where what was received is as many that succeeded, and nothing else."""
    if piece[:2] != b"OK" or piece[-1:] != b"\n" or piece.count(b"\n") != count:
        return None
    if piece.count(b"\nOK") != count - 1:
        return None
    return [line[3:] for line in piece.decode("ascii", "replace").split("\n")[:-1]]


class Session:
    """Own a QEMU and the machine in it."""

    def __init__(self, command: Sequence[str], inherited: Sequence[int] = ()) -> None:
        ours, theirs = socket.socketpair()
        self._connection = ours
        try:
            with theirs:
                number = theirs.fileno()
                words = [*command, "-chardev", f"socket,id=qtest,fd={number}"]
                words += ["-qtest", "chardev:qtest", "-qtest-log", "/dev/null"]
                self.process = Process(words, [number, *inherited])
        except BaseException:
            ours.close()
            raise
        self.machine = Machine(ours, self.process)

    def close(self) -> None:
        """End QEMU and free everything."""
        self._connection.close()
        self.process.close()


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[Machine]:
    """Run a QEMU command line for as long as the body takes; its errors name what it printed."""
    session = Session(command)
    try:
        yield session.machine
    finally:
        session.close()
