"""The qtest client: many commands a round trip, and clear words when QEMU goes away."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.qemu import qtest
from harness.qemu.pc import PROGRAM, RAM_START
from harness.qemu.process import EndedError, Process
from harness.qemu.qtest import BATCH, Machine, running

STOPPED = [PROGRAM, "-nodefaults", "-display", "none", "-S", "-accel", "tcg", "-m", "16M"]


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (lambda: qtest.store(0x10, 4, 0xFFFF_FFFF), "writel 0x10 0xffffffff"),
        (lambda: qtest.load((1 << 64) - 1, 1), "readb 0xffffffffffffffff"),
        (lambda: qtest.out(0xCF8, 4, 0), "outl 0xcf8 0x0"),
        (lambda: qtest.into(0xFFFF, 2), "inw 0xffff"),
    ],
)
def test_commands(command: Callable[[], str], line: str) -> None:
    assert command() == line


@pytest.mark.parametrize(
    "command",
    [
        lambda: qtest.store(-1, 4, 0),
        lambda: qtest.store(1 << 64, 4, 0),
        lambda: qtest.store(0, 2, 0x10000),
        lambda: qtest.store(0, 8, -1),
        lambda: qtest.load(1 << 64, 8),
        lambda: qtest.out(0x10000, 1, 0),
        lambda: qtest.out(0, 1, 0x100),
        lambda: qtest.into(0x10000, 1),
    ],
)
def test_numbers_on_which_qemu_would_abort_are_refused(command: Callable[[], str]) -> None:
    with pytest.raises(ValueError, match="cannot"):
        command()


@contextmanager
def peer(answers: bytes) -> Iterator[Machine]:
    """Give a machine that is another end of a socket, which gives these answers and closes."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        with theirs:
            theirs.recv(1 << 16)
            theirs.sendall(answers)

    process = Process([sys.executable, "-c", "import sys; sys.exit('out of paper')"], [])
    thread = threading.Thread(target=answer)
    thread.start()
    with ours:
        yield Machine(ours, process)
    thread.join()
    process.close()


def test_interrupt_lines_are_no_answers() -> None:
    with peer(b"IRQ raise 3\nOK 0x1\nIRQ lower 3\nOK\nOK 0x2\n") as machine:
        answers = machine.commands(["readl 0x0", "writel 0x0 0x0", "readl 0x0"])
        assert answers == ["0x1", "", "0x2"]


def test_a_refusal_names_the_command() -> None:
    refusal = re.escape("'FAIL Unknown command' to 'b'")
    answers = b"OK\nFAIL Unknown command\nOK\n"
    with peer(answers) as machine, pytest.raises(HarnessError, match=refusal):
        machine.commands(["a", "b", "c"])


def test_the_end_of_qemu_is_told_with_its_last_words() -> None:
    last_words = r"ended \(exit status 1\); it printed: out of paper"
    with peer(b"OK\n") as machine, pytest.raises(EndedError, match=last_words):
        machine.commands(["a", "b"])


@pytest.mark.qemu
def test_a_batch_longer_than_the_socket_holds() -> None:
    with running(STOPPED) as machine:
        count = 3 * BATCH + 1
        machine.commands([qtest.store(RAM_START + 8 * n, 8, n) for n in range(count)])
        answers = machine.commands([qtest.load(RAM_START + 8 * n, 8) for n in range(count)])
        assert [int(answer, 16) for answer in answers] == list(range(count))
        assert machine.read(RAM_START + 8, 16) == bytes([1, *bytes(7), 2, *bytes(7)])
        machine.write(RAM_START, b"abc")
        assert machine.load(RAM_START, 4) == int.from_bytes(b"abc\0", "little")


@pytest.mark.qemu
def test_a_killed_qemu_is_named_with_the_signal() -> None:
    with running(STOPPED) as machine:
        machine.load(0, 4)
        machine.process.send_signal(signal.SIGABRT)
        with pytest.raises(EndedError, match=r"ended \(SIGABRT\)") as caught:
            for _ in range(1000):
                machine.load(0, 4)
        assert caught.value.status == -signal.SIGABRT


@pytest.mark.qemu
def test_qemu_ends_with_its_parent() -> None:
    code = f"""
import os, time
from harness.qemu.qtest import Session
session = Session({STOPPED!r})
session.machine.load(0, 4)
print(session.process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    for _ in range(200):
        try:
            os.kill(child, 0)
            if Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.05)
    pytest.fail("QEMU outlives the program that started it")
