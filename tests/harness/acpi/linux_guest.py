"""Boot Linux on one of the machines and ask it which device is behind which IOMMU.

`python -m tests.harness.acpi.linux_guest FOLDER [NAME...]` keeps the answers.
"""

from __future__ import annotations

import gzip
import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.acpi.machines import MACHINES
from tools.guest import kernel as kernels
from tools.guest.cpio import Archive
from tools.guest.initramfs import find_busybox
from tools.guest.kernel import load_order

TIMEOUT = 240

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
for name in DMAR IVRS VIOT; do
    file=/sys/firmware/acpi/tables/$name
    [ -e $file ] && echo "<1>table $name $(xxd -p $file | tr -d '\n')"
done
echo "<1>end"
poweroff -f
"""
DEVICE = re.compile(r"device (\S+) (\S+) (\S+) ([0-9a-f]{512})")
TABLE = re.compile(r"table (\w+) ([0-9a-f]+)")
ATTACH = re.compile(r"virtio_iommu_attach domain=\d+ endpoint=(\d+)")


def initramfs(kernel: kernels.Kernel) -> bytes:
    archive = Archive()
    for path in ("dev", "proc", "sys", "bin"):
        archive.directory(path)
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", find_busybox().read_bytes(), executable=True)
    archive.file("init", INIT.encode(), executable=True)
    order = load_order(kernel, ["virtio_pci", "virtio_iommu", "pci_stub"])
    for name, module in order:
        archive.file(f"modules/{name}.ko", module)
    archive.file("modules/order", "".join(f"{name}\n" for name, _ in order).encode())
    return gzip.compress(archive.finish(), mtime=0)


def ask(name: str) -> dict[str, Any]:
    """Boot a machine; give tables, devices with bridges and groups, attached endpoints."""
    kernel = kernels.find(download=False)
    with tempfile.TemporaryDirectory() as folder:
        image, trace = Path(folder) / "initramfs", Path(folder) / "trace"
        image.write_bytes(initramfs(kernel))
        words = (
            "console=ttyS0 quiet loglevel=3 printk.devkmsg=on no_timer_check panic=-1"
            " intel_iommu=on amd_iommu=on"
        )
        command = [
            *shlex.split(MACHINES[name]),
            *("-kernel", str(kernel.image), "-initrd", str(image), "-append", words),
            *("-serial", "stdio", "-no-reboot", "-d", "trace:virtio_iommu_attach"),
            *("-D", str(trace)),
        ]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
        )
        output = done.stdout.decode(errors="replace")
        attached = ATTACH.findall(trace.read_text()) if trace.exists() else []
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
    return {
        "kernel": kernel.version,
        "tables": dict(TABLE.findall(output)),
        "devices": devices,
        "endpoints": sorted({int(endpoint) for endpoint in attached}),
    }


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
    for name in sys.argv[2:] or [name for name in MACHINES if name.startswith("x86")]:
        answer = ask(name)
        (folder / f"{name}.linux.json").write_text(json.dumps(answer, indent=1) + "\n")
        print(name, len(answer["devices"]), answer["endpoints"], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
