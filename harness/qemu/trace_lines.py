"""Read what QEMU's trace events say through a pipe: a line is there when its command is answered.

QEMU flushes its log behind every line (util/log.c, qemu_log_unlock).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from typing import Final

from decoders.capture.qemu_events import EVENT_LINES
from decoders.events import Event

_ROOM: Final = 1 << 20
"""Bytes that the pipe may hold: a QEMU whose lines nobody reads waits when it is full."""

_PIECE: Final = 1 << 16


class TraceLines:
    """Own a pipe that a QEMU with `options` writes its log to, and inherits as `file`."""

    def __init__(self, names: Sequence[str]) -> None:
        self._cleanup = contextlib.ExitStack()
        self._ours, self.file = os.pipe()
        self._cleanup.callback(os.close, self._ours)
        self._cleanup.callback(os.close, self.file)
        os.set_blocking(self._ours, False)
        with contextlib.suppress(OSError):  # more than an unprivileged user may have
            fcntl.fcntl(self.file, fcntl.F_SETPIPE_SZ, _ROOM)
        self.options = ["-D", f"/dev/fd/{self.file}"]
        for name in names:
            self.options += ["-trace", name]

    def events(self) -> list[Event]:
        """Return what was said since the last call; lines of another form are left out."""
        return list(self._parsed())

    def _parsed(self) -> Iterator[Event]:
        for line in self._read().split(b"\n"):
            # A program may put the process and the time before the name.
            name, _, rest = line[line.find(b"vtd_") :].partition(b" ")
            parse = EVENT_LINES.get(name)
            event = parse(rest) if parse is not None else None
            if event is not None:
                yield event

    def _read(self) -> bytes:
        pieces = []
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._ours, _PIECE):
                pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close the pipe."""
        self._cleanup.close()
