"""A virtio-iommu trace as commands: the driver's part of a request queue, and DMA.

Where QEMU's device has its structures: hw/virtio/virtio-pci.c (10.0), all in BAR 4, the common one
at 0, the device's own at 0x2000, notifications at 0x3000 and then every 4 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from decoders.events import (
    Access,
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
from decoders.virtio_iommu.constants import REQUEST_QUEUE, Status
from decoders.virtio_iommu.requests import TAIL_SIZE, field_of, status_of
from harness.errors import HarnessError
from harness.export.program import MARK, Program
from harness.findings import Finding
from harness.memory import PAGE_SIZE
from harness.minimise.trace import Trace
from harness.qemu import qtest
from harness.qemu.dma import Rtl8139
from harness.qemu.pci import Function
from harness.qemu.virtio import (
    ACKNOWLEDGE,
    DRIVER,
    DRIVER_OK,
    FEATURES_OK,
    VERSION_1,
)
from harness.qemu.virtio_iommu import ALL_FEATURES, MOST_ROOM
from harness.trace.lines import format_event, format_sid

_BAR: Final = 4
_DEVICE, _NOTIFY, _STEP = 0x2000, 0x3000, 4
# Fields of the common structure (virtio 1.2, 4.1.4.3).
_ACCEPT_SELECT, _ACCEPT, _STATUS = 0x08, 0x0C, 0x14
_QUEUE_SELECT, _QUEUE_SIZE, _QUEUE_ENABLE = 0x16, 0x18, 0x1C
_RINGS: Final = (0x20, 0x28, 0x30)

_SIZE: Final = 64
"""Descriptors of the queue; each request takes two, and they are used round and round."""
_QUEUE: Final = 0x10_0000
"""Where the queue is; its buffers follow, and DMA must not lead there."""
_AVAILABLE: Final = _QUEUE + 16 * _SIZE
_USED: Final = _QUEUE + 0x800
_BUFFERS: Final = _QUEUE + 0x1000
_BUFFER: Final = 0x8000
"""Bytes for one request and its answer; a trace's requests are cut there."""
_DESCRIPTOR: Final = struct.Struct("<QIHH")
_NEXT, _WRITE = 1, 2
_OWN_SLOTS: Final = (0x03, *range(0x1E, 0x03, -1), 0x02, 0x01)
_DMA_BAR: Final = 1


def program(trace: Trace, finding: Finding | None) -> Program:
    """Return the machine and the commands of a trace."""
    return _Writer(trace, finding).made


class _Writer:
    """Go through a trace; `made` is the result."""

    def __init__(self, trace: Trace, finding: Finding | None) -> None:
        self._finding = finding
        self.made = made = Program()
        made.reach(_BUFFERS, 2 * _BUFFER)
        sids = dict.fromkeys(_endpoints(trace))
        taken = {sid >> 3 for sid in sids}
        slot = next((one for one in _OWN_SLOTS if one not in taken), None)
        if slot is None:
            raise HarnessError("the trace leaves no slot of bus 0 for the virtio-iommu itself")
        made.devices.append(f"virtio-iommu-pci,addr={slot:#x}")
        self._devices: dict[int, Rtl8139] = {}
        for sid in sids:
            self._place(sid)
        self._common = made.enable(slot << 3, _BAR, "virtio-iommu", wide=True)
        for sid, one in self._devices.items():
            for line in one.prepare():
                made.add(line, f"endpoint {format_sid(sid)}")
        wanted = [e.accepted for e in trace.events if isinstance(e, Features) and e.accepted]
        self._features = (wanted[0] if wanted else ALL_FEATURES) | VERSION_1
        self._features &= self._offered(trace)
        self._start()
        for number, event in enumerate(trace.events):
            self._one(number, event)

    @staticmethod
    def _offered(trace: Trace) -> int:
        """Return what the recorded unit offered: accepting more is refused."""
        offered = [e.offered for e in trace.events if isinstance(e, Features)]
        known = [unit.capability for unit in trace.header.units if unit.capability]
        return (offered or known or [ALL_FEATURES])[0] | VERSION_1

    def _place(self, sid: int) -> None:
        if sid >> 8 or sid & 7 or sid >> 3 in (0, 0x1F):
            self.made.leave_out(f"DMA of endpoint {format_sid(sid)}, where no device can be put")
            return
        self.made.devices.append(f"rtl8139,addr={sid >> 3:#x}")
        place = self.made.enable(sid, _DMA_BAR, f"endpoint {format_sid(sid)}")
        vendor, device = Rtl8139.ids
        self._devices[sid] = Rtl8139(Function(sid, vendor, device, sid, {_DMA_BAR: place}))

    # -- the driver --------------------------------------------------------------------------

    def _set(self, offset: int, size: int, value: int, note: str = "") -> None:
        self.made.add(qtest.store(self._common + offset, size, value), note)

    def _start(self) -> None:
        """Reset the device, accept features, enable the request queue (virtio 1.2, 3.1.1)."""
        self._posted = 0
        self._set(_STATUS, 1, 0, "reset of the device")
        self._set(_STATUS, 1, ACKNOWLEDGE | DRIVER)
        for half in (0, 1):
            self._set(_ACCEPT_SELECT, 4, half)
            self._set(_ACCEPT, 4, self._features >> 32 * half & 0xFFFF_FFFF, "features")
        self._set(_STATUS, 1, ACKNOWLEDGE | DRIVER | FEATURES_OK)
        zeros = 4 + 2 * _SIZE
        self.made.add(f"memset {_AVAILABLE:#x} {zeros:#x} 0x0")
        self.made.add(f"memset {_USED:#x} {6 + 8 * _SIZE:#x} 0x0")
        self._set(_QUEUE_SELECT, 2, REQUEST_QUEUE, "request queue")
        self._set(_QUEUE_SIZE, 2, _SIZE)
        for offset, address in zip(_RINGS, (_QUEUE, _AVAILABLE, _USED), strict=True):
            self._set(offset, 4, address)
            self._set(offset + 4, 4, 0)
        self._set(_QUEUE_ENABLE, 2, 1)
        self._set(_STATUS, 1, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)

    def _request(self, number: int, event: Request) -> None:
        made, room = self.made, min(event.room, MOST_ROOM)
        data = event.data
        if len(data) + room > _BUFFER or (not data and not room):
            made.leave_out("requests that do not fit into a buffer")
            return
        head = 2 * (self._posted % (_SIZE // 2))
        pieces = [(len(data), 0)] if data else []
        pieces += [(room, _WRITE)] if room else []
        at = _BUFFERS
        made.add(
            f"write {at:#x} {len(data):#x} 0x{data.hex()}" if data else "", format_event(event)
        )
        for index, (size, flags) in enumerate(pieces):
            last = index == len(pieces) - 1
            packed = _DESCRIPTOR.pack(at, size, flags | (0 if last else _NEXT), head + index + 1)
            made.add(f"write {_QUEUE + 16 * (head + index):#x} 0x10 0x{packed.hex()}")
            at += size
        made.add(qtest.store(_AVAILABLE + 4 + 2 * (self._posted % _SIZE), 2, head))
        self._posted += 1
        made.add(qtest.store(_AVAILABLE + 2, 2, self._posted & 0xFFFF))
        made.add(qtest.store(self._common + _NOTIFY + _STEP * REQUEST_QUEUE, 2, REQUEST_QUEUE))
        if room >= TAIL_SIZE:
            self._status(number, at - TAIL_SIZE)

    def _status(self, number: int, at: int) -> None:
        permitted = self._permitted(number)
        status = status_of(permitted) if isinstance(permitted, bytes) else None
        if status is None:
            self.made.add(qtest.load(at, 1), "status")
        else:
            self.made.expect(qtest.load(at, 1), status, 0xFF, "status")

    # -- events ------------------------------------------------------------------------------

    def _one(self, number: int, event: Event) -> None:
        made = self.made
        match event:
            case Request():
                self._request(number, event)
            case Access():
                self._access(number, event)
            case RegWrite(offset, size, value):
                made.add(
                    qtest.store(self._common + _DEVICE + offset, size, value), format_event(event)
                )
            case RegRead(offset, size, _):
                made.add(qtest.load(self._common + _DEVICE + offset, size), format_event(event))
            case DeviceReset():
                self._start()
            case Reset() if number:
                made.leave_out("reset of the machine")
            case Features() | ConfigSpace() | Endpoint():
                pass  # said when the device was set up, or what QEMU has by itself
            case _:
                pass

    def _permitted(self, number: int) -> object:
        finding = self._finding
        if finding is None or finding.event != number or not finding.permitted:
            return None
        return finding.permitted[0]

    def _access(self, number: int, event: Access) -> None:
        device, made = self._devices.get(event.sid), self.made
        if device is None:
            return
        kind = AccessKind.WRITE if event.kind is AccessKind.WRITE else AccessKind.READ
        iova = event.iova & -device.write_alignment if kind is AccessKind.WRITE else event.iova
        operation = device.operation(kind, iova)
        if operation is None:
            made.leave_out("DMA at the end of the address space")
            return
        place: int | None = None
        recorded = event.outcome
        lands = isinstance(recorded, Translation) and made.reach(recorded.address, PAGE_SIZE)
        permitted = self._permitted(number)
        if isinstance(permitted, Translation) and kind is AccessKind.WRITE:
            place = permitted.address | iova & permitted.mask
            if made.reach(place & -PAGE_SIZE, PAGE_SIZE):
                made.add(qtest.store(place, 8, MARK), "mark where the write should lead")
            else:
                place = None
        for index, line in enumerate(operation.lines):
            made.add(line, "" if index else f"DMA: {format_event(event)}")
        if place is not None:
            made.expect(qtest.load(place, 8), 0, (1 << 64) - 1, "the mark is overwritten")
        elif isinstance(recorded, Translation) and lands and kind is AccessKind.WRITE:
            led = recorded.address | iova & recorded.mask
            made.add(qtest.load(led, 8), "where the recorded unit wrote")


def _endpoints(trace: Trace) -> Iterator[int]:
    """Yield the endpoints that have to be there."""
    for event in trace.events:
        if isinstance(event, Access):
            yield event.sid
        elif isinstance(event, Request):
            endpoint = field_of(event.data, "endpoint")
            status = status_of(event.answer)
            if endpoint is not None and status not in (None, Status.NOENT):
                yield endpoint
