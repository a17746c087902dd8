"""Make the root file system of a guest: busybox, a few modules, and one script."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from pathlib import Path

from harness.errors import HarnessError
from tools.guest.cpio import Archive
from tools.guest.kernel import Kernel, load_order

MODULES = ["virtio_pci", "virtio_iommu", "virtio_blk", "e1000e", "pci_stub"]
"""The drivers of the guest's devices; what a kernel has built in is skipped."""
PAYLOAD_SIZE = 300_000


def payload() -> bytes:
    """Return the file that the guest fetches over the network: fixed, and without repetitions."""
    blocks = (PAYLOAD_SIZE + 63) // 64
    data = b"".join(hashlib.sha512(b"dmarewind %d" % block).digest() for block in range(blocks))
    return data[:PAYLOAD_SIZE]


def find_busybox() -> Path:
    """Return a statically linked busybox."""
    found = shutil.which("busybox")
    if found is None:
        raise HarnessError("busybox is missing; install busybox-static (Debian, Ubuntu) or busybox")
    busybox = Path(found).resolve()
    # A dynamic program names its loader; the guest has none.
    if b"/ld-linux" in busybox.read_bytes():
        raise HarnessError(f"{busybox} is not statically linked; install busybox-static")
    return busybox


def build(kernel: Kernel) -> bytes:
    """Return a compressed initramfs; equal inputs give equal bytes."""
    archive = Archive()
    for path in ("dev", "proc", "sys", "tmp", "bin"):
        archive.directory(path)
    # The kernel opens /dev/console before anything can be mounted.
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", find_busybox().read_bytes(), executable=True)
    archive.file("init", Path(__file__).with_name("init.sh").read_bytes(), executable=True)
    archive.file("payload", payload())
    order = load_order(kernel, MODULES)
    for name, module in order:
        archive.file(f"modules/{name}.ko", module)
    archive.file("modules/order", "".join(f"{name}\n" for name, _ in order).encode())
    return gzip.compress(archive.finish(), compresslevel=6, mtime=0)
