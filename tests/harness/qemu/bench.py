"""A PC with a virtio-iommu and DMA devices in front of, and behind, bridges."""

from __future__ import annotations

from decoders.events import AccessKind, FaultReport
from harness.qemu.dma import DmaDevice, dma_devices
from harness.qemu.landing import PAGE, Pool
from harness.qemu.pc import RAM_START, Pc
from harness.qemu.unit import POOL_START
from harness.qemu.virtio_iommu import VirtioIommu
from tests.writers import virtio_iommu as write

RTL8139, I82559, RTL8139_BEHIND_BRIDGE, I82559_BEHIND_BRIDGE, RTL8139_BEHIND_PORT = range(5)
DOMAIN = 7


class Bench:
    """Drive the IOMMU and the devices, and see what happened."""

    def __init__(self, pc: Pc) -> None:
        self.pc = pc
        self.iommu = VirtioIommu(pc, RAM_START)
        self.iommu.start()
        self.pool = Pool(pc.ram, POOL_START, 16)
        self.devices = dma_devices(pc)

    def page(self, index: int) -> int:
        return self.pool.start + index * PAGE

    def dma(
        self, device: DmaDevice, iova: int, kind: AccessKind = AccessKind.WRITE
    ) -> tuple[list[tuple[int, bytes]], list[FaultReport]]:
        """Return what landed where, and the fault reports."""
        operation = device.operation(kind, iova)
        assert operation is not None, f"{device.model} cannot {kind.name} at {iova:#x}"
        self.pc.machine.commands(operation.lines)
        return self.pool.changes(), self.iommu.faults()

    def write_bypass(self, value: int) -> None:
        self.pc.machine.command(self.iommu.bypass_write(value))

    def attach(self, device: DmaDevice, domain: int = DOMAIN) -> int:
        return self._status(write.attach(domain, device.function.requester))

    def detach(self, device: DmaDevice, domain: int = DOMAIN) -> int:
        return self._status(write.detach(domain, device.function.requester))

    def map(self, start: int, last: int, to: int, flags: int, domain: int = DOMAIN) -> int:
        return self._status(write.map_(domain, start, last, to, flags))

    def unmap(self, start: int, last: int, domain: int = DOMAIN) -> int:
        return self._status(write.unmap(domain, start, last))

    def _status(self, request: bytes) -> int:
        answer = self.iommu.request(request, write.TAIL)
        assert answer.used == write.TAIL, f"{request.hex()} was answered with {answer}"
        return answer.data[0]
