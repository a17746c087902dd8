"""Take the IOMMU tables of QEMU's machines: `python -m harness.acpi.machines FOLDER`.

On x86 QEMU's firmware runs first, because the tables name the bus numbers that it gave; then they
are read from memory. On Arm they are read from the firmware files of a stopped machine, after its
buses have been numbered in the same way.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from decoders.acpi.tables import READERS
from decoders.errors import DecodeError
from harness.acpi.firmware import FirmwareFiles
from harness.acpi.memory import BIOS_AREA, find_root_pointer, tables
from harness.errors import HarnessError
from harness.qemu.pci import Ecam, number_buses
from harness.qemu.qtest import Machine, running

_X86: Final = "qemu-system-x86_64 -accel tcg -m 256M -nodefaults -display none -machine q35"
_ARM: Final = "qemu-system-aarch64 -accel tcg -S -m 256M -nodefaults -display none -cpu max"
_GIC3: Final = f"{_ARM} -machine virt,gic-version=3"
_SMMU: Final = f"{_GIC3},iommu=smmuv3"
_NIC: Final = " -device e1000e,addr=4"
_BRIDGES: Final = (
    " -device pcie-root-port,id=rp1,slot=1,addr=4 -device pcie-root-port,id=rp2,slot=2,addr=5"
    " -device virtio-net-pci,bus=rp1 -device pcie-pci-bridge,id=pp,bus=rp2"
    " -device e1000,bus=pp,addr=3 -device virtio-rng-pci,addr=6"
)
_PXB: Final = (
    " -device pxb-pcie,id=pxb,bus_nr=64,bus=pcie.0 -device pcie-root-port,id=pr,bus=pxb,slot=9"
    " -device virtio-net-pci,bus=pr"
)
_PXB_BYPASS: Final = _PXB.replace("bus_nr=64", "bus_nr=64,bypass_iommu=true")
_PXB_BETWEEN: Final = _PXB_BYPASS + (
    " -device pxb-pcie,id=pxb2,bus_nr=128,bus=pcie.0 -device pcie-root-port,id=pr2,bus=pxb2,slot=10"
    " -device pcie-pci-bridge,id=pp2,bus=pr2 -device e1000,bus=pp2,addr=3"
)
_TWO_PXB: Final = _PXB + (
    " -device pxb-pcie,id=pxb2,bus_nr=128,bus=pcie.0,bypass_iommu=true"
    " -device pcie-root-port,id=pr2,bus=pxb2,slot=10 -device e1000e,bus=pr2"
)
_DEEP: Final = (
    " -device pcie-root-port,id=rp1,slot=1,addr=4 -device x3130-upstream,id=up,bus=rp1"
    " -device xio3130-downstream,id=d1,bus=up,slot=2 -device virtio-net-pci,bus=d1"
    " -device xio3130-downstream,id=d2,bus=up,slot=3 -device pcie-pci-bridge,id=pp,bus=d2"
    " -device pci-bridge,id=pb,bus=pp,chassis_nr=1,addr=2 -device e1000,bus=pb,addr=3"
    " -device e1000,bus=pp,addr=4 -device i82801b11-bridge,id=ib,addr=7"
    " -device e1000,bus=ib,addr=5 -device e1000,bus=ib,addr=6"
)

MACHINES: Final = {
    "x86-intel": f"{_X86} -device intel-iommu -device e1000e,addr=3",
    "x86-intel-intremap": f"{_X86},kernel-irqchip=split -device intel-iommu,intremap=on,eim=on",
    "x86-intel-ats": f"{_X86} -device intel-iommu,device-iotlb=on,caching-mode=on{_BRIDGES}",
    "x86-intel-scalable": f"{_X86} -device intel-iommu,x-scalable-mode=on,x-flts=on,aw-bits=48",
    "x86-intel-39bit": f"{_X86} -device intel-iommu,aw-bits=39,intremap=off",
    "x86-intel-bridges": f"{_X86} -device intel-iommu{_BRIDGES}",
    "x86-intel-pxb": f"{_X86} -device intel-iommu{_BRIDGES}{_PXB}",
    "x86-intel-pxb-bypass": f"{_X86} -device intel-iommu{_BRIDGES}{_PXB_BYPASS}",
    "x86-intel-default-bypass": f"{_X86},default-bus-bypass-iommu=on -device intel-iommu{_PXB}",
    "x86-amd": f"{_X86} -device amd-iommu -device e1000e,addr=3",
    "x86-amd-intremap": f"{_X86},kernel-irqchip=split -device amd-iommu,intremap=on,xtsup=on",
    "x86-amd-ats": f"{_X86} -device amd-iommu,device-iotlb=on{_BRIDGES}",
    "x86-amd-bridges": f"{_X86} -device amd-iommu{_BRIDGES}",
    "x86-amd-pxb": f"{_X86} -device amd-iommu{_BRIDGES}{_PXB}",
    "x86-virtio": f"{_X86} -device virtio-iommu-pci,addr=3 -device e1000e,addr=4",
    "x86-virtio-bridges": f"{_X86} -device virtio-iommu-pci,addr=8{_BRIDGES}",
    "x86-virtio-pxb": f"{_X86} -device virtio-iommu-pci,addr=8{_BRIDGES}{_PXB}",
    "x86-virtio-pxb-bypass": f"{_X86} -device virtio-iommu-pci,addr=8{_TWO_PXB}",
    "arm-its": f"{_GIC3},its=on{_NIC}",
    "arm-smmuv3": f"{_SMMU}{_NIC}",
    "arm-smmuv3-no-its": f"{_GIC3},its=off,iommu=smmuv3{_NIC}",
    "arm-smmuv3-gicv2": f"{_ARM} -machine virt,gic-version=2,iommu=smmuv3 -smp 1{_NIC}",
    "arm-smmuv3-bridges": f"{_SMMU}{_BRIDGES}",
    "arm-smmuv3-deep": f"{_SMMU}{_DEEP}",
    "arm-smmuv3-pxb": f"{_SMMU}{_PXB}",
    "arm-smmuv3-pxb-bypass": f"{_SMMU}{_TWO_PXB}",
    "arm-smmuv3-pxb-between": f"{_SMMU}{_BRIDGES}{_PXB_BETWEEN}",
    "arm-smmuv3-default-bypass": f"{_SMMU},default-bus-bypass-iommu=on{_PXB}",
    "arm-virtio": f"{_GIC3} -device virtio-iommu-pci,addr=3{_NIC}",
    "arm-virtio-no-its": f"{_GIC3},its=off -device virtio-iommu-pci{_NIC}",
    "arm-virtio-bridges": f"{_GIC3} -device virtio-iommu-pci,addr=8{_BRIDGES}",
    "arm-virtio-pxb": f"{_GIC3} -device virtio-iommu-pci,addr=3{_PXB}",
    "arm-virtio-pxb-between": f"{_GIC3} -device virtio-iommu-pci,addr=8{_BRIDGES}{_PXB_BETWEEN}",
}
"""Command lines of the machines whose tables are kept, by name."""

_ARM_ECAM: Final = 0x40_1000_0000
_ARM_FW_CFG: Final = 0x0902_0010
_ARM_SCRATCH: Final = 0x4100_0000
_PATIENCE: Final = 120.0


def take(command: Sequence[str]) -> dict[str, bytes]:
    """Run a machine and return its IOMMU tables by signature."""
    with running(command) as machine:
        found = _stopped_arm(machine) if "-S" in command else _booted_pc(machine)
        return {t[:4].decode("ascii"): t for t in found if t[:4] in READERS}


def _booted_pc(machine: Machine) -> list[bytes]:
    """Wait until firmware has left the same sound tables twice."""
    deadline = time.monotonic() + _PATIENCE
    before: list[bytes] = []
    while time.monotonic() < deadline:
        time.sleep(0.5)
        place = find_root_pointer(machine.read(*BIOS_AREA))
        if place is None:
            continue
        try:
            found = list(tables(machine.read, BIOS_AREA[0] + place))
        except DecodeError:
            continue  # not all is in its place yet
        if found and found == before and not any(sum(table) & 0xFF for table in found):
            return found
        before = found
    raise HarnessError(f"firmware made no ACPI tables within {_PATIENCE:.0f} s")


def _stopped_arm(machine: Machine) -> Iterator[bytes]:
    number_buses(Ecam(machine, _ARM_ECAM))
    data = FirmwareFiles(machine, _ARM_FW_CFG, _ARM_SCRATCH).acpi_tables()
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if length < 8 or not data[at : at + 4].isalnum():
            at += 1
            continue
        yield data[at : at + length]
        at += length


def main() -> int:
    """Write the tables of the machines named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a machine")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in args.names or MACHINES:
        try:
            found = take(shlex.split(MACHINES[name]))
        except HarnessError as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            return 2
        for signature, table in found.items():
            (args.folder / f"{name}.{signature.lower()}").write_bytes(table)
        print(f"{name}: {' '.join(f'{s} {len(t)}' for s, t in found.items()) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
