"""The model of a virtio-iommu as the unit that answers: for comparing targets without a QEMU."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from decoders.events import (
    Access,
    AccessKind,
    ConfigSpace,
    DeviceReset,
    Endpoint,
    Event,
    Fault,
    Features,
    RegRead,
    RegWrite,
    Request,
    Reset,
)
from decoders.virtio_iommu.config import BYPASS_OFFSET
from harness.generate.virtio import Device, Scene, Step
from harness.model.virtio.config import (
    DEFAULT_CONFIG,
    DEFAULT_FEATURES,
    PROBE_SIZE,
    VirtioConfig,
)
from harness.model.virtio.dialect import VirtioDialect
from harness.model.virtio.unit import VirtioUnit
from harness.qemu.unit import POOL_PAGES, POOL_START
from harness.targets.virtio_model import VirtioModelReplay
from harness.trace import VIRTIO, Header, UnitInfo

_BOTH: Final = (AccessKind.WRITE, AccessKind.READ)
_DEVICES: Final = tuple(Device(endpoint, 64, _BOTH, 4) for endpoint in (0x20, 0x28, 0x200, 0x300))
_INTERRUPTS: Final = (1, 0xFEE0_0000, 0xFEEF_FFFF)
_ADDRESSES: Final = 1 << 64
_TRANSFER: Final = 4


class Simulated:
    """Answer as the model expects first; an access is one of 4 bytes."""

    version: tuple[int, ...] = ()

    def __init__(self, dialect: VirtioDialect) -> None:
        self.dialect = dialect
        info = UnitInfo(VIRTIO, 0, capability=DEFAULT_FEATURES, config=DEFAULT_CONFIG)
        self.header = Header(dialect=dialect.name, units=(info,))
        self.scene = Scene(_DEVICES, (0x18,), POOL_START, POOL_PAGES, PROBE_SIZE)
        self._numbers = [*(device.endpoint for device in _DEVICES), *self.scene.endpoints]
        self._unit = VirtioUnit(VirtioConfig(DEFAULT_FEATURES, DEFAULT_CONFIG, True, dialect))

    def begin(self) -> list[Event]:
        """Begin anew."""
        self._unit = VirtioUnit(self._unit.config)
        events: list[Event] = [
            Reset(),
            Features(DEFAULT_FEATURES, DEFAULT_FEATURES),
            ConfigSpace(DEFAULT_CONFIG),
            *(Endpoint(number, (_INTERRUPTS,)) for number in self._numbers),
        ]
        self._unit.features(DEFAULT_FEATURES, DEFAULT_FEATURES)
        for number in self._numbers:
            self._unit.endpoint(number, (_INTERRUPTS,))
        return events

    def restart(self) -> None:
        """Do nothing: a model does not end."""

    def needs_reset(self) -> bool:
        """Say whether the unit asks to be reset."""
        return self._unit.broken

    def step(self, step: Step, guide: VirtioModelReplay) -> list[Event]:
        """Do one step and return what happened; the guide is told of each event."""
        unit, stimulus, choice = self._unit, step.stimulus, step.dma
        if choice is None:
            raise ValueError("a step without DMA is for a real unit")
        events: list[Event]
        if isinstance(stimulus, Request):
            answers = unit.request(stimulus.data, stimulus.room)
            answer = answers[0] if answers else None
            events = [Request(stimulus.data, stimulus.room, answer)]
        elif isinstance(stimulus, RegWrite):
            unit.write_register(stimulus.offset, stimulus.size, stimulus.value)
            events = [stimulus, RegRead(BYPASS_OFFSET, 1, unit.read_register(BYPASS_OFFSET, 1))]
        elif stimulus is None:
            events = []
        else:
            unit.device_reset()
            unit.features(DEFAULT_FEATURES, DEFAULT_FEATURES)
            events = [DeviceReset(), Features(DEFAULT_FEATURES, DEFAULT_FEATURES)]
        endpoint = self.scene.devices[choice.device].endpoint
        if choice.iova + _TRANSFER <= _ADDRESSES:
            outcome = unit.access(endpoint, choice.iova, choice.kind)[0]
            if isinstance(outcome, Fault):
                outcome = Fault(int(outcome.reason))
            events.append(Access(endpoint, None, choice.iova, choice.kind, outcome))
            events += [replace(r, reason=int(r.reason), flags=int(r.flags)) for r in unit.emitted()]
        unit.findings()
        for event in events:
            guide.apply(event)
        guide.finish()
        return events
