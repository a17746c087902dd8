"""A VT-d trace as commands: memory, registers, and DMA of devices that need no clock for it."""

from __future__ import annotations

from typing import Final

from decoders.events import (
    Access,
    AccessKind,
    Attribute,
    Event,
    Fault,
    InterruptRequest,
    PageRequest,
    RegRead,
    RegWrite,
    Reset,
    Snapshot,
    Store,
    Translation,
)
from decoders.layout import layout
from decoders.vtd.faults import FaultRecordRegister
from decoders.vtd.registers import (
    FRCD_HIGH,
    FRCD_LOW,
    FSTS,
    IRTA,
    FaultStatus,
)
from harness.errors import HarnessError
from harness.export.program import MARK, MOST_RAM, Program
from harness.findings import Finding
from harness.memory import PAGE_SIZE
from harness.minimise.trace import Trace
from harness.model.config import UnitConfig
from harness.qemu import qtest
from harness.qemu.dma import Rtl8139
from harness.qemu.pci import Function
from harness.qemu.vtd import REGISTERS
from harness.replay import unit_config
from harness.trace.lines import format_event, format_sid

_CHIPSET_SLOTS: Final = frozenset({0, 0x1F})
"""Slots of bus 0 that a q35 itself has devices in."""
_PORT_SLOTS: Final = range(0x1E, 0x0F, -1)
_BAR: Final = 1
_PPF: Final = layout(FaultStatus)["ppf"].mask
_HIGH: Final = layout(FaultRecordRegister)["fr"]
_FAULT_RECORD, _REGISTERS_END = 0x220, 0x230
"""Where QEMU's unit has its fault record, and where its registers end (DMAR_REG_SIZE, 10.0)."""
_PIECES: Final = 64
"""Quadwords of a page up to which each is a command of its own."""


def program(trace: Trace, finding: Finding | None) -> Program:
    """Return the machine and the commands of a trace.

    Errors: HarnessError for a unit that QEMU cannot be told to be.
    """
    return _Writer(trace, finding).made


class _Writer:
    """Go through a trace; `made` is the result."""

    def __init__(self, trace: Trace, finding: Finding | None) -> None:
        config = unit_config(trace.header)
        if not isinstance(config, UnitConfig):
            raise HarnessError("the trace is not about a VT-d unit")
        self._config, self._finding = config, finding
        self.made = Program()
        self.made.devices.append(device_option(config, any(map(_about_interrupts, trace.events))))
        self._devices: dict[int, Rtl8139] = {}
        self._known: set[int] = set()
        self._place_devices(trace)
        self._begun = False  # a reset before anything else is how every machine begins
        for number, event in enumerate(trace.events):
            self._one(number, event)
            self._begun = self._begun or isinstance(event, Store | Snapshot | RegWrite | Access)

    def _place_devices(self, trace: Trace) -> None:
        """Put a device where each request comes from, as far as a slot is free."""
        sids = dict.fromkeys(e.sid for e in trace.events if isinstance(e, Access))
        free = [slot for slot in _PORT_SLOTS if not any(s >> 3 == slot for s in sids)]
        for sid in sids:
            bus, slot, function = sid >> 8, sid >> 3 & 0x1F, sid & 7
            named = f"device {format_sid(sid)}"
            if bus == 0 and slot not in _CHIPSET_SLOTS and not function:
                self.made.devices.append(f"rtl8139,addr={slot:#x}")
            elif bus and not slot and not function and free:
                port = free.pop(0) << 3
                name = f"port{bus:x}"
                self.made.devices.append(
                    f"pcie-root-port,id={name},chassis={bus},slot={bus},addr={port >> 3:#x}"
                )
                self.made.devices.append(f"rtl8139,bus={name},addr=0")
                self.made.bridge(port, bus, self.made.following)
            else:
                self.made.leave_out(f"DMA of {named}, where no device can be put")
                continue
            place = self.made.enable(sid, _BAR, named)
            vendor, device = Rtl8139.ids
            self._devices[sid] = Rtl8139(Function(sid, vendor, device, sid, {_BAR: place}))
        for one in self._devices.values():
            for line in one.prepare():
                self.made.add(line)

    def _one(self, number: int, event: Event) -> None:
        made = self.made
        match event:
            case Store(address, size, value) if made.reach(address, size):
                self._known.add(address & -PAGE_SIZE)
                made.add(qtest.store(address, size, value))
            case Snapshot(address, _, _, data) if made.reach(address, PAGE_SIZE):
                self._page(address, data)
            case RegWrite(offset, size) | RegRead(offset, size) if offset + size > _REGISTERS_END:
                made.leave_out("registers that QEMU's unit does not have")
            case RegWrite(offset, size, value):
                made.add(qtest.store(REGISTERS + offset, size, value), format_event(event))
            case RegRead(offset, size, _):
                line = qtest.load(REGISTERS + offset, size)
                wanted = self._permitted(number)
                if isinstance(wanted, int):
                    made.expect(line, wanted, (1 << 8 * size) - 1, format_event(event))
                else:
                    made.add(line, format_event(event))
            case Access():
                self._access(number, event)
            case Reset() if self._begun:
                made.leave_out("reset of the machine")
            case InterruptRequest() | PageRequest():
                made.leave_out(type(event).__name__)
            case _:
                pass  # what a unit did, and what only a recording has

    def _page(self, address: int, data: bytes) -> None:
        words = [at for at in range(0, PAGE_SIZE, 8) if any(data[at : at + 8])]
        if address in self._known or len(words) > _PIECES:
            self.made.add(f"write {address:#x} {PAGE_SIZE:#x} 0x{data.hex()}")
        else:
            for at in words:
                value = int.from_bytes(data[at : at + 8], "little")
                self.made.add(qtest.store(address + at, 8, value))
        self._known.add(address)

    def _permitted(self, number: int) -> object:
        """Return what is permitted at an event, where the finding is about it."""
        finding = self._finding
        if finding is None or finding.event != number or not finding.permitted:
            return None
        return finding.permitted[0]

    def _access(self, number: int, event: Access) -> None:
        device, made = self._devices.get(event.sid), self.made
        about = format_event(event)
        if device is None:
            return
        if event.pasid is not None or event.attributes & ~Attribute.PRIVILEGED:
            made.leave_out("DMA with a PASID, or of a device with a TLB")
            return
        kind = event.kind if event.kind is AccessKind.WRITE else AccessKind.READ
        iova = event.iova
        if kind is AccessKind.WRITE:
            iova &= -device.write_alignment
        operation = device.operation(kind, iova)
        if operation is None:
            made.leave_out(f"DMA of kind {event.kind.name.lower()}")
            return
        permitted = self._permitted(number)
        places = [_place(one, iova) for one in (event.outcome, permitted)]
        led, right = (one if one is not None and made.reach(one, 8) else None for one in places)
        marked = right if kind is AccessKind.WRITE else None
        if marked is not None:
            made.add(qtest.store(marked, 8, MARK), "mark where the write should lead")
        for index, line in enumerate(operation.lines):
            made.add(line, "" if index else f"DMA: {about}")
        if marked is not None:
            made.expect(qtest.load(marked, 8), 0, (1 << 64) - 1, "the mark is overwritten")
        elif led is not None and kind is AccessKind.WRITE:
            made.add(qtest.load(led, 8), "where the recorded unit wrote")
        self._evidence(permitted)

    def _evidence(self, permitted: object) -> None:
        """Read what shows a fault, and compare with what is permitted."""
        record = REGISTERS + _FAULT_RECORD
        status = qtest.load(REGISTERS + FSTS.offset, FSTS.size)
        made, high = self.made, qtest.load(record + FRCD_HIGH.offset, FRCD_HIGH.size)
        if isinstance(permitted, Translation):
            made.expect(status, 0, _PPF, "FSTS: nothing is pending")
        elif isinstance(permitted, Fault):
            made.expect(status, _PPF, _PPF, "FSTS: a fault is pending")
        else:
            made.add(status, "FSTS")
        made.add(qtest.load(record, FRCD_LOW.size), "fault record")
        if isinstance(permitted, Fault):
            reason = permitted.reason << _HIGH.low
            made.expect(high, reason, _HIGH.mask, f"fault reason {permitted.reason:#04x}")
        else:
            made.add(high)


def _place(outcome: object, iova: int) -> int | None:
    """Return where an access leads, if it leads anywhere that RAM can be."""
    if not isinstance(outcome, Translation):
        return None
    place = (outcome.address & ~outcome.mask | iova & outcome.mask) & (1 << 64) - 1
    return place if place < MOST_RAM else None


def _about_interrupts(event: Event) -> bool:
    remaps = isinstance(event, RegWrite) and event.offset == IRTA.offset
    return remaps or isinstance(event, InterruptRequest)


def device_option(config: UnitConfig, interrupts: bool = False) -> str:
    """Return the value of -device for a unit with such capabilities.

    Names are those of QEMU 10.0; of later versions see docs/minimise.md.
    """
    scalable = bool(config.ecap("smts"))
    words = ["intel-iommu", f"intremap={'on' if interrupts and config.ecap('ir') else 'off'}"]
    words.append(f"aw-bits={48 if config.cap('sagaw') & 4 else 39}")
    switches = {
        "caching-mode": config.cap("cm"),
        "x-scalable-mode": scalable,
        "x-flts": scalable and config.ecap("fsts"),
        "device-iotlb": config.ecap("dt"),
        "snoop-control": config.ecap("sc"),
    }
    return ",".join([*words, *(f"{name}=on" for name, on in switches.items() if on)])
