"""A virtio-iommu of a real QEMU as the unit that answers."""

from __future__ import annotations

from dataclasses import replace

from decoders.events import (
    AccessKind,
    ConfigSpace,
    DeviceReset,
    Endpoint,
    Event,
    Features,
    RegRead,
    RegWrite,
    Request,
    Reset,
    Translation,
)
from decoders.virtio_iommu.config import BYPASS_OFFSET
from harness.differential.engine import UnexplainedError
from harness.generate.virtio import Device, Scene, Step
from harness.model.virtio.config import PROBE_SIZE
from harness.model.virtio.dialect import VirtioDialect, dialect_named
from harness.qemu.observed import Guess, observed
from harness.qemu.unit import POOL_PAGES, POOL_START, Dma, QemuUnit, Seen
from harness.targets.virtio_model import VirtioModelReplay
from harness.trace import VIRTIO, Header, UnitInfo


class Qemu:
    """Let QEMU answer; what DMA showed becomes accesses with their outcomes."""

    def __init__(self, unit: QemuUnit) -> None:
        self.unit = unit
        unit.reset()
        offered, _ = unit.features
        self.version = unit.version
        version = ".".join(map(str, unit.version))
        self.dialect = dialect_named(f"qemu-{unit.version[0]}.{unit.version[1]}")
        info = UnitInfo(VIRTIO, base=0, capability=offered, config=unit.config())
        self.header = Header(dialect=self.dialect.name, units=(info,), source={"qemu": version})
        self.scene = scene(unit)
        self._endpoints = [Endpoint(number, regions) for number, regions in unit.endpoints()]

    def hold_to(self, dialect: VirtioDialect) -> None:
        """Take it for a unit with another dialect."""
        self.dialect = dialect
        self.header = replace(self.header, dialect=dialect.name)

    def begin(self) -> list[Event]:
        """Reset the whole machine and say what it is."""
        self.unit.reset()
        start: list[Event] = [Reset(), Features(*self.unit.features)]
        return [*start, ConfigSpace(self.unit.config()), *self._endpoints]

    def restart(self) -> None:
        """Start a QEMU that has ended anew."""
        self.unit.restart()

    def needs_reset(self) -> bool:
        """Say whether the device asks to be reset."""
        return self.unit.broken()

    def step(self, step: Step, guide: VirtioModelReplay) -> list[Event]:
        """Do one step and return what happened; the guide is told of each event."""
        unit, choice, stimulus = self.unit, step.dma, step.stimulus
        dma = None if choice is None else Dma(choice.device, choice.kind, choice.iova)
        events: list[Event] = []
        if isinstance(stimulus, Request):
            seen = unit.request(stimulus.data, stimulus.room, dma)
            events = [Request(stimulus.data, stimulus.room, seen.answer)]
        elif isinstance(stimulus, RegWrite):
            seen = unit.write_bypass(stimulus.value, dma)
            events = [stimulus, RegRead(BYPASS_OFFSET, 1, unit.bypass())]
        else:
            began = isinstance(stimulus, Features) and unit.negotiate(stimulus.accepted)
            if isinstance(stimulus, DeviceReset):
                unit.device_reset()
                began = True
            if began:
                now = RegRead(BYPASS_OFFSET, 1, unit.bypass())
                events = [DeviceReset(), Features(*unit.features), now]
            seen = unit.access(dma) if dma is not None else Seen(None, [], [])
        for event in events:
            guide.apply(event)
        # What a broken device refuses it does not report: it cannot be told from what it permits.
        if dma is None or guide.unit.broken:
            guide.finish()
            return events
        endpoint = unit.endpoint(dma.device)
        operation = unit.operation(dma)
        assert operation is not None, "it has been carried out"
        told = observed(operation.pieces, dma.iova, endpoint, seen, self._guess(endpoint, guide))
        for access, report in told.accesses:
            events.append(access)
            guide.apply(access)
            if report is not None:
                events.append(report)
                guide.apply(report)
        guide.finish()  # a report that is missing is missing now
        if told.reports:
            raise UnexplainedError("fault-report", told.reports[0], [*events, *told.reports])
        if told.landed:
            landed = b"".join(at.to_bytes(8, "big") + data for at, data in seen.landed)
            raise UnexplainedError("landing", landed, events)
        return events

    def _guess(self, endpoint: int, guide: VirtioModelReplay) -> Guess:
        """Return a guess at where an access led that shows nowhere: as the guide expects."""
        unit = self.unit

        def guess(iova: int, kind: AccessKind) -> list[Translation]:
            outcomes = guide.unit.access(endpoint, iova, kind)
            guide.unit.emitted()
            places = [
                outcome
                for outcome in outcomes
                if isinstance(outcome, Translation)
                and (kind is AccessKind.READ or not in_pool(outcome.address | iova & outcome.mask))
            ]
            # Nobody expects an access that leads nowhere; all there is to say: it did not fail.
            return places or [Translation(iova, 0)]

        def in_pool(place: int) -> bool:
            return unit.pool.start <= place < unit.pool.end

        return guess


def scene(unit: QemuUnit) -> Scene:
    """Describe a QEMU for the generator."""
    devices = [
        Device(
            unit.endpoint(index),
            device.width,
            tuple(
                kind for kind in (AccessKind.WRITE, AccessKind.READ) if device.operation(kind, 0)
            ),
            device.write_alignment,
        )
        for index, device in enumerate(unit.devices)
    ]
    # Id 0 makes QEMU mistake devices behind bridges for it (harness.deviations.CRASHES).
    others = [number for number, _ in unit.functions if number]
    return Scene(devices, others, POOL_START, POOL_PAGES, PROBE_SIZE)
