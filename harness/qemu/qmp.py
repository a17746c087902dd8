"""Talk to QEMU's control socket (QMP) for a moment: ask a few questions, then let it go."""

from __future__ import annotations

import json
import re
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from harness.errors import HarnessError
from harness.qemu.process import HungError

_LONGEST_ANSWER = 16 << 20
_EVENTS_KEPT = 64
_CLOSED = "QEMU closed its control socket"


class QmpError(HarnessError):
    """Report that QEMU did not answer, or refused."""


class QmpHungError(QmpError, HungError):
    """Report that QEMU does not answer in time."""


class Qmp:
    """Ask one QEMU over a connected socket; an answer may take `timeout` seconds.

    `idle` is called while an answer is awaited, at least every 50 ms; it may raise to give up.
    """

    def __init__(self, connection: socket.socket, idle: Callable[[], None], timeout: float) -> None:
        self._connection = connection
        self._connection.settimeout(0.05)
        self._idle = idle
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._events: deque[str] = deque(maxlen=_EVENTS_KEPT)
        self._buffer = bytearray()
        greeting = self._message()
        version = greeting.get("QMP", {}).get("version", {})
        numbers = version.get("qemu", {})
        self.version = tuple(int(numbers.get(part, 0)) for part in ("major", "minor", "micro"))
        self.package = str(version.get("package", ""))
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and return its answer."""
        self._deadline = time.monotonic() + self._timeout
        request = json.dumps({"execute": command, "arguments": arguments}) + "\n"
        try:
            self._connection.sendall(request.encode())
        except OSError as error:
            raise QmpError(_CLOSED) from error
        while True:
            answer = self._message()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise QmpError(f"QEMU refused {command}: {answer['error'].get('desc', '')}")
            self._events.append(str(answer.get("event")))

    def monitor(self, line: str) -> str:
        """Run a command of the human monitor and return what it prints."""
        return str(self.execute("human-monitor-command", **{"command-line": line}))

    def reset_system(self) -> None:
        """Reset the machine and wait until it is done, which may be before the answer comes."""
        self._events.clear()
        self.execute("system_reset")
        while "RESET" not in self._events:
            self._events.append(str(self._message().get("event")))

    def read_physical(self, address: int, size: int) -> int | None:
        """Read 4 or 8 bytes of guest-physical memory; None when there is no such memory."""
        text = self.monitor(f"xp /1{'g' if size == 8 else 'w'}x {address:#x}")
        match = re.search(r":\s*0x([0-9a-f]+)", text)
        return int(match[1], 16) if match else None

    def _message(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            self._idle()
            try:
                piece = self._connection.recv(1 << 16)
            except TimeoutError:
                piece = None
            except OSError as error:
                raise QmpError(_CLOSED) from error
            if piece == b"" or len(self._buffer) > _LONGEST_ANSWER:
                raise QmpError(_CLOSED)
            if piece is not None:
                self._buffer += piece
            elif time.monotonic() > self._deadline:
                raise QmpHungError("QEMU does not answer on its control socket")
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        try:
            message = json.loads(line)
        except ValueError as error:
            raise QmpError(f"QEMU's control socket says {line[:80]!r}") from error
        return message if isinstance(message, dict) else {}
