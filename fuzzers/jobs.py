"""One fuzzing process that is started again when a crash ends it, and what several have done."""

from __future__ import annotations

import contextlib
import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from fuzzers.findings import Findings
from fuzzers.instrumented import with_hooks
from fuzzers.target import FuzzTarget
from fuzzers.worker import UNFIT
from harness.errors import HarnessError
from harness.qemu.process import die_with_parent
from harness.signature import Signature, of_crash

_PULSE: Final = re.compile(
    rb"^#(\d+)\s+\S+\s+cov: (\d+) ft: (\d+)(?: corp: (\d+))?.*?rss: (\d+)Mb", re.M
)
_DONE: Final = re.compile(rb"^(?:Done (\d+) runs|stat::number_of_executed_units:\s+(\d+))", re.M)
_NAMELESS: Final = re.compile(r"^\s*#\d+ 0x[0-9a-f]+ +\(.*\n", re.M)
_ARTIFACT: Final = re.compile(r"^(?:crash|timeout|oom|leak)-")
_REPORT_LIMIT: Final = 256 << 10
_LOG: Final = "log"
_WHOLE: Final = "SUMMARY: "
"""Stands at the end of what a sanitizer or libFuzzer says of a crash."""

_HANG_SECONDS: Final = 20
_RSS_LIMIT: Final = 2048
_GRACE: Final = 180.0
"""Seconds behind the deadline until a worker is ended: it ends by itself, counting from when it has
started, and looking up the names in a report takes long where the machine is busy."""

_END_GRACE: Final = 15.0
_SAME_CRASH_LIMIT: Final = 20
"""Crashes without anything new between them that end a job: it goes round in circles."""


def crash_in(report: str) -> tuple[Signature, str]:
    """Return the signature of what ended a process, and the part of its report that says it."""
    start = max(0, report.find("=================="), report.find("ERROR: "))
    # A frame without a name has an address, which is another one each time.
    return of_crash(_NAMELESS.sub("", report[start:])), report[start:]


def artifacts_in(scratch: Path) -> list[Path]:
    """Return whole inputs that ended processes: a full disk or a kill may cut one off."""
    found = []
    for path in scratch.iterdir():
        digest = path.name.partition("-")[2]
        if _ARTIFACT.match(path.name) and hashlib.sha1(path.read_bytes()).hexdigest() == digest:
            found.append(path)
    return found


def keep_crash(artifact: Path, report: str, target: FuzzTarget, findings: Findings) -> bool:
    """Keep an input that ended a process as the report says; say whether that is new.

    The artifact goes when all else is written. Where that fails, or a report says nothing because
    a full disk cut it off, the input is left as one to run again.
    """
    signature, said = crash_in(report)
    if _WHOLE in report:
        with contextlib.suppress(OSError):
            kept = findings.add(target, artifact.read_bytes(), signature, said)
            artifact.unlink()
            return kept is not None
    findings.leave(target, artifact)
    return True


def salvage_crashes(scratch: Path, target: FuzzTarget, findings: Findings) -> None:
    """Keep what ended a process that nobody looked at any more."""
    for artifact in artifacts_in(scratch):
        log = scratch / _LOG
        report = log.read_text(errors="replace") if log.exists() else ""
        keep_crash(artifact, report[-_REPORT_LIMIT:], target, findings)


class Job:
    """Fuzz in another process until a deadline, however often that crashes.

    A process that is bound ends when this one is killed.
    """

    def __init__(
        self,
        target: FuzzTarget,
        against: str,
        corpus: Path,
        findings: Findings,
        flags: Sequence[str],
        environment: Mapping[str, str],
        scratch: Path,
        *,
        bound: bool = False,
    ) -> None:
        self._bound = bound
        self._target, self._against, self._findings = target, against, findings
        self._corpus, self._flags = corpus, tuple(flags)
        self._environment = with_hooks(environment, target, against)
        self._scratch = scratch
        scratch.mkdir(parents=True)
        self._log = scratch / _LOG
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: IO[bytes] | None = None
        self._before = 0
        """Executions of processes that have ended."""
        self._same = 0
        self.coverage = self.features = 0
        self.crashes = 0
        self.complete = False
        """Whether a process has done all there is to do, and ended for that."""

    def start(self, deadline: float) -> None:
        """Start a process that runs until the deadline."""
        left = max(1, round(deadline - time.monotonic()))
        command = [
            *(sys.executable, "-m", "fuzzers.worker", self._target.name, self._against),
            *(str(self._findings.directory), f"-max_total_time={left}"),
            *(f"-artifact_prefix={self._scratch}/", f"-timeout={_HANG_SECONDS}"),
            *(f"-rss_limit_mb={_RSS_LIMIT}", "-reload=1", "-print_final_stats=1"),
            # Looking up the names of functions takes longer than reaching them.
            "-print_funcs=0",
            *(*self._flags, str(self._corpus)),
        ]
        self._stream = self._log.open("wb")
        self._process = subprocess.Popen(
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stream,
            preexec_fn=die_with_parent if self._bound else None,
        )

    @property
    def executions(self) -> int:
        """Return how many inputs have been run."""
        return self._before + self._now()

    def _now(self) -> int:
        tail = self._tail()
        pulses = list(_PULSE.finditer(tail))
        if pulses:
            self.coverage = max(self.coverage, int(pulses[-1][2]))
            self.features = max(self.features, int(pulses[-1][3]))
        done = list(_DONE.finditer(tail))
        if done:
            return max(int(one[1] or one[2]) for one in done)
        return int(pulses[-1][1]) if pulses else 0

    def _report(self) -> str:
        return self._tail().decode(errors="replace")

    def _tail(self) -> bytes:
        if not self._log.exists():
            return b""
        with self._log.open("rb") as stream:
            stream.seek(max(0, self._log.stat().st_size - _REPORT_LIMIT))
            return stream.read()

    def poll(self, deadline: float) -> bool:
        """Take care of a process that has ended; say whether there is one.

        Errors: HarnessError when fuzzing cannot begin, or goes round in circles.
        """
        if self._process is None:
            return False
        code = self._process.poll()
        if code is None:
            if time.monotonic() > deadline + _GRACE:
                self.stop()
                return False
            return True
        report = self._report()
        # The report goes when what it is about is kept.
        crashed = code != 0 and self._crashed(report)
        self._end()
        if code == 0:
            self.complete = True
            return False
        if code == UNFIT:
            raise HarnessError(report.strip().removeprefix("error: "))
        if not crashed:
            raise HarnessError(f"a worker ended with exit code {code}:\n{report[-4000:]}")
        if time.monotonic() >= deadline:
            return False
        self.start(deadline)
        return True

    def _crashed(self, report: str) -> bool:
        """Keep the inputs that a crash left behind; say whether there are any."""
        ended = artifacts_in(self._scratch)
        for path in ended:
            self.crashes += 1
            kept = keep_crash(path, report, self._target, self._findings)
            # An input that crashes must not end each process at its beginning.
            (self._corpus / path.name.partition("-")[2]).unlink(missing_ok=True)
            self._same = 0 if kept else self._same + 1
            if self._same >= _SAME_CRASH_LIMIT:
                raise HarnessError(f"fuzzing does not get past one crash: {crash_in(report)[0]}")
        return bool(ended)

    def _end(self) -> None:
        self._before += self._now()
        self._log.unlink(missing_ok=True)
        self._process = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_END_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._crashed(self._report())
        self._end()


@dataclass(frozen=True, slots=True)
class Totals:
    """Sum up what jobs have done."""

    seconds: float
    executions: int
    per_second: float
    coverage: int
    features: int
    crashes: int

    @classmethod
    def of(cls, jobs: Iterable[Job], seconds: float) -> Totals:
        """Add up."""
        known = list(jobs)
        executions = sum(job.executions for job in known)
        return cls(
            round(seconds, 1),
            executions,
            round(executions / max(seconds, 0.001), 1),
            max((job.coverage for job in known), default=0),
            max((job.features for job in known), default=0),
            sum(job.crashes for job in known),
        )

    def as_json(self) -> dict[str, float]:
        """Return plain values."""
        return asdict(self)

    def text(self) -> str:
        """Return one line."""
        return (
            f"{self.executions} executions, {self.per_second:.0f}/s, coverage {self.coverage}, "
            f"features {self.features}"
        )
