"""Ask a plain QEMU what it answers to the commands of a reproducer."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, Final

from harness.errors import HarnessError
from harness.export.program import Command, Program
from harness.qemu.process import LINES_SHOWN, die_with_parent

SECONDS: Final = 30.0
"""Seconds that a QEMU may take for all commands."""
_BEGIN: Final = "endianness"
"""A command that every machine survives: without its answer none has started."""
_END: Final = "outb 0xcf9 0x6"
"""A reset of a q35 (ICH9 RST_CNT); with -no-reboot QEMU ends there."""
_VERSION: Final = re.compile(r"QEMU emulator version (\S+)")
_MOST_PRINTED: Final = 300
_MOST_SAID: Final = 1 << 24
"""Characters of what a QEMU printed that are told."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Say what a QEMU did: its version, and how it ended before the last command, if it did."""

    version: str
    died: str = ""

    @property
    def name(self) -> str:
        """Name it."""
        return f"QEMU {self.version}"


def ask(program: Program, qemu: str) -> Asked:
    """Run the commands on a QEMU, and put what it answers to each that reads beside it.

    Errors: HarnessError when it cannot be run, does not know a command or does not get to the end.
    """
    version = _version(qemu)
    shown = [n for n, command in enumerate(program.commands) if command.line]
    lines = [_BEGIN, *(program.commands[n].line for n in shown), _END]
    words = [qemu, *program.words(), "-no-reboot", "-qtest", "stdio", "-qtest-log", "/dev/null"]
    status, answers, printed = _run(words, lines)
    started, answers = bool(answers), answers[1:]
    for number, answer in zip(shown, answers, strict=False):
        command = program.commands[number]
        program.commands[number] = replace(command, answer=_value(qemu, command, answer))
    if len(answers) >= len(shown):
        return Asked(version)
    if status is None:
        raise HarnessError(f"{qemu}: {len(answers)} of {len(shown)} commands in {SECONDS:.0f} s")
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    if not started:
        raise HarnessError(f"{qemu} does not start ({how}): {printed}")
    at = program.commands[shown[len(answers)]].line
    return Asked(version, f"ended at {at} ({how}): {printed}")


def _run(words: Sequence[str], lines: Sequence[str]) -> tuple[int | None, list[str], str]:
    """Return the exit status, None when it had to be killed, the answers, and what it printed."""
    file = tempfile.TemporaryFile
    with file() as asked, file() as said, file() as printed:
        asked.write(("\n".join(lines) + "\n").encode())
        asked.seek(0)
        process = subprocess.Popen(
            words, stdin=asked, stdout=said, stderr=printed, preexec_fn=_bounded
        )
        status: int | None = None
        try:
            status = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        answers = [line for line in _read(said) if line.startswith(("OK", "FAIL", "ERR"))]
        last = " ".join(_read(printed)[-LINES_SHOWN:])
    return status, answers, last[-_MOST_PRINTED:]


def _bounded() -> None:
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST_SAID, _MOST_SAID))


def _read(stream: IO[bytes]) -> list[str]:
    stream.seek(0)
    return stream.read(_MOST_SAID).decode(errors="replace").strip().splitlines()


def _value(qemu: str, command: Command, answer: str) -> int | None:
    verdict, _, value = answer.partition(" ")
    if verdict != "OK":
        raise HarnessError(f"{qemu}: {command.line}: {answer}")
    return int(value, 16) if command.line.startswith("read") and value else None


def _version(qemu: str) -> str:
    try:
        done = subprocess.run(
            [qemu, "--version"], capture_output=True, text=True, errors="replace",
            timeout=SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HarnessError(f"cannot run {qemu}: {error}") from error
    found = _VERSION.search(done.stdout)
    if found is None:
        raise HarnessError(f"{qemu} --version does not say which QEMU it is")
    return found[1]
