"""Say which answers of a plain QEMU show a finding, and let one be asked."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from decoders.events import (
    Access,
    AccessKind,
    Event,
    Fault,
    FaultRecord,
    RegRead,
    StatusWrite,
    Translation,
)
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.faults import FaultRecordRegister
from harness.differential.bare import Bare, Shown
from harness.differential.script import script
from harness.differential.situation import LOST
from harness.errors import HarnessError
from harness.export.program import MARK
from harness.findings import Finding
from harness.qemu import qtest
from harness.qemu.pc import RAM_SIZE
from harness.qemu.vtd import REGISTERS
from harness.signature import CRASH, of_crash

SECONDS: Final = 30.0
"""How long a script may take; it ends QEMU by itself."""

_RECORD: Final = layout(FaultRecordRegister)
_PPF, _PFO = (layout(vtd.FaultStatus)[name].mask for name in ("ppf", "pfo"))
_ALL: Final = (1 << 64) - 1
_OK: Final = re.compile(r"^OK(?: (0x[0-9a-f]+))?$", re.M)
_COMMAND: Final = re.compile(r"^(?:read|write|in|out)[bwlq] ", re.M)


@dataclass(frozen=True, slots=True)
class Check:
    """Say how an answer to a command shows a finding: by the bits of mask being those of seen.

    gone: by their being others.
    """

    line: str
    seen: int
    mask: int
    means: str
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Reproducer:
    """Hold a script for a plain QEMU, and what shows in its answers; no check: nothing can."""

    script: str
    checks: Sequence[Check]
    crash: str = ""


def reproducer(bare: Bare, shown: Shown, remarks: Sequence[str]) -> Reproducer:
    """Return what shows a plain QEMU what the sequence that was run last has shown."""
    found = shown.divergence
    if found is None:
        return Reproducer(script(bare.qemu, remarks), (), shown.signature.outcome)
    finding = next(
        (one for one in (found.finding, *found.beside) if any(_checks(bare, one, found.events))),
        found.finding,
    )
    checks = list(_checks(bare, finding, found.events))
    places = _places(finding, found.events)
    told = [f"{one.line.rstrip()}: {one.means}" for one in checks]
    behind = dict.fromkeys(one.line for one in checks if not _of_registers(one.line))
    marks = [qtest.store(place, 8, MARK) for place in places]
    return Reproducer(script(bare.qemu, [*remarks, *told], marks, list(behind)), checks)


def _event(finding: Finding, events: Sequence[Event]) -> Event | None:
    return events[finding.event] if 0 <= finding.event < len(events) else None


def _of_registers(line: str) -> bool:
    return int(line.split()[1], 0) >= REGISTERS


def _places(finding: Finding, events: Sequence[Event]) -> list[int]:
    """Return where a write led, and where it should have led, in RAM."""
    event, found = _event(finding, events), dict[int, None]()
    if not isinstance(event, Access) or event.kind is not AccessKind.WRITE:
        return []
    for outcome in (finding.observed, *finding.permitted[:1]):
        if isinstance(outcome, Translation) and outcome.address != LOST:
            place = outcome.address | event.iova & outcome.mask
            if place + 8 <= RAM_SIZE:
                found[place] = None
    return list(found)


def _checks(bare: Bare, finding: Finding, events: Sequence[Event]) -> Iterator[Check]:
    """Yield what has to be seen once more."""
    event, seen = _event(finding, events), finding.observed
    right = finding.permitted[0] if finding.permitted else None
    status, low, high = bare.qemu.after
    if isinstance(event, RegRead) and isinstance(seen, int) and isinstance(right, int):
        line = qtest.load(REGISTERS + event.offset, event.size)
        yield Check(line, seen, seen ^ right, f"{seen:#x}, not {right:#x}")
    elif isinstance(seen, FaultRecord):
        wanted = right if isinstance(right, FaultRecord) else None
        apart = seen.high ^ wanted.high if wanted else _RECORD["fr"].mask
        lower = seen.low ^ wanted.low if wanted else _ALL
        means = f"not {wanted.high:#x}" if wanted else "there should be no record"
        yield Check(high, seen.high | _RECORD["f"].mask, apart | _RECORD["f"].mask, means)
        if lower:
            yield Check(low, seen.low, lower, "the lower half of the record")
    elif isinstance(right, FaultRecord) and seen is None:
        yield Check(high, 0, _RECORD["f"].mask, "there should be a record")
    elif isinstance(seen, StatusWrite) and right is None:
        line = qtest.load(seen.address, 4)
        yield Check(line, seen.value, 0xFFFF_FFFF, "nothing should be written there")
    elif isinstance(right, StatusWrite) and seen is None:
        now = int.from_bytes(bare.qemu.memory(right.address, 4), "little")
        yield Check(qtest.load(right.address, 4), now, 0xFFFF_FFFF, f"should be {right.value:#x}")
    elif isinstance(seen, bytes) and isinstance(right, bytes):
        line = qtest.load(int.from_bytes(seen[:8], "big"), 8)
        values = [int.from_bytes(one[8:], "big") for one in (seen, right)]
        yield Check(line, values[0], values[0] ^ values[1], f"should be {values[1]:#x}")
    elif isinstance(seen, Fault):
        means = f"fault {seen.reason:#04x}"
        means += f", not {right.reason:#04x}" if isinstance(right, Fault) else ", not a translation"
        value = _RECORD["f"].mask | seen.reason << _RECORD["fr"].low
        yield Check(high, value, _RECORD["f"].mask | _RECORD["fr"].mask, means)
    elif isinstance(right, Fault) and (landed := _places(replace(finding, permitted=()), events)):
        for place in landed:
            means = f"should be {MARK:#x} still"
            yield Check(qtest.load(place, 8), MARK, _ALL, means, gone=True)
    elif isinstance(right, Fault):
        # Behind an earlier fault, which fills the one record, it should be an overflow, unless both
        # are of one source: then nothing shows.
        pending = _pending(finding, events)
        bit, word = (_PPF, "pending") if pending is None else (_PFO, "an overflow")
        if pending is None or pending != getattr(event, "sid", None):
            yield Check(status, 0, bit, f"fault {right.reason:#04x} should be {word}")
    elif isinstance(event, Access) and event.kind is AccessKind.WRITE:
        for place in _places(replace(finding, observed=None), events):
            yield Check(qtest.load(place, 8), MARK, _ALL, "the write should have led there")


def _pending(finding: Finding, events: Sequence[Event]) -> int | None:
    """Return the source of the fault that was pending before, None where none was."""
    before = events[: finding.event]
    reads = (one for one in reversed(before) if isinstance(one, RegRead))
    status = next((one.value or 0 for one in reads if one.offset == vtd.FSTS.offset), 0)
    if not status & _PPF:
        return None
    records = (one for one in reversed(before) if isinstance(one, FaultRecord))
    return next((_RECORD["sid"].get((one.low, one.high)) for one in records), None)


# -- plain QEMU -----------------------------------------------------------------------------------


def reproduces(path: Path, wanted: Reproducer, program: str) -> bool | None:
    """Run a script with a QEMU; say whether it shows the finding, None where nothing could show."""
    if not wanted.checks and not wanted.crash:
        return None
    try:
        done = subprocess.run(
            ["sh", str(path)], env={**os.environ, "QEMU": program}, capture_output=True,
            text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise HarnessError(f"{path}: takes longer than {SECONDS:.0f} s") from error
    if wanted.crash:
        made = of_crash(done.stderr)
        return made.kind == CRASH and made.outcome == wanted.crash
    lines = [line for line in wanted.script.splitlines() if _COMMAND.match(line)]
    answers = _OK.findall(done.stdout)
    if len(answers) != len(lines):
        return False
    return all(_shows(one, lines, answers) for one in wanted.checks)


def _shows(check: Check, lines: Sequence[str], answers: Sequence[str]) -> bool:
    """Say whether the last answers to a command show what they should not."""
    said = [
        answer for line, answer in zip(lines, answers, strict=True) if line == check.line.strip()
    ]
    alike = (int(one, 16) & check.mask == check.seen & check.mask for one in said[-2:] if one)
    return any(one != check.gone for one in alike)
