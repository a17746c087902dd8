"""The vhost-user backend against a frontend that may be anything."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from harness.errors import HarnessError
from harness.qemu.vhost_user import Iotlb, Message, Permission, Told, VhostUser

HEADER = struct.Struct("<III")
NEED_REPLY, VERSION, REPLY = 8, 1, 4
IOTLB = struct.Struct("<QQQBB6x")
REGION = struct.Struct("<II4Q")


class Frontend:
    """Speak as QEMU does."""

    def __init__(self, backend: VhostUser) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(5)
        backend.attach(theirs)

    def send(
        self, kind: int, body: bytes = b"", flags: int = VERSION, fds: tuple[int, ...] = ()
    ) -> None:
        socket.send_fds(self.socket, [HEADER.pack(kind, flags, len(body)) + body], list(fds))

    def answer(self) -> bytes:
        kind, flags, size = HEADER.unpack(self.socket.recv(HEADER.size, socket.MSG_WAITALL))
        assert flags == VERSION | REPLY, f"the answer to {kind} has flags {flags:#x}"
        return self.socket.recv(size, socket.MSG_WAITALL)

    def acknowledged(self, kind: int, body: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        self.send(kind, body, VERSION | NEED_REPLY, fds)
        assert self.answer() == bytes(8)

    def end(self) -> None:
        """Wait until the backend has given up."""
        with contextlib.suppress(ConnectionResetError):
            assert self.socket.recv(1) == b""


@pytest.fixture
def backend() -> Iterator[VhostUser]:
    made = VhostUser("test")
    yield made
    made.close()


@pytest.fixture
def frontend(backend: VhostUser) -> Iterator[Frontend]:
    made = Frontend(backend)
    yield made
    made.socket.close()


def test_it_offers_what_a_device_behind_an_iommu_needs(frontend: Frontend) -> None:
    frontend.send(Message.GET_FEATURES)
    (features,) = struct.unpack("<Q", frontend.answer())
    assert all(features >> bit & 1 for bit in (30, 32, 33)), f"{features:#x}"
    frontend.send(Message.GET_PROTOCOL_FEATURES)
    (features,) = struct.unpack("<Q", frontend.answer())
    assert all(features >> bit & 1 for bit in (3, 5)), f"{features:#x}"


def test_what_is_no_socket_is_refused_and_closed(frontend: Frontend) -> None:
    ours, theirs = os.pipe()
    frontend.send(Message.SET_BACKEND_REQ_FD, fds=(theirs,))
    os.close(theirs)
    frontend.end()
    with os.fdopen(ours, "rb") as pipe:
        os.set_blocking(ours, False)
        assert pipe.read() == b"", "somebody still has the other end"


def test_only_an_answer_is_taken_for_one(backend: VhostUser, frontend: Frontend) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frontend.acknowledged(Message.SET_BACKEND_REQ_FD, fds=(theirs.fileno(),))
        ours.sendall(bytes([0xFF]) * 20)
        with pytest.raises(HarnessError, match="does not answer what test asked"):
            backend.ask(0x1000, Permission.READ)


def test_messages_that_nobody_looks_at_end(
    backend: VhostUser, frontend: Frontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.qemu.vhost_user._MOST_TOLD", 3)
    for _ in range(4):
        frontend.send(Message.IOTLB_MSG, IOTLB.pack(0x1000, 0x1000, 0, 0, Iotlb.INVALIDATE))
    frontend.end()
    with pytest.raises(HarnessError, match="more than 3 messages"):
        backend.told()


def test_addresses_are_the_guests(backend: VhostUser, frontend: Frontend) -> None:
    frontend.acknowledged(
        Message.SET_MEM_TABLE, REGION.pack(1, 0, 0x10_0000, 0x30_0000, 0x7F00_0000_0000, 0)
    )
    update = IOTLB.pack(0x8000_0000, 0x1000, 0x7F00_0002_3000, Permission.BOTH, Iotlb.UPDATE)
    frontend.acknowledged(Message.IOTLB_MSG, update)
    frontend.acknowledged(Message.IOTLB_MSG, IOTLB.pack(0x1000, 0x2000, 0, 0, Iotlb.INVALIDATE))
    assert backend.told() == [
        Told(Iotlb.UPDATE, 0x8000_0000, 0x1000, 0x12_3000, Permission.BOTH),
        Told(Iotlb.INVALIDATE, 0x1000, 0x2000, None, 0),
    ]
    assert backend.told() == []


def test_files_that_come_are_closed(frontend: Frontend) -> None:
    here, there = os.pipe()
    frontend.acknowledged(Message.SET_MEM_TABLE, REGION.pack(1, 0, 0, 1, 0, 0), fds=(there,))
    os.close(there)
    assert os.read(here, 1) == b"", "somebody still holds the other end"
    os.close(here)


@pytest.mark.parametrize("failed", [0, 1])
def test_a_miss_is_asked_for_and_answered(
    backend: VhostUser, frontend: Frontend, failed: int
) -> None:
    ours, theirs = socket.socketpair()
    frontend.acknowledged(Message.SET_BACKEND_REQ_FD, fds=(theirs.fileno(),))
    theirs.close()
    asked: list[bytes] = []

    def answer() -> None:
        asked.append(ours.recv(HEADER.size + IOTLB.size, socket.MSG_WAITALL))
        ours.sendall(HEADER.pack(1, VERSION | REPLY, 8) + struct.pack("<Q", failed))

    helper = threading.Thread(target=answer)
    helper.start()
    assert backend.ask(0x1234_5000, Permission.WRITE) == (not failed)
    helper.join()
    assert IOTLB.unpack(asked[0][HEADER.size :])[::3] == (0x1234_5000, Permission.WRITE)
    ours.close()
    with pytest.raises(HarnessError, match="test"):
        backend.ask(0, Permission.READ)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (HEADER.pack(Message.IOTLB_MSG, VERSION, 1 << 20), "1048576 bytes"),
        (HEADER.pack(Message.IOTLB_MSG, VERSION, 4) + b"1234", "32 bytes"),
        (HEADER.pack(Message.IOTLB_MSG, VERSION, 32) + IOTLB.pack(0, 0, 0, 0, 9), "9 is not"),
        (HEADER.pack(Message.IOTLB_MSG, VERSION, 32) + IOTLB.pack(0, 0, 5, 3, 2), "0x5 is in no"),
        (HEADER.pack(Message.SET_MEM_TABLE, VERSION, 8) + struct.pack("<II", 9, 0), "regions"),
        (HEADER.pack(Message.GET_VRING_BASE, VERSION, 0), "8 bytes"),
    ],
)
def test_nonsense_is_reported(
    backend: VhostUser, frontend: Frontend, data: bytes, said: str
) -> None:
    frontend.socket.sendall(data)
    frontend.end()
    with pytest.raises(HarnessError, match=said):
        backend.told()


def test_a_message_that_is_cut_is_reported(backend: VhostUser, frontend: Frontend) -> None:
    frontend.socket.sendall(HEADER.pack(Message.IOTLB_MSG, VERSION, 32)[:-2])
    frontend.socket.shutdown(socket.SHUT_WR)
    frontend.end()
    with pytest.raises(HarnessError, match="closed inside"):
        backend.told()


def test_one_backend_serves_one_frontend_after_another(backend: VhostUser) -> None:
    for _ in range(3):
        frontend = Frontend(backend)
        frontend.send(Message.GET_FEATURES)
        assert frontend.answer()
        frontend.socket.close()
