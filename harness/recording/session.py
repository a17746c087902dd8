"""Run one recorded QEMU: its process, the pipe it logs into, its control socket, its RAM."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from decoders.events import Endpoint
from harness.errors import HarnessError
from harness.qemu.process import die_with_parent
from harness.qemu.qmp import Qmp, QmpError
from harness.recording.command import (
    Command,
    Layout,
    Recorder,
    layout_of_memory_tree,
    unit_base_of_memory_tree,
)
from harness.recording.unit import virtio_device, virtio_endpoints, virtio_unit, vtd_unit
from harness.trace import UnitInfo

CHUNK = 1 << 20
QMP_SECONDS = 20.0
PATIENCE_SECONDS = 10.0
"""How long QEMU may take to end after it was asked to."""

_RECORDED = re.compile(rb"(?:\S{1,40}[: ])?(?:vtd_\w+ |virtio_iommu_\w+ |dmr )")
_REGISTER_READ = re.compile(rb"(?:\S{1,40}[: ])?vtd_reg_read ")


@dataclass(frozen=True)
class Machine:
    """Hold what a paused machine says about itself; endpoints are those of a virtio-iommu."""

    version: tuple[int, ...]
    package: str
    layout: Layout
    unit: UnitInfo
    endpoints: tuple[Endpoint, ...] = ()


class _EndedError(Exception):
    """QEMU ended before it could be asked."""


class Session:
    """Own one QEMU process and the pipe, socket and memory it shares with us."""

    def __init__(
        self,
        command: Command,
        plugin: Path,
        layout: Layout,
        base: int,
        reads: bool,
        copies: Sequence[IO[bytes]],
    ) -> None:
        self._cleanup = contextlib.ExitStack()
        self._copies = copies
        self._filter = bool(command.user_items) and command.user_log is None
        self._other = bytearray()
        self.log_bytes = 0
        self.signals = 0
        try:
            self._start(command, plugin, layout, base, reads)
        except BaseException:
            self._cleanup.close()
            raise

    def _start(
        self, command: Command, plugin: Path, layout: Layout, base: int, reads: bool
    ) -> None:
        inherited = []
        ram = command.ram_path or ""
        if command.own_ram:
            memory = os.memfd_create("dmarewind-ram", os.MFD_CLOEXEC)
            self._cleanup.callback(os.close, memory)
            os.ftruncate(memory, command.ram_size)
            inherited.append(memory)
            ram = f"/dev/fd/{memory}"
        self.pipe, write_end = os.pipe()
        self._cleanup.callback(os.close, self.pipe)
        with contextlib.ExitStack() as ours_no_more:
            ours_no_more.callback(os.close, write_end)
            # Fewer switches between QEMU and us; a refusal (pipe-user-pages-soft) does no harm.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, CHUNK)
            os.set_blocking(self.pipe, False)
            self.control, theirs = socket.socketpair()
            self._cleanup.callback(self.control.close)
            ours_no_more.callback(theirs.close)
            inherited += [write_end, theirs.fileno()]
            recorder = Recorder(plugin, ram, f"/dev/fd/{write_end}", theirs.fileno(), reads)
            try:
                self.process = subprocess.Popen(
                    command.words(recorder, layout, base),
                    pass_fds=inherited,
                    preexec_fn=die_with_parent,
                )
            except OSError as error:
                raise HarnessError(
                    f"cannot run {command.program}: {error.strerror}; install qemu-system-x86 "
                    "(QEMU 9.1 or newer)"
                ) from error

    def read(self, timeout: float) -> bytes | None:
        """Return what QEMU logged; b"" when nothing came in time, None when all is read."""
        ended = self.process.poll() is not None
        ready, _, _ = select.select([self.pipe], [], [], 0 if ended else timeout)
        chunk = b""
        if ready:
            with contextlib.suppress(BlockingIOError):
                chunk = os.read(self.pipe, CHUNK)
                if not chunk:  # all writers are gone
                    self.wait()
                    return None
        if chunk:
            self.log_bytes += len(chunk)
            for copy in self._copies:
                copy.write(chunk)
            if self._filter:
                self._pass_on(chunk)
        elif ended:
            # A process that QEMU left behind may hold the pipe open: it has nothing to say.
            return None
        return chunk

    def _pass_on(self, chunk: bytes) -> None:
        """Print what the user asked QEMU to log where it would have gone: on stderr."""
        self._other += chunk
        *lines, rest = self._other.split(b"\n")
        self._other = bytearray(rest)
        for line in lines:
            if not _RECORDED.match(line):
                sys.stderr.buffer.write(line + b"\n")
        sys.stderr.buffer.flush()

    def wait(self) -> None:
        """Wait for QEMU to end, but not for ever."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE_SECONDS)

    def interrupt(self, _number: int, _frame: FrameType | None) -> None:
        """Pass a signal on: two times QEMU is asked to end, then it is made to.

        A terminal sends SIGINT to QEMU too; being asked twice does not trouble it.
        """
        self.signals += 1
        self.process.send_signal(signal.SIGTERM if self.signals <= 2 else signal.SIGKILL)

    def question(self, command: Command, pending: bytearray) -> Machine:
        """Ask the paused machine what it is; what it logs meanwhile is added to pending."""

        def idle() -> None:
            chunk = self.read(0)
            if chunk is None or self.process.poll() is not None:
                raise _EndedError
            pending.extend(chunk)

        qmp = Qmp(self.control, idle, QMP_SECONDS)
        tree = qmp.monitor("info mtree -f")
        base = unit_base_of_memory_tree(tree)
        device = virtio_device(qmp) if base is None else None
        endpoints: tuple[Endpoint, ...] = ()
        if base is not None:
            unit = vtd_unit(qmp, base)
            self._drain(pending)
        elif device is not None:
            endpoints = virtio_endpoints(qmp, device)
            self._drain(pending)
            unit = virtio_unit(qmp, device, bytes(pending))
        else:
            raise HarnessError(
                "QEMU made no unit that can be recorded; add -device intel-iommu or -device "
                "virtio-iommu-pci before other devices"
            )
        # Our own reads are no event of the guest, which has not run yet.
        kept = [line for line in pending.split(b"\n") if not _REGISTER_READ.match(line)]
        pending[:] = b"\n".join(kept)
        layout = layout_of_memory_tree(tree, command.ram_backend)
        return Machine(qmp.version, qmp.package, layout or command.layout, unit, endpoints)

    def _drain(self, pending: bytearray) -> None:
        while chunk := self.read(0):
            pending.extend(chunk)

    def proceed(self) -> None:
        """Let the machine run, and let go of its control socket."""
        # The answer is of no interest: QEMU takes the command before it sees the end of the socket.
        self.control.settimeout(None)
        with contextlib.suppress(OSError):
            self.control.sendall(b'{"execute":"cont"}\n')
            # Wait until it was taken, or QEMU may drop it together with the socket.
            buffer = b""
            while b'"return"' not in buffer and (piece := self.control.recv(4096)):
                buffer = (buffer + piece)[-4096:]

    def close(self) -> None:
        """End QEMU if it still runs and free everything."""
        if self.process.poll() is None:
            self.process.terminate()
            self.wait()
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        self._cleanup.close()


@contextlib.contextmanager
def signals(session: Session) -> Iterator[None]:
    """Pass the signals that ask a program to end on to the machine."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python gives signals to the main thread only
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, session.interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ask(session: Session, command: Command, pending: bytearray) -> Machine:
    """Ask a machine what it is; HarnessError when QEMU ended instead of answering."""
    try:
        return session.question(command, pending)
    except QmpError as error:
        session.wait()  # the socket closes a little before the process is gone
        if session.process.poll() is None:
            raise
        raise _StartupError(session) from error
    except _EndedError:
        raise _StartupError(session) from None


class _StartupError(HarnessError):
    """Report that QEMU ended before the guest ran; it has said why on stderr itself."""

    def __init__(self, session: Session) -> None:
        super().__init__(
            f"QEMU did not start (exit status {session.process.returncode}); its message is above"
        )
