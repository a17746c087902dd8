"""A virtio-iommu in a running QEMU, step by step: one stimulus, then DMA, in one round trip."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from decoders.bytewise import packed
from decoders.events import AccessKind, FaultReport
from decoders.virtio_iommu.config import CONFIG_SIZE
from decoders.virtio_iommu.constants import RequestType, Status
from decoders.virtio_iommu.properties import read_properties
from decoders.virtio_iommu.structures import Probe, RequestTail
from harness.errors import HarnessError
from harness.model.virtio.config import PROBE_SIZE
from harness.qemu import virtio_iommu
from harness.qemu.dma import DmaDevice, Operation, dma_devices, prepare
from harness.qemu.landing import PAGE, Pool
from harness.qemu.pc import CHIPSET, PROGRAM, RAM_SIZE, Pc
from harness.qemu.virtio import VERSION_1

_MACHINE: Final = (
    ("virtio-iommu-pci,addr=3", {0x18}),
    ("rtl8139,addr=4", {0x20}),
    ("i82559er,addr=5", {0x28}),
    ("pcie-root-port,id=port1,slot=1,addr=6", {0x30}),
    ("pcie-pci-bridge,id=bridge,bus=port1", {0x100}),
    ("rtl8139,bus=bridge,addr=3", {0x200}),
    ("i82559er,bus=bridge,addr=4", {0x200}),
    ("pcie-root-port,id=port2,slot=2,addr=7", {0x38}),
    ("rtl8139,bus=port2", {0x300}),
)
"""Devices of the standard machine and the ids that each one's DMA carries: endpoints on the root
bus, two behind a conventional bridge that share an id, one on a port."""

DEVICES: Final = tuple(device for device, _ in _MACHINE)
ENDPOINTS: Final = CHIPSET.union(*(endpoints for _, endpoints in _MACHINE))

_OWN_SLOT, _LAST_SLOT = 0x1E, 0x1F

Regions = tuple[tuple[int, int, int], ...]

POOL_PAGES: Final = 64
POOL_SIZE: Final = POOL_PAGES * PAGE
POOL_START: Final = RAM_SIZE - POOL_SIZE
"""At the end of RAM: what runs over it lands nowhere."""

_QUEUES: Final = 1 << 20
"""Bytes at the end of RAM that hold queues and pool."""


@dataclass(frozen=True, slots=True)
class Dma:
    """Ask for DMA of the device with this index."""

    device: int
    kind: AccessKind
    iova: int


@dataclass(frozen=True, slots=True)
class Seen:
    """Hold what came of a step.

    answer is None when there was no request, or the device did not give it back. landed is what
    DMA changed in the pool, as address and content.
    """

    answer: bytes | None
    landed: list[tuple[int, bytes]]
    faults: list[FaultReport]


class QemuUnit:
    """Own a PC with a virtio-iommu and DMA devices; the state after reset() is always the same."""

    def __init__(
        self,
        program: str = PROGRAM,
        devices: Sequence[str] = DEVICES,
        ram_size: int = RAM_SIZE,
    ) -> None:
        self._cleanup = contextlib.ExitStack()
        self.ram_size = ram_size
        self._pc = self._cleanup.enter_context(Pc(devices, program, ram_size))
        try:
            self.pool = Pool(self._pc.ram, ram_size - POOL_SIZE, POOL_PAGES)
            self._found()
        except BaseException:
            self.close()
            raise

    def _found(self) -> None:
        self._iommu = virtio_iommu.VirtioIommu(self._pc, self.queues_start)
        if self._iommu.end > self.pool.start:
            raise ValueError("the queues reach into the pool")
        self.devices: list[DmaDevice] = dma_devices(self._pc)
        self._iommu.start()

    @property
    def queues_start(self) -> int:
        """Return where the queues begin; between them and the pool DMA must not land."""
        return self.ram_size - _QUEUES

    @property
    def ram(self) -> mmap.mmap:
        """Return the machine's memory."""
        return self._pc.ram

    @property
    def version(self) -> tuple[int, ...]:
        """Return the version of this QEMU."""
        return self._pc.version

    @property
    def features(self) -> tuple[int, int]:
        """Return the features that are offered and those that are accepted."""
        return self._iommu.offered, self._iommu.features

    @property
    def functions(self) -> list[tuple[int, int]]:
        """Return all functions, each with the requester id of its DMA."""
        return [(f.number, f.requester) for f in self._pc.setup.functions.values()]

    def endpoints(self) -> Iterator[tuple[int, Regions]]:
        """Yield the endpoints that the IOMMU knows, each with its reserved regions."""
        shape, room = packed(Probe), PROBE_SIZE + packed(RequestTail).size
        for number in sorted({number for pair in self.functions for number in pair}):
            request = shape.pack(RequestType.PROBE, bytes(3), number, bytes(64))
            answer = self._iommu.request(request, room)
            if answer.used == room and answer.data[PROBE_SIZE] == Status.OK:
                properties = read_properties(answer.data[:PROBE_SIZE], "probe")
                regions = (found.region for found in properties)
                yield number, tuple((r.subtype, r.start, r.end) for r in regions if r is not None)

    def endpoint(self, device: int) -> int:
        """Return the requester id of a device's DMA."""
        return self.devices[device].function.requester

    def restart(self) -> None:
        """Start a QEMU that has ended anew."""
        self._pc.start()
        self._found()
        self.pool.restore()

    def reset(self) -> None:
        """Reset the whole system, then start the IOMMU and make the devices ready."""
        self._pc.reset()
        self._iommu.start()
        prepare(self._pc, self.devices)
        self.pool.restore()
        # What DMA may have left elsewhere would be read as a descriptor, and obeyed.
        self.ram.madvise(mmap.MADV_REMOVE, 0, self.queues_start)
        above = self._iommu.end + PAGE - 1 & -PAGE
        self.ram.madvise(mmap.MADV_REMOVE, above, self.pool.start - above)

    def device_reset(self, features: int = virtio_iommu.ALL_FEATURES) -> None:
        """Reset the IOMMU alone, as its driver does, and start it again with some features."""
        self._iommu.start(features & virtio_iommu.ALL_FEATURES | VERSION_1)

    def negotiate(self, features: int) -> bool:
        """Let the IOMMU work with these of its features; say whether that took a reset of it."""
        offered, accepted = self.features
        if accepted == offered & virtio_iommu.ALL_FEATURES & features | VERSION_1:
            return False
        self.device_reset(features)
        return True

    def request(self, data: bytes, room: int, dma: Dma | None = None) -> Seen:
        """Hand a request over, and do DMA behind it."""
        answer = self._iommu.request(data, room, self._lines(dma))
        written = None if answer.used is None else answer.data[: answer.used]
        return self._seen(written)

    def write_bypass(self, value: int, dma: Dma | None = None) -> Seen:
        """Write config.bypass, and do DMA behind it."""
        self._pc.machine.commands((self._iommu.bypass_write(value), *self._lines(dma)))
        return self._seen(None)

    def access(self, dma: Dma) -> Seen:
        """Do DMA."""
        self._pc.machine.commands(self._lines(dma))
        return self._seen(None)

    def bypass(self) -> int:
        """Return config.bypass."""
        return self._pc.machine.load(self._iommu.bypass_address, 1)

    def config(self) -> bytes:
        """Return the config space."""
        return self._iommu.config()[:CONFIG_SIZE]

    def broken(self) -> bool:
        """Say whether the IOMMU asks to be reset."""
        return self._iommu.broken()

    def operation(self, dma: Dma) -> Operation | None:
        """Return what DMA consists of; None when the device cannot do that."""
        return self.devices[dma.device].operation(dma.kind, dma.iova)

    def _lines(self, dma: Dma | None) -> Sequence[str]:
        if dma is None:
            return ()
        operation = self.operation(dma)
        if operation is None:
            model = self.devices[dma.device].model
            raise ValueError(f"{model} cannot {dma.kind.name.lower()} at {dma.iova:#x}")
        return operation.lines

    def _seen(self, answer: bytes | None) -> Seen:
        return Seen(answer, self.pool.changes(), self._iommu.faults())

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


def devices_for(endpoints: Collection[int]) -> Sequence[str]:
    """Return devices of a machine with these endpoints: the standard one, or one without bridges.

    Ids that no device can have are left out. Errors: HarnessError for endpoints on other buses.
    """
    if ENDPOINTS.issuperset(endpoints):
        return DEVICES
    wanted = sorted(number for number in endpoints if number >> 3 < _LAST_SLOT and number >> 3)
    beyond = sorted(number for number in endpoints if number >> 8)
    if beyond:
        raise HarnessError(
            f"endpoint {beyond[0]:#x} is on bus {beyond[0] >> 8:#x}: no machine with endpoints on "
            "other buses than 0 is built, but for that of `dmarewind diff`"
        )
    used = {number >> 3 for number in wanted}
    own = next((slot for slot in range(_OWN_SLOT, 0, -1) if slot not in used), None)
    if own is None:
        raise HarnessError("the trace has endpoints in all slots; none is left for the IOMMU")
    # Function 0 is what makes the others visible.
    functions = sorted({*wanted, *(slot << 3 for slot in used)})
    return [
        f"virtio-iommu-pci,addr={own:#x}",
        *(f"rtl8139,addr={n >> 3:#x}.{n & 7},multifunction=on" for n in functions),
    ]
