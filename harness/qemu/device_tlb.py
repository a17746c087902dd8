"""A PCIe function with a TLB of its own (ATS) in a running QEMU: a vhost-user device and us.

It asks QEMU for translations, keeps them, and forgets what it is told to. Facts: hw/virtio/vhost.c
and virtio-pci.c of QEMU 10.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from decoders.events import AccessKind
from decoders.vtd.interrupt import INTERRUPT_FIRST, INTERRUPT_LAST
from harness.errors import HarnessError
from harness.qemu.dma import Operation
from harness.qemu.pc import Pc
from harness.qemu.pci import Ecam, Function
from harness.qemu.process import HungError
from harness.qemu.vhost_user import Iotlb, Permission, Told, VhostUser
from harness.qemu.virtio import VERSION_1, VirtioPci

BACKEND: Final = "vhost"
DEVICES: Final = (
    "pcie-root-port,id=port3,slot=3,addr=9",
    f"vhost-user-rng-pci,bus=port3,chardev={BACKEND},iommu_platform=on,ats=on",
)
"""The device sits behind a port: on the root bus it has no capabilities of PCI Express."""

IDS: Final = (0x1AF4, 0x1044)
PAGE: Final = 4096
INTERRUPTS: Final = (INTERRUPT_FIRST, INTERRUPT_LAST)
"""Addresses that no invalidation reaches: QEMU cuts them out of what it translates."""

_ACCESS_PLATFORM: Final = 1 << 33
_QUEUE_SIZE: Final = 4

# The chipset's window to configuration space (Q35 MCH, PCIEXBAR).
_WINDOW_REGISTER, _WINDOW, _WINDOW_ENABLE = 0x60, 0xB000_0000, 1

_FIRST_EXTENDED, _ATS, _ATS_CONTROL, _ATS_ENABLE = 0x100, 0x0F, 6, 0x8000
_MOST_CAPABILITIES: Final = 64
_PERMISSIONS: Final = {AccessKind.READ: Permission.READ, AccessKind.WRITE: Permission.WRITE}


@dataclass(frozen=True, slots=True)
class Held:
    """Hold a translation as the device got it: size bytes from iova are at address."""

    iova: int
    size: int
    address: int
    kind: AccessKind

    def covers(self, iova: int) -> bool:
        """Say whether it translates an address."""
        return self.iova <= iova < self.iova + self.size


@dataclass(frozen=True, slots=True)
class Asked:
    """Hold what the device did with an address: what QEMU told it, or the translation it had.

    answer is None where QEMU gave none; used is what was there to be used before.
    """

    answer: Told | None
    used: Held | None


class AtsDevice:
    """Ask for translations as DMA of other devices is asked for; see harness.qemu.dma.DmaDevice.

    One that `keeps` them uses what it has, and asks for what it has not.
    """

    model = "vhost-user"
    width = 64
    write_alignment = 1

    def __init__(self, function: Function, keeps: bool) -> None:
        self._function = function
        self.keeps = keeps

    @property
    def function(self) -> Function:
        """Return the PCI function."""
        return self._function

    def prepare(self) -> Sequence[str]:
        """Return no commands: DeviceTlb starts the device."""
        return ()

    def operation(self, kind: AccessKind, _iova: int) -> Operation | None:
        """Return an operation without commands: it is carried out by asking."""
        return Operation((), ()) if kind in _PERMISSIONS else None


class DeviceTlb:
    """Own the device: start it after each reset, ask, keep, forget."""

    def __init__(self, pc: Pc, backend: VhostUser, queue: int) -> None:
        self._pc, self._backend, self._queue = pc, backend, queue
        self._held: list[Held] = []
        self.found()

    def found(self) -> None:
        """Find the device of a QEMU that has just started."""
        functions = self._pc.setup.functions.values()
        function = next((f for f in functions if (f.vendor, f.device) == IDS), None)
        if function is None:
            raise HarnessError("the machine has no vhost-user device")
        self.function = function
        self._pc.config.store(0, _WINDOW_REGISTER + 4, 4, 0)
        self._pc.config.store(0, _WINDOW_REGISTER, 4, _WINDOW | _WINDOW_ENABLE)
        self._config = Ecam(self._pc.machine, _WINDOW)
        self._ats = self._capability()
        self._virtio = VirtioPci(self._pc, function)

    def _capability(self) -> int:
        at = _FIRST_EXTENDED
        for _ in range(_MOST_CAPABILITIES):
            head = self._config.load(self.function.number, at, 4)
            if head & 0xFFFF == _ATS:
                return at
            at = head >> 20
            if at < _FIRST_EXTENDED:
                break
        raise HarnessError("the vhost-user device has no ATS capability")

    def devices(self) -> list[AtsDevice]:
        """Return the device as one that always asks, and as one that uses what it has."""
        return [AtsDevice(self.function, False), AtsDevice(self.function, True)]

    def start(self) -> None:
        """Start the device after a reset, while nothing is translated."""
        self._config.store(self.function.number, self._ats + _ATS_CONTROL, 2, _ATS_ENABLE)
        self._virtio.reset()
        _, accepted = self._virtio.negotiate(VERSION_1 | _ACCESS_PLATFORM)
        if not accepted & _ACCESS_PLATFORM:
            raise HarnessError("the vhost-user device is not behind the IOMMU")
        self._virtio.start([self._virtio.queue(0, self._queue, _QUEUE_SIZE)])
        # QEMU tells where the used ring is as soon as the device works.
        if not any(told.kind is Iotlb.UPDATE for told in self._backend.told()):
            raise HarnessError("QEMU does not start the vhost-user device")
        self._held = []

    def invalidations(self) -> list[Told]:
        """Return what QEMU has told the device to forget since the last call; it has done so."""
        found = [told for told in self._backend.told() if told.kind is Iotlb.INVALIDATE]
        for told in found:
            self.forget(told.iova, told.size - 1)
        return found

    def forget(self, address: int, mask: int) -> None:
        """Forget the translations of a range, given as its base and size - 1."""
        last = address + mask
        self._held = [h for h in self._held if last < h.iova or h.iova + h.size <= address]

    def use(self, keeps: bool, kind: AccessKind, iova: int) -> Asked:
        """Use a translation that the device has (if it keeps any), or ask for one."""
        if keeps:
            for held in reversed(self._held):
                if held.covers(iova) and held.kind is kind:
                    return Asked(None, held)
        try:
            given = self._backend.ask(iova, _PERMISSIONS[kind])
        except HarnessError as error:
            # One that hangs has been waited for.
            hangs = isinstance(error, HungError)
            raise error if hangs else self._pc.machine.process.ended() or error from error
        answers = [told for told in self._backend.told() if told.kind is Iotlb.UPDATE]
        if given != (len(answers) == 1):
            raise HarnessError(f"QEMU answers a request for {iova:#x} {len(answers)} times")
        for told in answers:
            if told.address is not None:
                self._held.append(Held(told.iova, told.size, told.address, kind))
        return Asked(answers[0] if answers else None, None)


def shown(address: int, mask: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of an invalidation that reach a device, as first and last address."""
    last = address + mask
    before, behind = INTERRUPTS[0] - 1, INTERRUPTS[1] + 1
    if address <= before:
        yield address, min(last, before)
    if last >= behind:
        yield max(address, behind), last
