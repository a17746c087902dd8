"""Steps from a trace: what its driver and devices did, without what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from decoders.errors import DecodeError
from decoders.events import Access, DeviceReset, Event, Features, RegWrite, Request, Reset
from decoders.virtio_iommu.config import BYPASS_OFFSET, written_bypass
from harness.generate.virtio import DmaChoice, Step
from harness.qemu.unit import QemuUnit
from harness.targets.qemu import dma_for
from harness.trace import open_events

EVENTS: Final = 1 << 20
"""Events of a trace that are taken: they are held in memory."""


def read(path: Path) -> list[Event]:
    """Return the events of a trace; raise DecodeError for one that is damaged or too long."""
    with open_events(path) as source:
        events = list(islice(source, EVENTS + 1))
    if len(events) > EVENTS:
        raise DecodeError("trace", f"it has more than {EVENTS} events; take a part of it")
    return events


def sequences(events: Iterable[Event], unit: QemuUnit) -> Iterator[list[Step]]:
    """Yield what happened between two resets of the machine.

    Accesses for which there is no device, or which would do harm, are left out; those that one DMA
    operation includes are done once.
    """
    steps: list[Step] = []
    for event in events:
        match event:
            case Reset() if steps:
                yield steps
                steps = []
            case Request(data, room) if not data and not room:
                pass  # no queue can hold it
            case Features(_, 0):
                pass  # not known
            case Request() | DeviceReset() | Features():
                steps.append(Step(event, None))
            case RegWrite(offset, size, value):
                bypass = written_bypass(offset, size, value)
                if bypass is not None:
                    steps.append(Step(RegWrite(BYPASS_OFFSET, 1, bypass), None))
            case Access():
                dma = dma_for(unit, event)
                if dma is not None:
                    step = Step(None, DmaChoice(dma.device, dma.kind, dma.iova))
                    if steps[-1:] != [step]:
                        steps.append(step)
            case _:
                pass
    if steps:
        yield steps
