"""Drive a virtio-iommu: requests with what came back, and fault reports (virtio 1.4, 5.13)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from decoders import events
from decoders.bytewise import packed
from decoders.virtio_iommu.config import BYPASS_OFFSET, CONFIG_SIZE
from decoders.virtio_iommu.constants import (
    EVENT_QUEUE,
    PCI_DEVICE_ID,
    PCI_VENDOR_ID,
    REQUEST_QUEUE,
    Feature,
)
from decoders.virtio_iommu.structures import FaultReport
from harness.errors import HarnessError
from harness.qemu import qtest
from harness.qemu.pc import Pc
from harness.qemu.virtio import BUFFER, NEEDS_RESET, VERSION_1, VirtioPci

ALL_FEATURES: Final = VERSION_1 | sum(Feature)
"""What is accepted where it is offered."""

QUEUE_SIZE: Final = 64
MOST_ROOM: Final = 8 * BUFFER
"""Bytes of a request's room that are handed over; an answer that filled them would be refused."""

_REPORT: Final = packed(FaultReport)


@dataclass(frozen=True, slots=True)
class Answer:
    """Give what came back of a request: what the device says it wrote, and all writable bytes.

    used is None when the device has not given the request back.
    """

    used: int | None
    data: bytes


class VirtioIommu:
    """Own the IOMMU of a PC; base is where its queues begin in RAM."""

    def __init__(self, pc: Pc, base: int) -> None:
        found = pc.setup.find(PCI_VENDOR_ID, PCI_DEVICE_ID)
        if not found:
            raise HarnessError("the machine has no virtio-iommu")
        self._machine, self._device = pc.machine, VirtioPci(pc, found[0])
        self._device.reset()
        self._requests = self._device.queue(REQUEST_QUEUE, base, QUEUE_SIZE)
        self._events = self._device.queue(
            EVENT_QUEUE, -(-self._requests.end // 64) * 64, QUEUE_SIZE
        )
        self.end = self._events.end
        self.offered = self.features = 0

    def start(self, features: int = ALL_FEATURES) -> None:
        """Reset the device and let it work with those of the features that it offers."""
        self._device.reset()
        self._requests.clear()
        self._events.clear()
        self.offered, self.features = self._device.negotiate(features)
        self._device.start((self._requests, self._events))
        for _ in range(QUEUE_SIZE):
            self._events.post((), (_REPORT.size,))

    def request(self, data: bytes, room: int, then: Iterable[str] = ()) -> Answer:
        """Hand a request over and return what came back; then are commands that follow at once.

        Both parts are split where a buffer ends. Of a large room only the beginning is given.
        Errors: HarnessError for a request without any byte, or too long for the queue.
        """
        given = min(room, MOST_ROOM)
        readable = [data[at : at + BUFFER] for at in range(0, len(data), BUFFER)]
        writable = [min(BUFFER, given - at) for at in range(0, given, BUFFER)]
        if not 0 < len(readable) + len(writable) <= QUEUE_SIZE:
            raise HarnessError(
                f"a request of {len(data)} bytes with room for {room} does not fit into a queue of "
                f"{QUEUE_SIZE} buffers of {BUFFER} bytes"
            )
        answer = self.chain(readable, writable, then)
        if room > given and answer.used == given:
            raise HarnessError(f"the answer to a request has {given} bytes or more")
        return answer

    def chain(
        self, readable: Sequence[bytes], writable: Sequence[int], then: Iterable[str] = ()
    ) -> Answer:
        """Hand a request over in several buffers, if the device has not kept too many of others."""
        if not self._requests.has_room(len(readable) + len(writable)):
            self._machine.commands([*then])
            return Answer(None, b"")
        head = self._requests.post(readable, writable)
        self._machine.commands((self._requests.kick, *then))
        for used in self._requests.take():
            if used.head == head:
                return Answer(used.length, used.data)
        return Answer(None, b"")

    def faults(self) -> list[events.FaultReport]:
        """Return the fault reports since the last call, and give their buffers back."""
        found = []
        for used in self._events.take():
            if used.length != _REPORT.size:
                raise HarnessError(f"a fault report has {used.length} bytes, not {_REPORT.size}")
            reason, _, flags, endpoint, _, address = _REPORT.unpack(used.data)
            found.append(events.FaultReport(reason, flags, endpoint, address))
            self._events.post((), (_REPORT.size,))
        return found

    def config(self) -> bytes:
        """Return the config space."""
        return self._device.read_config(0, CONFIG_SIZE)

    def bypass_write(self, value: int) -> str:
        """Return the command that writes config.bypass."""
        return qtest.store(self.bypass_address, 1, value)

    @property
    def bypass_address(self) -> int:
        """Return where config.bypass is."""
        return self._device.config_address + BYPASS_OFFSET

    def broken(self) -> bool:
        """Say whether the device asks to be reset."""
        return bool(self._device.status() & NEEDS_RESET)
