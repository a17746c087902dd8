"""A machine whose device has a TLB, and legacy tables that software changes."""

from __future__ import annotations

from decoders.events import AccessKind, RegWrite, Store
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    ContextCacheInvalidation,
    DeviceTlbInvalidation,
    IotlbInvalidation,
)
from decoders.vtd.tables import ContextEntry, RootEntry
from harness.generate.vtd_device_tlb import span
from harness.generate.vtd_tables import packed
from harness.qemu.device_tlb import AtsDevice
from harness.qemu.vhost_user import Told
from harness.qemu.vtd import Dma, Seen, VtdQemu

ROOT, CONTEXTS, QUEUE = 0x10_0000, 0x10_1000, 0x1E_0000
TABLES = (0x11_0000, 0x11_1000, 0x11_2000, 0x11_3000)
NEAR, GIGABYTE = 0x8000_0000, 0xC000_0000
R, W, PS = 1, 2, 0x80
TE, SRTP, QIE = 1 << 31, 1 << 30, 1 << 26
IQE = 1 << 4
TRANSLATES, DEVICE_TLB, PASSES = 0, 1, 2
EVERYTHING = 52
CONTEXT_FLUSH = packed(layout(ContextCacheInvalidation), type=1, g=1)
IOTLB_FLUSH = packed(layout(IotlbInvalidation), type=2, g=1)


class Story:
    """Tell one machine what software does; the page at NEAR leads to the pool, a GiB to 0."""

    def __init__(self, machine: VtdQemu) -> None:
        machine.reset()
        assert machine.device_tlb is not None
        self.machine, self.tlb = machine, machine.device_tlb
        self.sid, self._tail = self.tlb.function.requester, 0
        self.target = machine.pool.start
        root = packed(layout(RootEntry), p=1, ctp=CONTEXTS)
        at = ROOT + 16 * (self.sid >> 8)
        links = [Store(at, 8, root[0]), self.context(DEVICE_TLB)[0], self.context(DEVICE_TLB)[1]]
        links += [
            Store(TABLES[0], 8, TABLES[1] | R | W),
            Store(TABLES[1] + 8 * (NEAR >> 30), 8, TABLES[2] | R | W),
            Store(TABLES[1] + 8 * (GIGABYTE >> 30), 8, R | W | PS),
            Store(TABLES[2], 8, TABLES[3] | R | W),
            self.page(R | W),
        ]
        writes = [
            RegWrite(vtd.RTADDR.offset, 8, ROOT),
            RegWrite(vtd.GCMD.offset, 4, SRTP),
            RegWrite(vtd.IQT.offset, 8, 0),
            RegWrite(vtd.IQA.offset, 8, QUEUE),
            RegWrite(vtd.GCMD.offset, 4, QIE),
        ]
        machine.step(links, writes, (), None)
        self.queue([], CONTEXT_FLUSH, IOTLB_FLUSH)
        self.switch(True)

    def context(self, tt: int) -> list[Store]:
        """Return the stores of the device's context entry."""
        shape = layout(ContextEntry)
        words = packed(shape, p=1, tt=tt, aw=2, ssptptr=TABLES[0], did=1)
        at = CONTEXTS + shape.size * (self.sid & 0xFF)
        return [Store(at + 8 * n, 8, word) for n, word in enumerate(words)]

    def page(self, rights: int, place: int = 0) -> Store:
        """Return the store of the entry of the page at NEAR."""
        return Store(TABLES[3], 8, self.target + place | rights if rights else 0)

    def switch(self, on: bool) -> None:
        """Switch translation on or off."""
        write = RegWrite(vtd.GCMD.offset, 4, QIE | (TE if on else 0))
        self.machine.step((), [write], (), None)

    def queue(self, stores: list[Store], *descriptors: tuple[int, ...]) -> Seen:
        """Store, then hand descriptors to the unit."""
        placed = list(stores)
        for words in descriptors:
            placed += [Store(QUEUE + self._tail + 8 * n, 8, w) for n, w in enumerate(words)]
            self._tail += 16
        write = RegWrite(vtd.IQT.offset, 8, self._tail)
        return self.machine.step(placed, [write], (), None)

    def resume(self) -> None:
        """Let the queue go on that stopped at the last descriptor, which the next one replaces."""
        self._tail -= 16
        self.machine.step((), [RegWrite(vtd.FSTS.offset, 4, IQE)], (), None)

    def forget(self, base: int, order: int, sid: int | None = None, **fields: int) -> list[Told]:
        """Invalidate 2^order pages of a device's TLB; return what it was told."""
        large, address = span(base, order)
        named = self.sid if sid is None else sid
        shape = layout(DeviceTlbInvalidation)
        words = packed(shape, type=3, sid=named, s=large, addr=address, **fields)
        return self.queue([], words).told

    def ask(self, iova: int, kind: AccessKind = AccessKind.READ, keeps: bool = False) -> Seen:
        """Let the device ask for a translation, or use one that it has."""
        devices = self.machine.devices
        (index,) = (
            n for n, d in enumerate(devices) if isinstance(d, AtsDevice) and d.keeps == keeps
        )
        return self.machine.step((), (), (), Dma(index, kind, iova))

    def told(self, iova: int, kind: AccessKind = AccessKind.READ) -> Told:
        """Return the translation that the device gets."""
        asked = self.ask(iova, kind).asked
        assert asked is not None and asked.answer is not None, "QEMU gives no translation"
        return asked.answer
