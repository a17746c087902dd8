"""A VT-d unit in a running QEMU, step by step: stores, register writes, DMA, in one round trip.

Facts: hw/i386/intel_iommu.c of QEMU 10.0 and 11.1. One fault recording register, at 0x220.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from decoders.events import AccessKind, Event, RegWrite, Store
from decoders.vtd.registers import (
    CAP,
    ECAP,
    FRCD_HIGH,
    FRCD_LOW,
    FSTS,
    VER,
    address_width,
    fault_record_offset,
)
from harness.message import Msi
from harness.qemu import device_tlb, qtest
from harness.qemu.device_tlb import Asked, AtsDevice, DeviceTlb
from harness.qemu.dma import DmaDevice, dma_devices, prepare
from harness.qemu.landing import PAGE, Pool
from harness.qemu.msi import senders
from harness.qemu.pc import PROGRAM, RAM_SIZE, RAM_START, Pc
from harness.qemu.qtest import BATCH, Machine
from harness.qemu.trace_lines import TraceLines
from harness.qemu.vhost_user import Told, VhostUser
from harness.qemu.vtd_options import spelled

REGISTERS: Final = 0xFED9_0000
"""Where QEMU's unit has its registers (Q35_HOST_BRIDGE_IOMMU_ADDR)."""

DEVICES: Final = (
    "rtl8139,addr=4",
    "i82559er,addr=5",
    "pcie-root-port,id=port1,slot=1,addr=6",
    "pcie-pci-bridge,id=bridge,bus=port1",
    "rtl8139,bus=bridge,addr=3",
    "i82559er,bus=bridge,addr=4",
    "pcie-root-port,id=port2,slot=2,addr=7",
    "rtl8139,bus=port2",
)
"""Two on the root bus, two behind a conventional bridge that share an id, one on a port."""

SENDERS: Final = ("edu,addr=8", "edu,bus=bridge,addr=5")
"""What sends interrupts, where these are remapped: one that nothing shares its id with, and one
whose messages carry the bridge's."""

_SAID: Final = ("vtd_ir_remap_msi_req", "vtd_ir_remap_msi", "vtd_irq_generate")
"""Trace events of interrupt requests and of the unit's own interrupts: nothing else shows them."""

MACHINES: Final[dict[str, dict[str, str]]] = {
    "legacy": {"aw-bits": "48"},
    "narrow": {"aw-bits": "39"},
    "second-stage": {"aw-bits": "48", "scalable": "on"},
    "first-stage": {"aw-bits": "48", "scalable": "on", "first-stage": "on"},
    "snoop": {"aw-bits": "48", "snoop-control": "on", "fs1gp": "off"},
    "remapping": {"aw-bits": "48", "intremap": "on"},
    "extended": {"aw-bits": "48", "intremap": "on", "eim": "on", "scalable": "on"},
    "device-tlb": {"aw-bits": "48", "device-iotlb": "on"},
    "device-tlb-second-stage": {"aw-bits": "48", "device-iotlb": "on", "scalable": "on"},
    "device-tlb-first-stage": {
        "aw-bits": "48", "device-iotlb": "on", "scalable": "on", "first-stage": "on",
    },
}  # fmt: skip
"""Options of intel-iommu by the name of a machine."""

MEMORY: Final = ((0, 0xA_0000), (RAM_START, RAM_SIZE - RAM_START))
POOL_PAGES: Final = 64
POOL_START: Final = RAM_SIZE - POOL_PAGES * PAGE
_DEVICE_QUEUE: Final = 0x1F_8000
"""Where the device with a TLB has its queue, which nobody uses."""

_LINES_KEPT: Final = 4096
"""Commands that are kept: to make them takes longer than to look them up."""


def options(program: str, machine: str) -> str:
    """Return the value of -device for a machine, in the words of this QEMU.

    Errors: HarnessError when it has no intel-iommu, or not with what the machine needs.
    """
    return spelled(program, {"intremap": "off"} | MACHINES[machine])


@functools.lru_cache(_LINES_KEPT)
def _register_write(write: RegWrite) -> str:
    return qtest.store(REGISTERS + write.offset, write.size, write.value)


@functools.lru_cache(_LINES_KEPT)
def _register_read(place: tuple[int, int]) -> str:
    return qtest.load(REGISTERS + place[0], place[1])


@dataclass(frozen=True, slots=True)
class Dma:
    """Ask for DMA of the device with this index."""

    device: int
    kind: AccessKind
    iova: int


@dataclass(frozen=True, slots=True)
class Seen:
    """Hold what came of a step.

    reads are the values asked for, behind the register writes; before is FSTS just before the
    DMA or the message. Behind it follow FSTS, the fault record as (low, high) and what DMA changed
    in the pool, as address and content.
    """

    reads: list[int]
    before: int
    status: int
    record: tuple[int, int]
    landed: list[tuple[int, bytes]]
    said: list[Event]
    """Interrupt requests, without and with what became of them, and interrupts of the unit."""
    told: list[Told] = field(default_factory=list)
    """What a device with a TLB was told to forget."""
    asked: Asked | None = None
    """What that device did instead of DMA."""


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """Hold the commands whose answers are still to come, and answers to those before them."""

    answers: list[str]
    lines: list[str]
    writes: int
    reads: int
    acts: Dma | None
    """What a device with a TLB is to do then."""


class VtdQemu:
    """Own a PC with an intel-iommu and DMA devices; the state after reset() is always the same."""

    def __init__(self, machine: str, program: str = PROGRAM) -> None:
        self._cleanup = contextlib.ExitStack()
        self.name = machine
        self.option = options(program, machine)
        self._said = TraceLines(_SAID)
        self._cleanup.callback(self._said.close)
        remaps = MACHINES[machine].get("intremap") == "on"
        has_tlb = MACHINES[machine].get("device-iotlb") == "on"
        more_devices = (*(SENDERS if remaps else ()), *(device_tlb.DEVICES if has_tlb else ()))
        self.words = (self.option, *DEVICES, *more_devices)
        backends = [VhostUser(device_tlb.BACKEND)] if has_tlb else []
        self.device_tlb: DeviceTlb | None = None
        for backend in backends:
            self._cleanup.callback(backend.close)
        try:
            more, files = self._said.options, [self._said.file]
            pc = Pc(self.words, program, words=more, inherited=files, backends=backends)
            self._pc = self._cleanup.enter_context(pc)
            self.pool = Pool(self._pc.ram, POOL_START, POOL_PAGES)
            for backend in backends:
                self.device_tlb = DeviceTlb(self._pc, backend, _DEVICE_QUEUE)
            self.devices = self._devices()
            self.senders = senders(self._pc)
            load = self._pc.machine.load
            self.unit_version = load(REGISTERS + VER.offset, VER.size)
            self.capability = load(REGISTERS + CAP.offset, CAP.size)
            self.extended_capability = load(REGISTERS + ECAP.offset, ECAP.size)
            self.version = self._pc.version
        except BaseException:
            self.close()
            raise
        record = REGISTERS + fault_record_offset(self.capability, 0)
        status = qtest.load(REGISTERS + FSTS.offset, FSTS.size)
        self._before = status
        self.after = (
            status,
            qtest.load(record, FRCD_LOW.size),
            qtest.load(record + FRCD_HIGH.offset, FRCD_HIGH.size),
        )
        self._log: list[str | Store] = []
        self.set_up = 0
        """How many commands of the log set devices up."""
        self._under_way: _UnderWay | None = None
        self._known: dict[Dma, Sequence[str]] = {}

    @property
    def log(self) -> list[str]:
        """Return the qtest commands since the last reset, stores among them."""
        return [
            line if isinstance(line, str) else qtest.store(line.address, line.size, line.value)
            for line in self._log
        ]

    @property
    def width(self) -> int:
        """Return the host address width, which is that of guest addresses, too."""
        return address_width(self.capability)

    def _devices(self) -> list[DmaDevice]:
        more = self.device_tlb.devices() if self.device_tlb is not None else []
        return [*dma_devices(self._pc), *more]

    def sid(self, device: int) -> int:
        """Return the source id of a device's DMA."""
        return self.devices[device].function.requester

    def monitor(self, line: str) -> str:
        """Run a command of QEMU's human monitor."""
        return self._pc.monitor(line)

    def restart(self) -> None:
        """Start a QEMU that has ended anew."""
        self._under_way = None
        self._pc.start()
        if self.device_tlb is not None:
            self.device_tlb.found()
        self.devices = self._devices()
        self.senders = senders(self._pc)
        self._known.clear()

    def migrate(self) -> None:
        """Let a new QEMU take over this one's state; senders have none and are set up again."""
        self._pc.migrate()
        if self.senders:
            self.machine.commands(self._pc.config.again())
        for sender in self.senders:
            sender.reset()

    def reset(self) -> None:
        """Reset the whole system; RAM is zero but for the marks of the pool."""
        if self._under_way is not None:
            self.end()
        self._pc.reset()
        prepare(self._pc, self.devices)
        for sender in self.senders:
            sender.reset()
        self._pc.ram[:POOL_START] = bytes(POOL_START)
        self.pool.restore()
        if self.device_tlb is not None:
            self.device_tlb.start()
        lines = [line for device in self.devices for line in device.prepare()]
        self._log = [*self._pc.config.again(), *lines]
        self.set_up = len(self._log)
        self._said.events()

    def step(
        self,
        stores: Sequence[Store],
        writes: Sequence[RegWrite],
        reads: Sequence[tuple[int, int]],
        dma: Dma | None,
        msi: Msi | None = None,
    ) -> Seen:
        """Store, write registers, read some, do DMA or send a message, and see what came of it."""
        self.begin(stores, writes, reads, dma, msi)
        return self.end()

    def begin(
        self,
        stores: Sequence[Store],
        writes: Sequence[RegWrite],
        reads: Sequence[tuple[int, int]],
        dma: Dma | None,
        msi: Msi | None = None,
    ) -> None:
        """Let QEMU do a step; what came of it is there for end() once it is done.

        Nothing else may be asked of QEMU meanwhile.
        """
        ram = self._pc.ram
        for store in stores:
            ram[store.address : store.address + store.size] = store.value.to_bytes(
                store.size, "little"
            )
        lines = [_register_write(write) for write in writes]
        lines += [_register_read(place) for place in reads]
        lines.append(self._before)
        lines += self.lines(dma)
        if msi is not None:
            lines += self.senders[msi.sender].lines(msi.address, msi.data)
        lines += self.after
        self._log += stores
        self._log += lines
        # A device with a TLB acts behind what comes before it: end() lets it.
        device = None if dma is None else self.devices[dma.device]
        acts = dma if isinstance(device, AtsDevice) else None
        if acts is not None:
            lines = lines[: -len(self.after)]
        answers = self.machine.commands(lines[:-BATCH])
        last = lines[-BATCH:]
        self.machine.send(last)
        self._under_way = _UnderWay(answers, last, len(writes), len(reads), acts)

    def end(self) -> Seen:
        """Return what came of the step that was begun."""
        begun = self._under_way
        if begun is None:
            raise ValueError("no step was begun")
        self._under_way = None
        answers = begun.answers + self.machine.receive(begun.lines)
        asked, told = None, []
        if self.device_tlb is not None:
            told = self.device_tlb.invalidations()
            if begun.acts is not None:
                asked = self._act(self.device_tlb, begun.acts)
                answers += self.machine.commands(self.after)
        end = begun.writes + begun.reads
        read = [int(answer, 16) for answer in answers[begun.writes : end]]
        before = int(answers[end], 16)
        status, low, high = (int(answer, 16) for answer in answers[-3:])
        landed, said = self.pool.changes(), self._said.events()
        return Seen(read, before, status, (low, high), landed, said, told, asked)

    def _act(self, tlb: DeviceTlb, dma: Dma) -> Asked:
        device = self.devices[dma.device]
        return tlb.use(isinstance(device, AtsDevice) and device.keeps, dma.kind, dma.iova)

    def memory(self, address: int, size: int) -> bytes:
        """Return what RAM holds."""
        return self._pc.ram[address : address + size]

    @property
    def machine(self) -> Machine:
        """Return what takes qtest commands."""
        return self._pc.machine

    def lines(self, dma: Dma | None) -> Sequence[str]:
        """Return the commands for DMA.

        Errors: ValueError where the device cannot do that.
        """
        if dma is None:
            return ()
        lines = self._known.get(dma)
        if lines is None:
            if len(self._known) == _LINES_KEPT:
                self._known.clear()
            lines = self._known[dma] = self._operation(dma)
        return lines

    def _operation(self, dma: Dma) -> Sequence[str]:
        operation = self.devices[dma.device].operation(dma.kind, dma.iova)
        if operation is None:
            model = self.devices[dma.device].model
            raise ValueError(f"{model} cannot {dma.kind.name.lower()} at {dma.iova:#x}")
        return operation.lines

    def close(self) -> None:
        """End QEMU."""
        self._cleanup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
