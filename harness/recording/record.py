"""Record a guest: run a QEMU command line with the recorder in it, and write what it says.

QEMU writes its trace lines and the plugin's lines into one pipe; they are decoded as they come
and stored. The machine is made paused, asked what it is over a control socket of its own (RAM
layout, capabilities), and then set going, so that the trace's header is complete before the
first event. The guest's console stays the user's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from decoders import DecodeError
from decoders.capture.qemu_log import QemuLogDecoder
from decoders.events import Access, Event, Fault, Gap, Translation
from harness.errors import HarnessError
from harness.recording import plugin as recorder_plugin
from harness.recording.command import Command, prepare
from harness.recording.session import Machine, Session, ask, signals
from harness.trace import Header, TraceWriter
from harness.trace.codec import storable

FLUSH_SECONDS = 1.0


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
        try:
            append(event)
        except DecodeError:
            append(storable(event))
        if type(event) is Access:
            if type(event.outcome) is Translation:
                summary.translations += 1
            elif type(event.outcome) is Fault:
                summary.faults += 1


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
        layout, base = command.layout, command.base
        for _ in range(2):
            session = Session(command, plugin, layout, base, reads, copies)
            try:
                pending = bytearray()
                with signals(session):
                    machine = ask(session, command, pending)
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


def _run(
    session: Session,
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
            _store(machine.endpoints, writer, summary)
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
            summary.status = session.process.wait()
            if summary.status < 0:  # perhaps in the middle of a command
                writer.append(Gap(f"QEMU was killed by signal {-summary.status}"))
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
        help="the machine, with a -device intel-iommu or -device virtio-iommu-pci in it",
    )


def run(args: argparse.Namespace) -> int:
    """Carry out ``dmarewind record``: 0 when QEMU ended well or was interrupted, else 2."""
    argv = list(args.command)
    if argv[:1] == ["--"]:
        del argv[0]
    quiet = bool(getattr(args, "quiet", False))
    if args.keep_log and Path(args.keep_log).resolve() == Path(args.output).resolve():
        raise HarnessError(f"{args.output}: the trace and the log need files of their own")
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
