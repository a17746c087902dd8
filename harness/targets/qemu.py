"""A virtio-iommu of a real QEMU as a target: requests are handed to it, accesses are real DMA.

The machine is built with devices that can do DMA where the trace has endpoints. A device does more
than the one access that was recorded; what it reports for other addresses is not judged. Where a
write led is seen in the page where the recording says, and in a pool. Where a read led is not seen,
nor what leads outside RAM: that is unjudged, if it does not fail.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from decoders.events import (
    Access,
    AccessKind,
    ConfigSpace,
    DeviceReset,
    Endpoint,
    Event,
    Fault,
    FaultReport,
    Features,
    Gap,
    Outcome,
    RegRead,
    RegWrite,
    Request,
    Reset,
    Translation,
)
from decoders.virtio_iommu.config import BYPASS_OFFSET, written_bypass
from decoders.virtio_iommu.constants import RequestType
from decoders.virtio_iommu.requests import READABLE_SIZE
from harness.errors import HarnessError
from harness.findings import BROKEN, UNANSWERED, Compared, Finding, FindingKind, Kept
from harness.model.virtio.config import VirtioConfig
from harness.model.virtio.requests import endpoint_of
from harness.qemu.landing import PAGE, watching
from harness.qemu.pc import is_ram
from harness.qemu.unit import Dma, QemuUnit, Seen, devices_for
from harness.qemu.vtd_copy import VtdCopy
from harness.targets.base import AnyConfig, Counters, Machine
from harness.targets.qemu_vtd import VtdReplay
from harness.targets.qemu_vtd_machine import last_address, wanted_for
from harness.trace import Block
from harness.trace.codec import decode

_OUT_OF_REACH: Final = range(0xE000_0000, 1 << 32)
"""Other devices are here: no DMA goes there."""

_ATTACH: Final = READABLE_SIZE[RequestType.ATTACH]

RAM: Final = 2 << 30
"""Bytes of RAM, as far as it begins at 0: what is not written takes no memory."""


MOST_ENDPOINTS: Final = 1 << 16


class QemuReplay:
    """Drive a QEMU with a trace; events of other units are passed over."""

    name = "qemu"

    def __init__(self, machine: Machine):
        self._unit = QemuUnit(machine.program, devices_for(machine.endpoints), RAM)
        self._end = weakref.finalize(self, self._unit.close)
        self._unit.reset()
        self._counters = Counters()
        self._kept = Kept()
        self._reports: list[FaultReport] = []
        self._lost = False

    def feed(self, block: Block) -> None:
        """Apply the events of one block."""
        for event in decode(block.raw, block.path, block.first_event, block.offset):
            self._apply(self._unit, event)
            self._counters.events += 1

    def finish(self) -> None:
        """End QEMU."""
        self._end()

    @property
    def missing(self) -> Collection[int]:
        """Return the endpoints that the machine does not have: all others were refused."""
        return ()

    @property
    def version(self) -> tuple[int, ...]:
        """Return the version of the QEMU that runs."""
        return self._unit.version

    def counters(self) -> Counters:
        """Return the counts so far."""
        return self._counters

    def findings(self) -> list[Finding]:
        """Return the findings so far."""
        return self._kept.findings

    def _apply(self, unit: QemuUnit, event: Event) -> None:
        counters = self._counters
        if not isinstance(event, FaultReport):
            self._reports = []
        match event:
            case Request():
                counters.requests += 1
                self._request(unit, event)
            case Access():
                self._access(unit, event)
            case FaultReport():
                counters.fault_records += 1
                self._report(event)
            case RegWrite(offset, size, value):
                bypass = written_bypass(offset, size, value)
                if bypass is not None:
                    unit.write_bypass(bypass)
            case RegRead(offset, size, value):
                counters.register_reads += value is not None
                now = unit.config()[offset : offset + size]
                self._compare("config", value, int.from_bytes(now, "little"))
            case ConfigSpace(data) if len(data) > BYPASS_OFFSET:
                # All else depends on how the machine was built.
                self._compare("config", data[BYPASS_OFFSET], unit.bypass())
            case Features(_, accepted) if accepted:
                unit.negotiate(accepted)
            case DeviceReset():
                unit.device_reset()
            case Reset():
                unit.reset()
                self._lost = False
            case Gap():
                self._lost = True
            case _:
                pass

    def _request(self, unit: QemuUnit, event: Request) -> None:
        if not event.data and not event.room:
            self._counters.unjudged += event.answer is not None
            return  # no queue can hold it
        now = unit.request(event.data, event.room).answer
        if now is not None or event.answer is None or self._lost:
            self._compare("request", event.answer, now)
        else:
            self._found(BROKEN if unit.broken() else UNANSWERED, event.answer, ())

    def _compare(self, subject: str, recorded: bytes | int | None, now: bytes | int | None) -> None:
        if recorded is None:
            return
        if self._lost:
            self._counters.unjudged += 1
        elif recorded == now:
            self._counters.agreed += 1
        else:
            self._found(subject, recorded, () if now is None else (now,))

    def _found(self, subject: str, recorded: Compared | None, now: tuple[Compared, ...]) -> None:
        self._counters.divergences += 1
        self._kept.add(
            Finding(self._counters.events, FindingKind.DIVERGENCE, subject, recorded, now)
        )

    def _access(self, unit: QemuUnit, event: Access) -> None:
        counters, outcome = self._counters, event.outcome
        counters.translations += isinstance(outcome, Translation)
        counters.faults += isinstance(outcome, Fault)
        dma = dma_for(unit, event, everywhere=True)
        if dma is None:
            counters.unjudged += outcome is not None
            return
        seen = self._carry_out(unit, dma, outcome, event.iova)
        self._reports = seen.faults
        if outcome is None:
            return
        if self._lost:
            counters.unjudged += 1
            return
        report = _report_at(seen.faults, event.iova)
        if isinstance(outcome, Fault) or report is not None:
            now = Fault(report.reason) if report is not None else _landed(seen, event.iova)
            if outcome == now:
                counters.agreed += 1
            else:
                self._found("access", outcome, () if now is None else (now,))
            return
        place = _place(outcome, event.iova)
        if event.kind is AccessKind.READ or not is_ram(place, unit.ram_size):
            counters.unjudged += 1
        elif any(start <= place < start + len(data) for start, data in seen.landed):
            counters.agreed += 1
        else:
            there = _landed(seen, event.iova)
            self._found("access", outcome, () if there is None else (there,))

    def _carry_out(self, unit: QemuUnit, dma: Dma, outcome: Outcome | None, iova: int) -> Seen:
        """Do DMA; look at the page where it is said to have led, and at the pool."""
        if not isinstance(outcome, Translation):
            return unit.access(dma)
        place = _place(outcome, iova)
        if place >= unit.queues_start or not is_ram(place, unit.ram_size):
            return unit.access(dma)
        with watching(unit.ram, place - place % PAGE) as changes:
            seen = unit.access(dma)
            return Seen(None, [*changes(), *seen.landed], seen.faults)

    def _report(self, event: FaultReport) -> None:
        if self._lost or not self._reports:
            self._counters.unjudged += 1
        elif event in self._reports:
            self._counters.agreed += 1
        else:
            at = _report_at(self._reports, event.address)
            self._found("fault-report", event, () if at is None else (at,))


def endpoints_of(events: Iterable[Event]) -> set[int]:
    """Return the endpoints that are declared; where none is, those that events name.

    Errors: HarnessError for more than there are PCI functions.
    """
    declared: set[int] = set()
    found: set[int] = set()
    for event in events:
        match event:
            case Endpoint(endpoint):
                declared.add(endpoint)
            case Access(sid):
                found.add(sid)
            case Request(data) if data[:1] == bytes((RequestType.ATTACH,)) and len(data) >= _ATTACH:
                found.add(endpoint_of(data) or 0)
            case _:
                continue
        if len(found) > MOST_ENDPOINTS or len(declared) > MOST_ENDPOINTS:
            raise HarnessError(f"no machine has more than {MOST_ENDPOINTS} endpoints")
    return declared or found


def machine_for(events: Iterable[Event], program: str) -> Machine:
    """Return the machine that a trace needs.

    Errors: HarnessError for more endpoints than there are PCI functions.
    """
    last = 0

    def noted() -> Iterator[Event]:
        nonlocal last
        for event in events:
            last = max(last, last_address(event))
            yield event

    endpoints = endpoints_of(noted())
    return Machine(endpoints, program, last)


def dma_for(unit: QemuUnit, event: Access, everywhere: bool = False) -> Dma | None:
    """Return DMA that includes an access; None where no device can, or where it would do harm.

    RAM outside the pool takes DMA only everywhere.
    """
    outcome = event.outcome
    if isinstance(outcome, Translation):
        place = _place(outcome, event.iova)
        queues = unit.queues_start <= place < unit.pool.start
        beside = place < unit.queues_start and is_ram(place, unit.ram_size)
        if queues or (beside and not everywhere) or place in _OUT_OF_REACH:
            return None
    for index, device in enumerate(unit.devices):
        if unit.endpoint(index) != event.sid:
            continue
        iova = event.iova
        if event.kind is AccessKind.WRITE:
            iova -= iova % device.write_alignment
        dma = Dma(index, event.kind, iova)
        if unit.operation(dma) is not None:
            return dma
    return None


def _place(outcome: Translation, iova: int) -> int:
    return outcome.address | iova & outcome.mask


def _report_at(reports: Iterable[FaultReport], iova: int) -> FaultReport | None:
    """Return the report of an address, or of the four bytes around it."""
    near = None
    for report in reports:
        if report.address == iova:
            return report
        if report.address // 4 == iova // 4:
            near = near or report
    return near


def _landed(seen: Seen, iova: int) -> Translation | None:
    """Return where the page of an address leads, as far as DMA has shown it."""
    for start, _ in seen.landed:
        return Translation(start - start % PAGE | iova % PAGE, 0)
    return None


def create(config: AnyConfig, machine: Machine) -> QemuReplay | VtdReplay:
    """Build the target; raise HarnessError where QEMU cannot be what was recorded."""
    if isinstance(config, VirtioConfig):
        return QemuReplay(machine)
    wanted = wanted_for(config, machine.endpoints, machine.last_address)
    copy = VtdCopy(wanted, machine.program)
    try:
        return VtdReplay(config, copy)
    except BaseException:
        copy.close()
        raise
