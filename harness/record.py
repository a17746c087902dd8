"""Record a guest: run a QEMU command line with the recorder in it, and write what it says.

QEMU writes its trace lines and the plugin's lines into one pipe; they are decoded as they come
and stored. The machine is made paused, asked what it is over a control socket of its own (RAM
layout, capabilities), and then set going, so that the trace's header is complete before the
first event. The guest's console stays the user's.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import platform
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import IO, Any

from tqdm import tqdm

from decoders.capture.qemu_log import QemuLogDecoder
from decoders.events import Access, Event, Fault, Translation
from harness import recorder_plugin
from harness.errors import HarnessError
from harness.qemu_command import (
    Command,
    Layout,
    Recorder,
    layout_of_memory_tree,
    prepare,
    unit_base_of_memory_tree,
)
from harness.qmp import Qmp, QmpError
from harness.trace import Header, TraceWriter, UnitInfo

UNIT_BASE = 0xFED9_0000
CHUNK = 1 << 20
FLUSH_SECONDS = 1.0
QMP_SECONDS = 20.0
PATIENCE_SECONDS = 10.0
"""How long QEMU may take to end after it was asked to."""

_RECORDED = re.compile(rb"(?:\S{1,40}[: ])?(?:vtd_\w+ |dmr )")
_REGISTER_READ = re.compile(rb"(?:\S{1,40}[: ])?vtd_reg_read ")


@dataclass
class Summary:
    """Count what a recording holds; `status` is QEMU's exit status (negative: its signal)."""

    path: str
    events: int = 0
    translations: int = 0
    faults: int = 0
    unknown_lines: int = 0
    malformed_lines: int = 0
    problems: int = 0
    log_bytes: int = 0
    trace_bytes: int = 0
    seconds: float = 0.0
    status: int = 0
    interrupted: bool = False
    lines: dict[str, int] = field(default_factory=dict)

    def text(self) -> str:
        """Return one line for a person."""
        parts = [
            f"{self.events} events",
            f"{self.translations} translations",
            f"{self.faults} faults",
            f"{self.trace_bytes} bytes",
            f"{self.seconds:.1f} s",
        ]
        if self.unknown_lines + self.malformed_lines:
            parts.append(f"{self.unknown_lines + self.malformed_lines} unknown lines")
        if self.problems:
            parts.append(f"{self.problems} contradictions between unit and recorder")
        return f"{self.path}: {', '.join(parts)}"


@dataclass(frozen=True)
class Machine:
    """Hold what a paused machine says about itself."""

    version: tuple[int, ...]
    package: str
    layout: Layout
    unit: UnitInfo


class _EndedError(Exception):
    """QEMU ended before it could be asked."""


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies (runs between fork and exec)."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class _Session:
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
                    preexec_fn=_die_with_parent,
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
        if base is None:
            raise HarnessError(
                "QEMU made no intel-iommu unit; add -device intel-iommu before other devices"
            )
        capability = qmp.read_physical(base + 0x08, 8) or 0
        unit = UnitInfo(
            base=base,
            version=qmp.read_physical(base, 4) or 0,
            capability=capability,
            extended_capability=qmp.read_physical(base + 0x10, 8) or 0,
            # QEMU's unit takes as many bits out as it takes in (CAP.MGAW).
            host_address_width=(capability >> 16 & 0x3F) + 1,
        )
        self._drain(pending)
        # Our own reads are no event of the guest, which has not run yet.
        kept = [line for line in pending.split(b"\n") if not _REGISTER_READ.match(line)]
        pending[:] = b"\n".join(kept)
        layout = layout_of_memory_tree(tree, command.ram_backend)
        return Machine(qmp.version, qmp.package, layout or command.layout, unit)

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


def _header(machine: Machine, argv: Sequence[str]) -> Header:
    major, minor, *_ = (*machine.version, 0, 0)
    return Header(
        dialect=f"qemu-{major}.{minor}",
        units=(machine.unit,),
        memory=tuple((piece.address, piece.length) for piece in machine.layout),
        source={
            "tool": "dmarewind record",
            "tool_version": _version(),
            "qemu": ".".join(map(str, machine.version)),
            "qemu_package": machine.package,
            "host": f"{platform.system()} {platform.machine()}",
            "command": shlex.join(argv),
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _version() -> str:
    try:
        return metadata.version("dmarewind")
    except metadata.PackageNotFoundError:
        return "0"


class _Progress:
    """Show how far a recording has come."""

    def __init__(self, shown: bool) -> None:
        self._bar: Any = tqdm(unit=" events", file=sys.stderr, disable=not shown, mininterval=0.5)

    def update(self, summary: Summary, events: int) -> None:
        if not self._bar.disable:
            self._bar.set_postfix(
                translations=summary.translations,
                faults=summary.faults,
                unknown=summary.unknown_lines,
                refresh=False,
            )
            self._bar.update(events - self._bar.n)

    def close(self) -> None:
        self._bar.close()


def _store(events: Iterable[Event], writer: TraceWriter, summary: Summary) -> None:
    append = writer.append
    for event in events:
        append(event)
        if type(event) is Access:
            if type(event.outcome) is Translation:
                summary.translations += 1
            elif type(event.outcome) is Fault:
                summary.faults += 1


@contextlib.contextmanager
def _signals(session: _Session) -> Iterator[None]:
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


def record(
    out_path: str | os.PathLike[str],
    qemu_argv: Sequence[str],
    *,
    progress: bool = False,
    reads: bool = False,
    keep_log: str | os.PathLike[str] | None = None,
    plugin: Path | None = None,
) -> Summary:
    """Run a QEMU command line until it ends and write what its unit was told, and answered.

    keep_log names a file for a copy of the lines QEMU logged. The trace is complete up to the
    last second whatever happens to this process, and to the last event when QEMU ends or dies.
    Errors: HarnessError when the command line cannot be recorded or QEMU does not start.
    """
    command = prepare(qemu_argv)
    plugin = plugin or recorder_plugin.find()
    with contextlib.ExitStack() as stack:
        copies = [
            stack.enter_context(Path(name).open("wb"))
            for name in (keep_log, command.user_log)
            if name is not None
        ]
        layout, base = command.layout, UNIT_BASE
        for _ in range(2):
            session = _Session(command, plugin, layout, base, reads, copies)
            try:
                pending = bytearray()
                with _signals(session):
                    machine = _ask(session, command, pending)
                    if (machine.layout, machine.unit.base) == (layout, base):
                        return _run(
                            session, command, machine, pending, out_path, qemu_argv, progress
                        )
                # Not where it was expected: the guest has not run yet, so begin again.
                layout, base = machine.layout, machine.unit.base
            finally:
                session.close()
            for copy in copies:
                copy.seek(0)
                copy.truncate()
        raise HarnessError("the machine's RAM lies elsewhere each time QEMU is started")


def _ask(session: _Session, command: Command, pending: bytearray) -> Machine:
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

    def __init__(self, session: _Session) -> None:
        super().__init__(
            f"QEMU did not start (exit status {session.process.returncode}); its message is above"
        )


def _run(
    session: _Session,
    command: Command,
    machine: Machine,
    pending: bytearray,
    out_path: str | os.PathLike[str],
    argv: Sequence[str],
    progress: bool,
) -> Summary:
    decoder = QemuLogDecoder()
    summary = Summary(os.fspath(out_path))
    bar = _Progress(progress and not command.uses_terminal)
    start = flushed = time.monotonic()
    try:
        with TraceWriter.create(out_path, _header(machine, argv)) as writer:
            _store(decoder.feed(bytes(pending), 0), writer, summary)
            if not command.paused:
                session.proceed()
            while (chunk := session.read(FLUSH_SECONDS)) is not None:
                now = time.monotonic()
                if chunk:
                    _store(decoder.feed(chunk, int((now - start) * 1e6)), writer, summary)
                if now - flushed >= FLUSH_SECONDS:
                    writer.flush()
                    flushed = now
                    summary.unknown_lines = decoder.unknown.total()
                    bar.update(summary, writer.events)
            _store(decoder.finish(), writer, summary)
            summary.events = writer.events
    finally:
        bar.close()
    summary.seconds = round(time.monotonic() - start, 3)
    summary.unknown_lines = decoder.unknown.total()
    summary.malformed_lines = decoder.malformed.total()
    summary.problems = decoder.problem_count
    summary.lines = dict(sorted(Counter(decoder.counts).items()))
    summary.log_bytes = session.log_bytes
    summary.trace_bytes = Path(out_path).stat().st_size
    summary.status = session.process.wait()
    summary.interrupted = session.signals > 0
    return summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``dmarewind record`` to a parser."""
    parser.add_argument("-o", "--output", required=True, metavar="OUT.trace", help="file to write")
    parser.add_argument(
        "--reads",
        action="store_true",
        help="also record what register reads return (the guest runs slower)",
    )
    parser.add_argument(
        "--keep-log", metavar="FILE", help="also keep the lines QEMU logged, as text"
    )
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="-- qemu-system-x86_64 ...",
        help="the command line of the machine, with a -device intel-iommu in it",
    )


def run(args: argparse.Namespace) -> int:
    """Carry out ``dmarewind record``: 0 when QEMU ended well or was interrupted, else 2."""
    argv = list(args.command)
    if argv[:1] == ["--"]:
        del argv[0]
    quiet = bool(getattr(args, "quiet", False))
    summary = record(
        args.output,
        argv,
        progress=not quiet and sys.stderr.isatty(),
        reads=args.reads,
        keep_log=args.keep_log,
    )
    if getattr(args, "json", False):
        print(json.dumps(asdict(summary), sort_keys=True))
    elif not quiet:
        print(summary.text())
    if summary.status and not summary.interrupted:
        how = (
            f"was killed by signal {-summary.status}"
            if summary.status < 0
            else f"ended with status {summary.status}"
        )
        print(f"error: QEMU {how}; {summary.path} holds what happened until then", file=sys.stderr)
        return 2
    return 0
