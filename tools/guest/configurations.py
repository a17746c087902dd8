"""Say which machine, kernel options and work make up each named guest."""

from __future__ import annotations

import functools
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from tools.guest.kernel import Kernel

BLOCK, NIC, EDU = "00:03.0", "00:04.0", "00:05.0"
"""Where the guest's devices sit; with ATS the disk is behind a port and is 01:00.0."""


@dataclass(frozen=True)
class Configuration:
    """Describe a guest.

    unit: the device that translates. iommu: its properties; a name may offer alternatives for
    other versions of QEMU (``x-flts|fsts``). kernel: words for the kernel command line. work: steps
    of init.sh.
    """

    summary: str
    kernel: tuple[str, ...]
    iommu: tuple[str, ...] = ("intremap=on", "caching-mode=on")
    work: tuple[str, ...] = ("block", "net")
    ats: bool = False
    processors: int = 1
    edu: bool = False
    unit: str = "intel-iommu"


_LEGACY = ("intel_iommu=on,sm_off", "iommu.strict=1")
_virtio = functools.partial(Configuration, unit="virtio-iommu-pci", iommu=())

CONFIGURATIONS = {
    "legacy-strict": Configuration("second-stage tables, an invalidation for each unmap", _LEGACY),
    "legacy-device-tlb": Configuration(
        "the same, and virtio-blk keeps a device TLB (ATS)",
        _LEGACY,
        iommu=("intremap=on", "caching-mode=on", "device-iotlb=on"),
        ats=True,
    ),
    "scalable-first-stage": Configuration(
        "scalable mode: PASID tables, first-stage tables, 256-bit descriptors",
        ("intel_iommu=on,sm_on", "iommu.strict=1"),
        iommu=("intremap=on", "x-scalable-mode|scalable-mode=on", "x-flts|fsts=on"),
    ),
    "lazy": Configuration(
        "invalidations are batched: a device can use what is already unmapped",
        ("intel_iommu=on,sm_off", "iommu.strict=0"),
        # Linux batches nothing in caching mode.
        iommu=("intremap=on", "caching-mode=off"),
    ),
    "hot-unplug": Configuration(
        "devices lose their driver and leave the bus, and come back",
        _LEGACY,
        work=("block", "net", "rebind", "block", "net", "hotplug", "block", "net"),
    ),
    "faults": Configuration(
        "devices access addresses that are not mapped; the unit refuses and reports",
        (*_LEGACY, "iomem=relaxed"),
        work=("block", "net", "faults", "block"),
        edu=True,
    ),
    "passthrough": Configuration(
        "context entries in pass-through mode", ("intel_iommu=on,sm_off", "iommu=pt")
    ),
    "reboot": Configuration(
        "the machine is reset while devices are in use, and boots again",
        _LEGACY,
        work=("block", "reboot", "net"),
    ),
    "smp": Configuration("legacy-strict on two processors", _LEGACY, processors=2),
    "interrupts": Configuration(
        "interrupts move between processors; a device sends some that the unit refuses",
        (*_LEGACY, "iomem=relaxed"),
        work=("affinity", "net", "rebind", "interrupts", "affinity"),
        processors=2,
        edu=True,
    ),
    "virtio-iommu": _virtio(
        "a virtio-iommu, a request to unmap for each unmap",
        ("iommu.strict=1",),
    ),
    "virtio-iommu-lazy": _virtio(
        "the same, and pages are unmapped some time later, many with one notification",
        ("iommu.strict=0",),
    ),
    "virtio-iommu-bypass": _virtio(
        "domains that bypass, and config.bypass switched off and on while devices are in use",
        ("iommu=pt", "iomem=relaxed"),
        work=("block", "net", "bypass", "block", "net"),
    ),
    "virtio-iommu-faults": _virtio(
        "devices come and go, and access addresses that are not mapped, with a domain and without",
        ("iommu.strict=1", "iomem=relaxed"),
        work=("block", "net", "rebind", "hotplug", "block", "net", "virtio-faults", "block"),
        edu=True,
    ),
    "virtio-iommu-reboot": _virtio(
        "the machine is reset while devices are in use, and boots again",
        ("iommu.strict=1",),
        work=("block", "reboot", "net"),
    ),
}


@functools.cache
def properties(qemu: str, device: str) -> frozenset[str]:
    """Return the names of the properties that a device of this QEMU has."""
    try:
        shown = subprocess.run(
            [qemu, "-device", f"{device},help"], capture_output=True, text=True, timeout=60
        )
    except OSError as error:
        raise HarnessError(f"cannot run {qemu}: {error}; install qemu-system-x86") from error
    return frozenset(re.findall(r"^\s+([\w-]+)=", shown.stdout, re.MULTILINE))


def _iommu_device(configuration: Configuration, qemu: str) -> str:
    chosen = []
    for wanted in configuration.iommu:
        names, value = wanted.rsplit("=", 1)
        known = [name for name in names.split("|") if name in properties(qemu, configuration.unit)]
        if not known:
            raise HarnessError(
                f"{qemu} does not know {configuration.unit}'s property {names.split('|')[-1]}; "
                "first-stage translation needs QEMU 10.0 or newer"
            )
        chosen.append(f"{known[0]}={value}")
    return ",".join([configuration.unit, *chosen])


def command_line(
    configuration: Configuration,
    kernel: Kernel,
    initramfs: Path,
    disk: Path,
    share: Path,
    *,
    qemu: str = "qemu-system-x86_64",
    memory: str = "512M",
    mebibytes: int = 2,
) -> list[str]:
    """Return the QEMU command line that runs a guest until it has turned itself off.

    disk is a raw image of more than `mebibytes`, share the folder that holds the payload.
    """
    # Without iommu_platform a virtio device bypasses the unit, and it needs the modern interface.
    block = "virtio-blk-pci,drive=disk,iommu_platform=on,disable-legacy=on"
    if configuration.ats:
        # Only a PCI Express device has ATS, and that needs a port above it.
        address = "01:00.0"
        port = ["-device", f"pcie-root-port,id=port1,chassis=1,addr={BLOCK[3:]}"]
        block += ",bus=port1,ats=on"
    else:
        address, port = BLOCK, []
        block += f",addr={BLOCK[3:]}"
    words = [
        "console=ttyS0 quiet loglevel=4 panic=-1 net.ifnames=0",
        # On a busy host the emulated timer can be too late for this check, and Linux panics.
        "no_timer_check",
        *configuration.kernel,
        f"dmarewind.work={','.join(configuration.work)}",
        f"dmarewind.mib={mebibytes}",
        f"dmarewind.blk={address} dmarewind.nic={NIC} dmarewind.edu={EDU}",
    ]
    command = [
        *(qemu, "-machine", "q35", "-accel", "tcg", "-cpu", "qemu64", "-m", memory),
        *("-nodefaults", "-display", "none", "-serial", "stdio"),
        *("-device", _iommu_device(configuration, qemu)),
        *("-drive", f"if=none,id=disk,format=raw,file={disk}"),
        *(*port, "-device", block),
        *("-netdev", f"user,id=net,restrict=on,tftp={share}"),
        *("-device", f"e1000e,netdev=net,addr={NIC[3:]}"),
        *("-kernel", str(kernel.image), "-initrd", str(initramfs), "-append", " ".join(words)),
    ]
    if "reboot" not in configuration.work:
        command += ["-no-reboot"]  # a kernel that panics ends the run
    if configuration.processors > 1:
        command += ["-smp", str(configuration.processors)]
    if configuration.edu:
        command += ["-device", f"edu,addr={EDU[3:]},dma_mask=0xffffffffffffffff"]
    return command
