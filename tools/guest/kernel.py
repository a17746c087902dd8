"""Find a Debian kernel image with its modules, or fetch one."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import zstandard
from elftools.elf.elffile import ELFFile

from harness.errors import HarnessError

CACHE = Path("build/guest")
"""Where a fetched kernel and the made images are kept, below the current directory."""
DIRECTORY_VARIABLE = "DMAREWIND_KERNEL_DIR"

_MODULE_SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
_LARGEST_MODULE = 64 << 20


@dataclass(frozen=True)
class Kernel:
    """Name a kernel image and the folder of its modules (lib/modules/VERSION)."""

    version: str
    image: Path
    modules: Path


def in_directory(directory: Path) -> Kernel | None:
    """Return the newest kernel below a folder laid out like a file system root, if any."""
    found = []
    for image in directory.glob("boot/vmlinuz-*"):
        version = image.name.removeprefix("vmlinuz-")
        for modules in (directory / "lib/modules", directory / "usr/lib/modules"):
            if (modules / version / "kernel").is_dir() and os.access(image, os.R_OK):
                numbers = [int(number) for number in re.findall(r"\d+", version)]
                found.append((numbers, Kernel(version, image, modules / version)))
                break
    return max(found, key=lambda pair: pair[0])[1] if found else None


def fetch(cache: Path = CACHE) -> Kernel:
    """Download Debian's current kernel package and unpack it into the cache (needs no root)."""
    target = cache / "kernel"
    try:
        shown = subprocess.run(
            ["apt-cache", "depends", "linux-image-amd64"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        packages = re.findall(r"Depends: (linux-image-\d\S*)", shown)
        if not packages:
            raise HarnessError(
                "apt knows no package linux-image-amd64; run apt-get update, or give a folder "
                f"with boot/ and lib/modules in {DIRECTORY_VARIABLE} or --kernel-dir"
            )
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", packages[0]], cwd=target, check=True)
        package = next(iter(target.glob(f"{packages[0]}_*.deb")))
        subprocess.run(["dpkg", "-x", package.name, "."], cwd=target, check=True)
        package.unlink()
    except (OSError, subprocess.CalledProcessError) as error:
        raise HarnessError(f"cannot fetch a kernel with apt-get and dpkg: {error}") from error
    kernel = in_directory(target)
    if kernel is None:
        raise HarnessError(f"the package {packages[0]} holds no kernel with modules")
    return kernel


def find(directory: Path | None = None, cache: Path = CACHE, *, download: bool = True) -> Kernel:
    """Return the kernel of the given folder, of DMAREWIND_KERNEL_DIR, of the cache, the machine's
    own, or a freshly downloaded one: the first that there is.
    """
    if directory is None and os.environ.get(DIRECTORY_VARIABLE):
        directory = Path(os.environ[DIRECTORY_VARIABLE])
    if directory is not None:
        kernel = in_directory(directory)
        if kernel is None:
            raise HarnessError(
                f"{directory} holds no boot/vmlinuz-VERSION with lib/modules/VERSION/kernel"
            )
        return kernel
    kernel = in_directory(cache / "kernel") or in_directory(Path("/"))
    if kernel is None and not download:
        raise HarnessError("no kernel for the guest: run python -m tools.guest --fetch once")
    return kernel or fetch(cache)


def _decompress(path: Path) -> bytes:
    data = path.read_bytes()
    match path.suffix:
        case ".xz":
            return lzma.decompress(data)
        case ".zst":
            return zstandard.ZstdDecompressor().decompress(data, max_output_size=_LARGEST_MODULE)
        case ".gz":
            return gzip.decompress(data)
    return data


def _depends(module: bytes) -> list[str]:
    """List the modules that a module's .modinfo section names."""
    section = ELFFile(io.BytesIO(module)).get_section_by_name(".modinfo")
    if section is None:
        return []
    for field in bytes(section.data()).split(b"\0"):
        if field.startswith(b"depends="):
            return [name for name in field[8:].decode().split(",") if name]
    return []


def load_order(kernel: Kernel, wanted: list[str]) -> list[tuple[str, bytes]]:
    """Return the wanted modules and what they depend on, decompressed, in the order to load.

    A module that the kernel has built in, or lacks, is left out.
    """
    # File names use - and _ without a rule; the kernel treats them as the same.
    files = {
        path.name.partition(".")[0].replace("-", "_"): path
        for path in (kernel.modules / "kernel").rglob("*.ko*")
        if path.name.endswith(_MODULE_SUFFIXES)
    }
    order: dict[str, bytes] = {}

    def add(name: str, chain: tuple[str, ...]) -> None:
        name = name.replace("-", "_")
        if name in order or name in chain or name not in files:
            return
        module = _decompress(files[name])
        for needed in _depends(module):
            add(needed, (*chain, name))
        order[name] = module

    for name in wanted:
        add(name, ())
    return list(order.items())
