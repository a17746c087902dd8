"""Recording guests with a virtio-iommu: every request is there, and explains every access."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from decoders.events import (
    Access,
    ConfigSpace,
    DeviceReset,
    Endpoint,
    Event,
    Fault,
    FaultReport,
    Features,
    Gap,
    RegWrite,
    Request,
    Reset,
    Translation,
)
from decoders.virtio_iommu.constants import RequestType
from harness.recording.record import Summary, record
from harness.trace import TraceReader
from tests.harness.recording import Guest, Note, read, replayed
from tests.harness.test_record import child_of, gone, start, wait_for_trace, wait_until

TARGETS = ["model", "native"]
BLOCK, NIC, EDU = 0x18, 0x20, 0x28
KILLS = 3
FULL_TRACE = 30_000
"""Bytes that the trace of a guest which is not killed has, or a little less."""
MSI = ((1, 0xFEE0_0000, 0xFEEF_FFFF),)


def recorded(
    name: str, argv: list[str], tmp_path: Path, record_property: Note
) -> tuple[Summary, list[Event], Counter[str]]:
    """Record a guest, replay what it did; return also the lines of the log, counted by name."""
    out, log = tmp_path / "out.trace", tmp_path / "log"
    start = time.monotonic()
    summary = record(out, argv, keep_log=log)
    seconds = time.monotonic() - start
    assert (summary.status, summary.unknown_lines, summary.malformed_lines) == (0, 0, 0)
    assert summary.problems == 0
    events, damage = read(out)
    assert damage is None and len(events) == summary.events
    requests = [event for event in events if isinstance(event, Request)]
    assert len(requests) == summary.lines["dmr vreq"] > 0
    assert all(event.answer is not None for event in requests)
    results = replayed(out, TARGETS)
    assert [result.target for result in results] == TARGETS
    for result in results:
        assert not result.findings, result.findings[:3]
        assert result.counters.events == len(events)
        assert result.counters.translations == summary.translations
        assert result.counters.faults == summary.faults
    record_property(
        "summary",
        f"{name}: {len(events)} events, {len(requests)} requests, {summary.translations} "
        f"translations and {summary.faults} faults explained by {' and '.join(TARGETS)}; "
        f"{summary.trace_bytes} bytes of {summary.log_bytes} logged, {seconds:.1f} s",
    )
    return summary, events, Counter(summary.lines)


def of_kind(events: list[Event]) -> Counter[RequestType]:
    return Counter(RequestType(event.data[0]) for event in events if isinstance(event, Request))


def check_description(summary: Summary, events: list[Event]) -> None:
    """Check that the machine is described, and all of it before the guest runs."""
    with TraceReader(summary.path) as reader:
        (unit,) = reader.header.units
    assert unit.kind == "virtio-iommu" and len(unit.config) == 40
    first = next(event for event in events if isinstance(event, ConfigSpace))
    assert first.data == unit.config
    offered, accepted = [event for event in events if isinstance(event, Features)]
    assert offered == Features(unit.capability, 0)
    assert accepted.offered == unit.capability and accepted.accepted & ~unit.capability == 0
    assert accepted.accepted & 0x77 == 0x77
    endpoints = [event for event in events if isinstance(event, Endpoint)]
    assert {event.endpoint for event in endpoints} >= {0, BLOCK, NIC}
    assert {event.regions for event in endpoints} == {MSI}
    kinds = [type(event) for event in events]
    last = len(kinds) - kinds[::-1].index(Endpoint)
    assert Request not in kinds[:last] and Reset not in kinds[last:]


@pytest.mark.qemu
@pytest.mark.kernel
@pytest.mark.parametrize("name", ["virtio-iommu", "virtio-iommu-lazy"])
def test_every_line_of_a_request_has_its_content(
    name: str,
    guest: Guest,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    record_property: Note,
) -> None:
    summary, events, lines = recorded(name, guest(name), tmp_path, record_property)
    check_description(summary, events)
    console = capfd.readouterr().out
    assert "guest: done" in console and "FAILED" not in console
    kinds = of_kind(events)
    for kind in (RequestType.ATTACH, RequestType.MAP, RequestType.UNMAP):
        assert kinds[kind] == lines[f"virtio_iommu_{kind.name.lower()}"] > 0
    assert kinds[RequestType.PROBE] == lines["virtio_iommu_fill_resv_property"]
    accesses = [event for event in events if isinstance(event, Access)]
    assert len(accesses) == lines["virtio_iommu_translate"] > 3000
    passed = [event for event in accesses if event.iova >> 20 == 0xFEE]
    assert passed and len(accesses) - len(passed) == lines["virtio_iommu_translate_out"]
    assert all(event.outcome == Translation(event.iova, 0) for event in passed)


@pytest.mark.qemu
@pytest.mark.kernel
def test_domains_that_bypass_and_a_switch(
    guest: Guest, tmp_path: Path, record_property: Note
) -> None:
    argv = guest("virtio-iommu-bypass")
    _, events, _ = recorded("virtio-iommu-bypass", argv, tmp_path, record_property)
    attached = {
        event.data[12]
        for event in events
        if isinstance(event, Request) and event.data[0] == RequestType.ATTACH
    }
    assert attached == {0, 1}
    written = [event.value for event in events if isinstance(event, RegWrite)]
    assert written == [0, 1, 0, 1]


@pytest.mark.qemu
@pytest.mark.kernel
def test_faults_are_reported_behind_the_access(
    guest: Guest, tmp_path: Path, record_property: Note
) -> None:
    argv = guest("virtio-iommu-faults")
    _, events, lines = recorded("virtio-iommu-faults", argv, tmp_path, record_property)
    assert of_kind(events)[RequestType.DETACH] == lines["virtio_iommu_detach"] > 0
    reports = 0
    for before, event in itertools.pairwise(events):
        if isinstance(event, FaultReport):
            reports += 1
            assert isinstance(before, Access) and before.outcome == Fault(event.reason)
            assert (before.sid, before.iova) == (event.endpoint, event.address)
    assert reports == lines["virtio_iommu_report_fault"] > 0
    reasons = {event.reason for event in events if isinstance(event, FaultReport)}
    assert reasons == {0, 2}


@pytest.mark.qemu
@pytest.mark.kernel
def test_a_reset_of_the_machine_forgets_domains(
    guest: Guest, tmp_path: Path, record_property: Note
) -> None:
    argv = guest("virtio-iommu-reboot")
    _, events, _ = recorded("virtio-iommu-reboot", argv, tmp_path, record_property)
    kinds = [type(event) for event in events]
    middle = kinds.index(Reset, kinds.index(Request))
    assert Request in kinds[middle:] and DeviceReset in kinds[middle:]
    attaches = [
        index
        for index, event in enumerate(events)
        if isinstance(event, Request) and event.data[0] == RequestType.ATTACH
    ]
    assert attaches[0] < middle < attaches[-1]


@pytest.mark.qemu
@pytest.mark.kernel
@pytest.mark.parametrize("victim", ["record", "qemu"])
def test_what_was_recorded_until_a_kill_replays(
    victim: str, guest: Guest, tmp_path: Path, record_property: Note
) -> None:
    argv = guest("virtio-iommu")
    sizes = []
    for number in range(KILLS):
        out = tmp_path / f"{number}.trace"
        process = start(out, argv, "-q")
        try:
            wait_for_trace(process, out)
            qemu = child_of(process.pid)
            assert qemu is not None
            target = FULL_TRACE * (number + 1) // (KILLS + 1)
            wait_until(lambda: process.poll() is not None or out.stat().st_size >= target, 60)  # noqa: B023
            ended = False
            try:
                os.kill(process.pid if victim == "record" else qemu, signal.SIGKILL)
            except ProcessLookupError:  # The last of the trace was written when QEMU had ended.
                ended = True
            process.communicate(timeout=30)
            assert wait_until(functools.partial(gone, qemu)), "QEMU outlives record"
        finally:
            process.kill()
            process.wait()
        events, damage = read(out)
        if ended:
            assert damage is None and process.returncode == 0
        elif victim == "qemu":
            assert damage is None and events[-1] == Gap("QEMU was killed by signal 9")
        sizes.append(len(events))
        for result in replayed(out, TARGETS):
            assert result.findings == [], (number, len(events), result.findings[:3])
    record_property("summary", f"virtio-iommu, {victim} killed: {sizes} events, no finding")
    assert max(sizes) > 1000
