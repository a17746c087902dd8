"""Steps for a VT-d unit from a trace: what its driver and devices did, without what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from decoders.events import (
    Access,
    AccessKind,
    Attribute,
    Event,
    InterruptRequest,
    RegRead,
    RegWrite,
    Reset,
    StatusWrite,
    Store,
)
from decoders.vtd import registers as vtd
from harness.errors import HarnessError
from harness.generate.vtd_steps import DmaChoice, Scene, Step
from harness.message import Msi
from harness.model.interrupts import INTERRUPT_PAGE
from harness.qemu.dma import I82559
from harness.qemu.vtd import MACHINES, VtdQemu
from harness.trace import Header

_INTERRUPT_SHIFT: Final = 20
_WIDE_QUEUE: Final = 1 << 11
"""DW of IQA: descriptors have 32 bytes."""

_EMPTY: Final = Step("given", reads=())


def machine_named(header: Header) -> str:
    """Return the machine of `dmarewind diff` that a trace was kept from.

    Errors: HarnessError where it was not, or from one that is not known.
    """
    name = header.source.get("machine")
    if not isinstance(name, str) or name not in MACHINES:
        raise HarnessError("the trace names no machine of `dmarewind diff`, whose --machine can")
    return name


def descriptor_bytes(events: Sequence[Event]) -> int:
    """Return how long the descriptors of a trace are, as it last set its queue up."""
    wide = [
        event.value & _WIDE_QUEUE
        for event in events
        if isinstance(event, RegWrite) and event.offset == vtd.IQA.offset
    ]
    return 32 if wide and wide[-1] else 16


def steps_of(events: Sequence[Event], qemu: VtdQemu, scene: Scene) -> list[Step]:
    """Return the steps of a trace, which begins with the reset of the machine.

    Errors: HarnessError for what a machine cannot do.
    """
    reader = _Reader(qemu, scene)
    for number, event in enumerate(events):
        reader.take(number, event)
    return reader.finish()


class _Reader:
    """Gather stores, register writes, reads and one act of a device, in this order."""

    def __init__(self, qemu: VtdQemu, scene: Scene) -> None:
        self._qemu, self._scene = qemu, scene
        self._steps: list[Step] = []
        self._now = _EMPTY
        self._looked = False

    def take(self, number: int, event: Event) -> None:
        """Take the next event; what the unit did is passed over."""
        match event:
            case Reset() if number:
                raise HarnessError(f"event {number}: a sequence ends where the machine is reset")
            case Store():
                self._begin(bool(self._now.writes) or self._looked)
                self._now = replace(self._now, stores=(*self._now.stores, event))
            case RegWrite():
                self._begin(self._looked)
                self._now = replace(self._now, writes=(*self._now.writes, event))
            case StatusWrite(address, value):
                self._now = replace(self._now, waits=(*self._now.waits, (address, value)))
            case RegRead(vtd.FSTS.offset):
                # Faults are looked at behind the reads of a step, and once more when it has acted.
                self._looked = not self._acted
                self._begin(self._acted)
            case RegRead(offset, size):
                self._begin(self._acted)
                self._looked = True
                self._now = replace(self._now, reads=(*self._now.reads, (offset, size)))
            case Access() if not self._goes_on(number, event):
                self._act(dma=self._dma(number, event))
            case InterruptRequest() if not self._wrote(event):
                self._act(msi=self._msi(number, event))
            case _:
                pass

    def finish(self) -> list[Step]:
        """Return the steps."""
        self._begin(self._now != _EMPTY)
        return self._steps

    @property
    def _acted(self) -> bool:
        return self._now.dma is not None or self._now.msi is not None

    def _begin(self, anew: bool) -> None:
        if anew:
            self._steps.append(self._now)
            self._now, self._looked = _EMPTY, False

    def _act(self, dma: DmaChoice | None = None, msi: Msi | None = None) -> None:
        self._begin(self._acted)
        self._now, self._looked = replace(self._now, dma=dma, msi=msi), True

    def _goes_on(self, number: int, event: Access) -> bool:
        """Say whether an access belongs to the one before it: a self test reads, then writes."""
        now = self._now.dma
        if now is None or (self._sid(now), now.iova) != (event.sid, event.iova):
            return False
        if event.kind is AccessKind.WRITE and now.kind is AccessKind.READ:
            self._now = replace(self._now, dma=self._self_test(number, event))
        return True

    def _sid(self, dma: DmaChoice) -> int:
        return self._scene.devices[dma.device].sid

    def _wrote(self, event: InterruptRequest) -> bool:
        """Say whether DMA of the same step is what sent a message."""
        dma = self._now.dma
        return dma is not None and dma.iova >> _INTERRUPT_SHIFT == INTERRUPT_PAGE

    def _dma(self, number: int, event: Access) -> DmaChoice:
        """Return an operation that begins with an access."""
        if event.attributes & Attribute.TRANSLATED:
            raise HarnessError(f"event {number}: translated requests cannot be repeated")
        asks = bool(event.attributes & Attribute.TRANSLATION_REQUEST)
        messages = event.iova >> _INTERRUPT_SHIFT == INTERRUPT_PAGE
        for index, device in enumerate(self._scene.devices):
            if (device.sid, device.ats) != (event.sid, asks) or (messages and not asks):
                continue
            if event.kind in device.kinds and not self._tests_itself(index):
                return DmaChoice(index, event.kind, event.iova)
        return self._self_test(number, event)

    def _self_test(self, number: int, event: Access) -> DmaChoice:
        for index, device in enumerate(self._scene.devices):
            if device.sid == event.sid and self._tests_itself(index):
                return DmaChoice(index, AccessKind.WRITE, event.iova)
        raise HarnessError(f"event {number}: no device of the machine does this as {event.sid:#x}")

    def _tests_itself(self, index: int) -> bool:
        return isinstance(self._qemu.devices[index], I82559)

    def _msi(self, number: int, event: InterruptRequest) -> Msi:
        if event.sid not in self._scene.senders:
            raise HarnessError(f"event {number}: the machine has no sender {event.sid}")
        return Msi(self._scene.senders.index(event.sid), event.address, event.data)
