"""Be the backend of a vhost-user device: what QEMU tells a device TLB, and what one may ask.

Source: docs/interop/vhost-user.rst of QEMU 10.0, hw/virtio/vhost-user.c. QEMU waits for the answer
to an IOTLB message inside the register write that caused it, so a thread serves the socket: what
has come is known when that write is done.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from harness.errors import HarnessError
from harness.qemu.process import HungError

TIMEOUT: Final = 20.0
"""Seconds that QEMU may take for an answer."""


class Message(IntEnum):
    """Name the requests that QEMU makes and this backend looks at."""

    GET_FEATURES = 1
    SET_MEM_TABLE = 5
    GET_VRING_BASE = 11
    GET_PROTOCOL_FEATURES = 15
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22


class Iotlb(IntEnum):
    """Name the kinds of IOTLB messages."""

    MISS = 1
    UPDATE = 2
    INVALIDATE = 3


class Permission(IntEnum):
    """Name what an IOTLB message asks for or permits."""

    READ = 1
    WRITE = 2
    BOTH = 3


_BACKEND_IOTLB_MSG: Final = 1
_VERSION, _REPLY, _NEED_REPLY = 1, 4, 8
_PROTOCOL_FEATURES, _VERSION_1, _ACCESS_PLATFORM = 1 << 30, 1 << 32, 1 << 33
_REPLY_ACK, _BACKEND_REQ = 1 << 3, 1 << 5
_HEADER: Final = struct.Struct("<III")
_WORD: Final = struct.Struct("<Q")
_COUNT: Final = struct.Struct("<I")
_VRING_STATE: Final = struct.Struct("<II")
_REGION: Final = struct.Struct("<4Q")
_IOTLB: Final = struct.Struct("<QQQBB6x")
_LARGEST: Final = 4096
_MOST_FDS: Final = 8
_MOST_TOLD: Final = 1 << 16
"""Messages that nobody has looked at: a step of software causes a few hundred."""


@dataclass(frozen=True, slots=True)
class Told:
    """Hold an IOTLB message of QEMU; address is guest-physical, None for an invalidation."""

    kind: Iotlb
    iova: int
    size: int
    address: int | None
    permission: int


class VhostUser:
    """Serve one vhost-user device; `name` is its chardev's id."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.features = _PROTOCOL_FEATURES | _VERSION_1 | _ACCESS_PLATFORM
        self._cleanup = contextlib.ExitStack()
        self._told: list[Told] = []
        self._regions: list[tuple[int, ...]] = []
        self._requests: socket.socket | None = None
        self._problem = ""
        self._thread: threading.Thread | None = None

    def attach(self, connection: socket.socket) -> None:
        """Serve a QEMU that is about to start, from now on; the connection is taken over."""
        self.close()
        self._told, self._regions, self._problem = [], [], ""
        self._cleanup.callback(connection.close)
        self._connection = connection
        self._thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let QEMU go."""
        if self._thread is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._thread.join()
            self._thread = None
        self._cleanup.close()
        if self._requests is not None:
            self._requests.close()
            self._requests = None

    def told(self) -> list[Told]:
        """Return and forget what QEMU has said."""
        if self._problem:
            raise HarnessError(f"QEMU's vhost-user device {self.name}: {self._problem}")
        found, self._told = self._told, []
        return found

    def ask(self, iova: int, permission: Permission) -> bool:
        """Ask for a translation; say whether QEMU has one. It is among what is told then."""
        if self._requests is None:
            raise HarnessError(f"QEMU's vhost-user device {self.name} takes no requests")
        body = _IOTLB.pack(iova, 0, 0, permission, Iotlb.MISS)
        head = _HEADER.pack(_BACKEND_IOTLB_MSG, _VERSION | _NEED_REPLY, len(body))
        try:
            self._requests.sendall(head + body)
            answer = self._requests.recv(_HEADER.size + _WORD.size, socket.MSG_WAITALL)
        except TimeoutError as error:
            raise HungError(f"QEMU does not answer {self.name}: {error}") from error
        except OSError as error:
            raise HarnessError(f"QEMU does not answer {self.name}: {error}") from error
        if len(answer) != _HEADER.size + _WORD.size:
            raise HarnessError(f"QEMU closed the socket of {self.name}")
        kind, flags, size = _HEADER.unpack_from(answer)
        if (kind, flags, size) != (_BACKEND_IOTLB_MSG, _VERSION | _REPLY, _WORD.size):
            said = f"message {kind:#x}, flags {flags:#x}, {size} bytes"
            raise HarnessError(f"QEMU does not answer what {self.name} asked: {said}")
        (failed,) = _WORD.unpack_from(answer, _HEADER.size)
        return not failed

    # -- serving -----------------------------------------------------------------------------

    def _serve(self, connection: socket.socket) -> None:
        try:
            while self._message(connection):
                pass
        except (OSError, struct.error, ValueError) as error:
            self._problem = str(error)
            # QEMU would wait for an answer for ever.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _message(self, connection: socket.socket) -> bool:
        """Take one message and answer it; say whether there may be more."""
        head, fds, _, _ = socket.recv_fds(connection, _HEADER.size, _MOST_FDS)
        try:
            if not head:
                return False
            head += _exactly(connection, _HEADER.size - len(head))
            kind, flags, size = _HEADER.unpack(head)
            if size > _LARGEST:
                raise ValueError(f"a message has {size} bytes")
            body = _exactly(connection, size)
            answer = self._answer(kind, body, fds)
        finally:
            for fd in fds:
                os.close(fd)
        if answer is None and flags & _NEED_REPLY:
            answer = _WORD.pack(0)
        if answer is not None:
            connection.sendall(_HEADER.pack(kind, _VERSION | _REPLY, len(answer)) + answer)
        return True

    def _answer(self, kind: int, body: bytes, fds: list[int]) -> bytes | None:
        match kind:
            case Message.GET_FEATURES:
                return _WORD.pack(self.features)
            case Message.GET_PROTOCOL_FEATURES:
                return _WORD.pack(_REPLY_ACK | _BACKEND_REQ)
            case Message.GET_VRING_BASE:
                index, _ = _VRING_STATE.unpack(body)
                return _VRING_STATE.pack(index, 0)
            case Message.SET_MEM_TABLE:
                (count,) = _COUNT.unpack_from(body)
                if count > len(body) // _REGION.size:
                    raise ValueError(f"{len(body)} bytes are no {count} regions")
                at = range(8, 8 + count * _REGION.size, _REGION.size)
                self._regions = [_REGION.unpack_from(body, where) for where in at]
            case Message.SET_BACKEND_REQ_FD if fds:
                if self._requests is not None:
                    self._requests.close()
                    self._requests = None
                # It refuses what is no socket, which is closed with the others then.
                self._requests = socket.socket(fileno=fds[0])
                del fds[0]
                self._requests.settimeout(TIMEOUT)
            case Message.IOTLB_MSG:
                iova, size, place, permission, what = _IOTLB.unpack(body)
                address = self._physical(place) if what == Iotlb.UPDATE else None
                if len(self._told) == _MOST_TOLD:
                    raise ValueError(f"more than {_MOST_TOLD} messages came at once")
                self._told.append(Told(Iotlb(what), iova, size, address, permission))
            case _:
                pass  # rings and their notifiers: nobody uses them
        return None

    def _physical(self, place: int) -> int:
        """Return the guest's address of a place in QEMU's memory."""
        for start, size, where, _ in self._regions:
            if where <= place < where + size:
                return start + place - where
        raise ValueError(f"{place:#x} is in no memory region")


def _exactly(connection: socket.socket, size: int) -> bytes:
    """Read so many bytes."""
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ValueError("the socket was closed inside a message")
        data += piece
    return bytes(data)
