"""Boot Linux on one of the machines and ask it which device is behind which IOMMU.

`python -m tests.harness.acpi.linux_guest FOLDER [NAME...]` keeps the answers. Machines with Arm
processors need DMAREWIND_ARM_DIR: a folder into which Debian's linux-image-6.12-arm64 (the package
with the image), busybox-static of arm64 and qemu-efi-aarch64 were unpacked (dpkg -x).
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.acpi.machines import MACHINES
from harness.errors import HarnessError
from tools.guest import kernel as kernels
from tools.guest.cpio import Archive
from tools.guest.initramfs import find_busybox
from tools.guest.kernel import load_order

TIMEOUT = 240
ARM_VARIABLE = "DMAREWIND_ARM_DIR"

INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
# The kernel writes to the console by itself; a program's output needs interrupts, which some of
# the machines do not deliver.
exec >/dev/kmsg
while read -r module; do insmod "/modules/$module.ko"; done </modules/order
sleep 1
# Linux reads a VIOT for a device when a driver is bound to it; some have none here.
for path in /sys/bus/pci/devices/*; do
    [ -e "$path/driver" ] && continue
    echo pci-stub >"$path/driver_override"
    echo "$(basename "$path")" >/sys/bus/pci/drivers_probe
done
for path in /sys/bus/pci/devices/*; do
    group=none iommu=none
    [ -e "$path/iommu_group" ] && group=$(basename "$(readlink "$path/iommu_group")")
    [ -e "$path/iommu" ] && iommu=$(basename "$(readlink "$path/iommu")")
    config=$(head -c 256 "$path/config" | xxd -p | tr -d '\n')
    echo "<1>device $(basename "$path") $group $iommu $config"
done
again='.* \(\S*\): stream \([0-9]*\) already in tree from dev \(\S*\)$'
# A message is one write.
dmesg | sed -n "s/$again/<1>taken \1 \2 \3/p" | while read -r line; do echo "$line"; done
for name in DMAR IORT IVRS VIOT; do
    file=/sys/firmware/acpi/tables/$name
    [ -e $file ] && echo "<1>table $name $(xxd -p $file | tr -d '\n')"
done
echo "<1>end"
poweroff -f
"""
DEVICE = re.compile(r"device (\S+) (\S+) (\S+) ([0-9a-f]{512})")
TAKEN = re.compile(r"taken (\S+) (\d+) (\S+)")
TABLE = re.compile(r"table (\w+) ([0-9a-f]+)")


@dataclass(frozen=True)
class Parts:
    """Hold what guests of one architecture are made from.

    attached finds, in what QEMU traces as event, the endpoint ids that Linux gave to an IOMMU.
    """

    kernel: kernels.Kernel
    busybox: Path
    options: tuple[str, ...]
    words: str
    events: tuple[str, ...]
    attached: re.Pattern[str]


WORDS = "quiet loglevel=3 printk.devkmsg=on panic=-1"


def x86_parts() -> Parts:
    return Parts(
        kernels.find(download=False),
        find_busybox(),
        (),
        f"console=ttyS0 no_timer_check intel_iommu=on amd_iommu=on {WORDS}",
        ("virtio_iommu_attach",),
        re.compile(r"virtio_iommu_attach domain=\d+ endpoint=(\d+)"),
    )


def arm_parts() -> Parts:
    given = os.environ.get(ARM_VARIABLE)
    if not given:
        raise HarnessError(f"{ARM_VARIABLE} names no folder with the parts of an Arm guest")
    folder = Path(given)
    kernel = kernels.in_directory(folder)
    busybox, firmware = folder / "bin/busybox", folder / "usr/share/qemu-efi-aarch64/QEMU_EFI.fd"
    if kernel is None or not busybox.is_file() or not firmware.is_file():
        raise HarnessError(
            f"{folder} lacks boot/vmlinuz-VERSION with modules, {busybox.name} or {firmware.name}"
        )
    return Parts(
        kernel,
        busybox,
        # Firmware and Linux need more memory, and this processor is faster to emulate than "max".
        # None of these changes a table.
        ("-m", "1G", "-cpu", "cortex-a72", "-bios", str(firmware)),
        f"console=ttyAMA0 {WORDS}",
        ("virtio_iommu_attach", "smmuv3_cmdq_cfgi_ste"),
        re.compile(
            r"virtio_iommu_attach domain=\d+ endpoint=(\d+)"
            r"|smmuv3_cmdq_cfgi_ste streamid= (0x[0-9a-f]+)"
        ),
    )


def parts(name: str) -> Parts:
    """Give the parts of a machine's guest; raise HarnessError where one is missing."""
    return arm_parts() if name.startswith("arm") else x86_parts()


def initramfs(made_of: Parts) -> bytes:
    archive = Archive()
    for path in ("dev", "proc", "sys", "bin"):
        archive.directory(path)
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", made_of.busybox.read_bytes(), executable=True)
    archive.file("init", INIT.encode(), executable=True)
    order = load_order(made_of.kernel, ["virtio_pci", "virtio_iommu", "pci_stub"])
    for name, module in order:
        archive.file(f"modules/{name}.ko", module)
    archive.file("modules/order", "".join(f"{name}\n" for name, _ in order).encode())
    return gzip.compress(archive.finish(), mtime=0)


def ask(name: str) -> dict[str, Any]:
    """Boot a machine; give tables, devices with bridges and groups, attached endpoints."""
    made_of = parts(name)
    with tempfile.TemporaryDirectory() as folder:
        image, trace = Path(folder) / "initramfs", Path(folder) / "trace"
        image.write_bytes(initramfs(made_of))
        command = [
            *(word for word in shlex.split(MACHINES[name]) if word != "-S"),
            *made_of.options,
            *("-kernel", str(made_of.kernel.image), "-initrd", str(image)),
            *("-append", made_of.words, "-serial", "stdio", "-no-reboot"),
            *("-d", ",".join(f"trace:{event}" for event in made_of.events), "-D", str(trace)),
        ]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
        )
        output = done.stdout.decode(errors="replace")
        logged = trace.read_text() if trace.exists() else ""
        attached = [found[found.lastindex or 0] for found in made_of.attached.finditer(logged)]
    assert re.search(r"\bend\b", output), output[-2000:] + done.stderr.decode(errors="replace")
    devices = []
    for address, group, iommu, config in DEVICE.findall(output):
        header = bytes.fromhex(config)
        bridge = header[0x0E] & 0x7F == 1
        devices.append(
            {
                "device": address,
                "group": None if group == "none" else int(group),
                "iommu": None if iommu == "none" else iommu,
                "bridge": list(header[0x19:0x1B]) if bridge else None,
                "id": f"{header[0:2][::-1].hex()}:{header[2:4][::-1].hex()}",
                "port": _port_type(header),
            }
        )
    answer = {
        "kernel": made_of.kernel.version,
        "tables": dict(TABLE.findall(output)),
        "devices": devices,
        "endpoints": sorted({int(endpoint, 0) for endpoint in attached}),
    }
    taken = [[device, int(number), by] for device, number, by in TAKEN.findall(output)]
    return answer | {"taken": taken} if taken else answer


def _port_type(header: bytes) -> int | None:
    """Give the device/port type of the PCI Express capability, if there is one."""
    at, seen = header[0x34] if header[6] & 0x10 else 0, set()
    while at and at not in seen and at + 4 <= len(header):
        seen.add(at)
        if header[at] == 0x10:
            return header[at + 2] >> 4
        at = header[at + 1]
    return None


def main() -> int:
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or MACHINES:
        answer = ask(name)
        (folder / f"{name}.linux.json").write_text(json.dumps(answer, indent=1) + "\n")
        print(name, len(answer["devices"]), answer["endpoints"], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
