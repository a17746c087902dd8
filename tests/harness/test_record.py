"""Recording real guests: what the trace holds, and that it survives whatever dies."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from decoders.events import (
    Access,
    Event,
    Fault,
    FaultRecord,
    Gap,
    InterruptRequest,
    RegRead,
    RegWrite,
    Release,
    Reset,
    Role,
    Snapshot,
    Translation,
)
from harness.errors import HarnessError
from harness.recording import plugin as recorder_plugin
from harness.recording.record import record
from harness.trace import TraceReader
from tests.harness.recording import Guest, Note, read, replayed

ROOT = Path(__file__).parents[2]
TARGETS = ["model", "native"]
LEGACY_ROLES = {Role.ROOT, Role.CONTEXT, Role.SECOND_STAGE, Role.QUEUE, Role.INTERRUPT_TABLE}
SCALABLE_ROLES = {
    Role.ROOT,
    Role.SCALABLE_CONTEXT,
    Role.PASID_DIRECTORY,
    Role.PASID_TABLE,
    Role.FIRST_STAGE,
    Role.QUEUE,
    Role.INTERRUPT_TABLE,
}
KILLS = 20
FULL_TRACE = 40_000
"""Bytes that the trace of a guest which is not killed has, or a little less."""
BARE = ("qemu-system-x86_64", "-machine", "q35", "-m", "64M", "-nodefaults", "-display", "none")
UNIT = ("-device", "intel-iommu")
MEMFD = ("-object", "memory-backend-memfd,id=r,size=1G")


def record_words(out: Path, argv: list[str], *options: str) -> list[str]:
    return [sys.executable, "-m", "harness", "record", *options, "-o", str(out), "--", *argv]


def start(out: Path, argv: list[str], *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        record_words(out, argv, *options),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_for_trace(process: subprocess.Popen[bytes], out: Path) -> None:
    """Wait until recording has begun."""

    def begun() -> bool:
        if process.poll() is not None:
            pytest.fail(f"record ended at once: {process.communicate()[0].decode()}")
        return out.exists() and out.stat().st_size > 0

    assert wait_until(begun), "record does not begin"


def child_of(process: int) -> int | None:
    """Return the process that another one has started, if it has."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return None
    return int(text.split()[0]) if text else None


def gone(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"  # a dead child that nobody has asked about


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def kind_of(event: Event) -> str | None:
    """Return what a comparison with a target is counted as, if it is one of these."""
    if isinstance(event, FaultRecord):
        return "fault records"
    if isinstance(event, InterruptRequest):
        return "interrupt requests" if event.outcome is not None else None
    if isinstance(event, Access):
        if isinstance(event.outcome, Translation):
            return "translations"
        return "faults" if isinstance(event.outcome, Fault) else None
    return None


def explained(path: Path, events: list[Event], name: str, record_property: Note) -> Counter[str]:
    """Replay a whole recording: every answer must follow from it. Return what was checked."""
    recorded = Counter(kind for event in events if (kind := kind_of(event)))
    results = replayed(path, TARGETS)
    assert [result.target for result in results] == TARGETS
    for result in results:
        counters = result.counters
        checked = Counter(
            {
                "translations": counters.translations,
                "faults": counters.faults,
                "fault records": counters.fault_records,
                "interrupt requests": counters.interrupt_requests,
            }
        )
        wrong = Counter(kind_of(events[finding.event]) for finding in result.findings)
        parts = [f"{kind} {n} checked, {n - wrong[kind]} explained" for kind, n in checked.items()]
        line = f"{name}, {result.target}: {len(events)} events: {'; '.join(parts)}"
        record_property("summary", f"{line}; {counters.divergences} findings")
        assert +checked == recorded and checked["translations"] > 0
        assert counters.events == len(events) and counters.agreed > checked.total()
        assert counters.divergences == 0, result.findings
    assert results[0].counters == results[1].counters
    return recorded


@pytest.mark.qemu
@pytest.mark.kernel
@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("legacy-strict", LEGACY_ROLES),
        ("legacy-device-tlb", LEGACY_ROLES),
        ("scalable-first-stage", SCALABLE_ROLES),
        ("faults", LEGACY_ROLES),
        ("interrupts", LEGACY_ROLES),
    ],
)
def test_what_a_unit_answers_follows_from_what_was_recorded(
    name: str,
    roles: set[Role],
    guest: Guest,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    record_property: Note,
) -> None:
    out, log = tmp_path / "out.trace", tmp_path / "log"
    summary = record(out, guest(name), keep_log=log)
    console = capfd.readouterr().out
    assert "guest: done" in console and "FAILED" not in console
    assert (summary.status, summary.unknown_lines, summary.malformed_lines) == (0, 0, 0)
    assert summary.problems == 0
    lines = Counter(line.split(b" ")[0] for line in log.read_bytes().splitlines())
    assert summary.translations == lines[b"vtd_dmar_translate"] > 3000
    assert summary.faults == lines[b"vtd_dmar_fault"]
    events, damage = read(out)
    assert damage is None and len(events) == summary.events
    assert {event.role for event in events if isinstance(event, Snapshot)} == roles
    writes = [event for event in events if isinstance(event, RegWrite)]
    assert len(writes) == lines[b"vtd_reg_write"]
    with TraceReader(out) as reader:
        header = reader.header
        assert reader.index is not None
    (unit,) = header.units
    assert (unit.base, unit.version) == (0xFED90000, 0x10)
    assert unit.capability and unit.extended_capability
    assert bool(unit.extended_capability >> 47 & 1) == (name == "scalable-first-stage")
    assert unit.host_address_width in (39, 48, 57)
    assert header.memory == ((0, 512 << 20),)
    assert header.dialect.startswith("qemu-")
    checked = explained(out, events, name, record_property)
    assert checked["interrupt requests"] > 50
    if name == "interrupts":
        assert checked["fault records"] > 10
    if name == "faults":
        assert checked["faults"] > 0 and checked["fault records"] > 0


@pytest.mark.qemu
@pytest.mark.kernel
def test_two_processors_and_register_reads(
    guest: Guest, tmp_path: Path, record_property: Note
) -> None:
    out = tmp_path / "out.trace"
    summary = record(out, guest("smp"), reads=True)
    assert (summary.status, summary.problems, summary.unknown_lines) == (0, 0, 0)
    events, _ = read(out)
    reads = [event for event in events if isinstance(event, RegRead)]
    assert reads and all(event.value is not None for event in reads)
    explained(out, events, "smp", record_property)


@pytest.mark.qemu
@pytest.mark.kernel
def test_a_reset_of_the_machine(
    guest: Guest,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    record_property: Note,
) -> None:
    out = tmp_path / "out.trace"
    summary = record(out, guest("reboot"))
    assert "guest: reboot ok" in capfd.readouterr().out
    assert (summary.status, summary.problems, summary.unknown_lines) == (0, 0, 0)
    events, _ = read(out)
    kinds = [type(event) for event in events]
    again = len(kinds) - kinds[::-1].index(Reset)
    # Every page that was watched before is given up, and tables are made anew.
    assert Snapshot in kinds[:again] and Release in kinds[:again] and Snapshot in kinds[again:]
    explained(out, events, "reboot", record_property)


@pytest.mark.qemu
@pytest.mark.kernel
@pytest.mark.parametrize("victim", ["record", "qemu"])
def test_a_trace_opens_and_replays_whatever_was_killed_and_when(
    victim: str, guest: Guest, tmp_path: Path, record_property: Note
) -> None:
    argv = guest("legacy-strict")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    sizes = []
    for number in range(KILLS):
        out = tmp_path / f"{number}.trace"
        process = start(out, argv, "-q")
        try:
            wait_for_trace(process, out)
            qemu = child_of(process.pid)
            assert qemu is not None
            # Spread over the guest's life, as far as the trace tells it, and then by chance.
            target = number * FULL_TRACE // KILLS
            wait_until(lambda: process.poll() is not None or out.stat().st_size >= target, 60)  # noqa: B023
            time.sleep(chance.uniform(0, 1.5))
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid if victim == "record" else qemu, signal.SIGKILL)
            output, _ = process.communicate(timeout=30)
            assert wait_until(functools.partial(gone, qemu)), "QEMU outlives record"
        finally:
            process.kill()
            process.wait()
        events, damage = read(out)
        sizes.append(len(events))
        if victim == "qemu":
            assert damage is None
            # The guest may have been faster.
            if process.returncode != 0 or b"guest: done" not in output:
                assert process.returncode == 2, output
                assert b"error: QEMU was killed by signal 9" in output
                assert events[-1] == Gap("QEMU was killed by signal 9")
        elif damage is not None:
            assert "file ends inside" in str(damage)
        results = replayed(out, TARGETS)
        assert [result.findings for result in results] == [[], []], (number, sizes[-1])
        assert results[0].counters == results[1].counters
    record_property(
        "summary",
        f"{victim} killed {KILLS} times: {min(sizes)} to {max(sizes)} events, no finding "
        f"on {' and '.join(TARGETS)}",
    )
    assert max(sizes) > 1000


@pytest.mark.qemu
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_finishes_the_trace(number: int, tmp_path: Path) -> None:
    out = tmp_path / "out.trace"
    process = start(out, [*BARE, *UNIT], "--json")
    try:
        wait_for_trace(process, out)
        time.sleep(0.5)
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, output
    summary = json.loads(output.splitlines()[-1])
    assert summary["interrupted"] and summary["events"] == len(read(out)[0])
    assert read(out)[1] is None


@pytest.mark.qemu
def test_a_machine_that_does_not_start_leaves_no_trace(tmp_path: Path) -> None:
    out = tmp_path / "out.trace"
    process = start(out, [*BARE, *UNIT, "-device", "no-such-device"])
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert b"no-such-device" in output and b"error: QEMU did not start" in output
    assert not out.exists()


@pytest.mark.qemu
@pytest.mark.parametrize(
    ("arguments", "memory"),
    [
        (["-m", "4G"], ((0, 2 << 30), (4 << 30, 2 << 30))),
        (["-m", "1G", "-machine", "max-ram-below-4g=512M"], ((0, 1 << 29), (4 << 30, 1 << 29))),
        (
            ["-m", "1G", "-machine", "memory-backend=r", *MEMFD],
            ((0, 1 << 30),),
        ),
    ],
)
def test_the_layout_of_ram_is_checked_on_the_machine(
    arguments: list[str], memory: tuple[tuple[int, int], ...], tmp_path: Path
) -> None:
    out, log = tmp_path / "out.trace", tmp_path / "log"
    process = start(out, [*BARE, *UNIT, *arguments], "--keep-log", str(log))
    try:
        wait_for_trace(process, out)
        time.sleep(2)  # the firmware runs, and the plugin compares its stores with RAM
        process.terminate()
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, output
    with TraceReader(out) as reader:
        assert reader.header.memory == memory
    assert b"dmr begin 1" in log.read_bytes() and b"dmr lost" not in log.read_bytes()


@pytest.mark.qemu
def test_ram_of_the_users_own_and_lines_with_times(tmp_path: Path) -> None:
    out, ram, log = (tmp_path / name for name in ("out.trace", "ram", "user.log"))
    backend = f"memory-backend-file,id=r,size=64M,share=on,mem-path={ram}"
    argv = [*BARE, *UNIT, "-object", backend, "-machine", "memory-backend=r"]
    argv += ["-msg", "timestamp=on", "-d", "cpu_reset", "-D", str(log)]
    process = start(out, argv, "--json")
    try:
        wait_for_trace(process, out)
        time.sleep(1)
        process.terminate()
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, output
    text = log.read_bytes()
    assert b"CPU Reset" in text and b"dmr begin 1" in text and b"dmr lost" not in text
    summary = json.loads(output.splitlines()[-1])
    assert summary["lines"]["dmr begin"] == 1 and summary["unknown_lines"] > 0
    assert not any(isinstance(event, RegRead) for event in read(out)[0]), "record's own reads"


@pytest.mark.qemu
def test_a_plugin_that_qemu_cannot_load_is_an_error(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin.so"
    plugin.write_bytes(b"not a library")
    with pytest.raises(HarnessError, match="did not start"):
        record(tmp_path / "out.trace", [*BARE, *UNIT], plugin=plugin)


def test_a_missing_program_is_an_error(tmp_path: Path) -> None:
    if recorder_plugin._compiler() is None:
        pytest.skip("no C compiler (cc, gcc or clang)")
    with pytest.raises(HarnessError, match="install qemu-system-x86"):
        record(tmp_path / "out.trace", ["/nonexistent/qemu-system-x86_64", *UNIT])


def test_the_plugin_is_built_once_and_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = recorder_plugin._compiler()
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang)")
    plugin = recorder_plugin.build(compiler, tmp_path)
    before = plugin.stat().st_mtime_ns
    assert recorder_plugin.build(compiler, tmp_path) == plugin
    assert plugin.stat().st_mtime_ns == before
    monkeypatch.setenv(recorder_plugin.VARIABLE, str(plugin))
    assert recorder_plugin.find() == plugin
    monkeypatch.setenv(recorder_plugin.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(HarnessError, match="which is no file"):
        recorder_plugin.find()
    with pytest.raises(HarnessError, match="cannot build"):
        recorder_plugin.build(shutil.which("false") or "false", tmp_path / "other")
