"""Print or run the command line of a guest: python -m tools.guest CONFIGURATION."""

from __future__ import annotations

import argparse
import hashlib
import shlex
import subprocess
import sys
from pathlib import Path

from harness.errors import HarnessError
from tools.guest import kernel as kernels
from tools.guest.configurations import CONFIGURATIONS, command_line
from tools.guest.initramfs import build, payload


def prepare(
    name: str,
    cache: Path = kernels.CACHE,
    *,
    kernel_directory: Path | None = None,
    download: bool = True,
    qemu: str = "qemu-system-x86_64",
    memory: str = "512M",
    mebibytes: int = 2,
    run: str = "",
) -> list[str]:
    """Make a guest's files in the cache and return its QEMU command line.

    run tells apart guests that run at the same time: each has its own disk.
    """
    kernel = kernels.find(kernel_directory, cache, download=download)
    share = cache / "tftp"
    share.mkdir(parents=True, exist_ok=True)
    (share / "payload").write_bytes(payload())
    image = build(kernel)
    initramfs = cache / f"initramfs-{hashlib.sha256(image).hexdigest()[:12]}.gz"
    if not initramfs.exists():
        partial = initramfs.with_suffix(f".{run}new")
        partial.write_bytes(image)
        partial.rename(initramfs)
    disk = cache / f"disk{run}.raw"
    with disk.open("wb") as file:
        file.truncate((mebibytes + 1) << 20)  # the last one is for a mark
    return command_line(
        CONFIGURATIONS[name],
        kernel,
        initramfs,
        disk,
        share,
        qemu=qemu,
        memory=memory,
        mebibytes=mebibytes,
    )


def main(arguments: list[str] | None = None) -> int:
    """Print or run a guest; 0 when every step of its work went well, 1 when one did not."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.guest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="configurations:\n"
        + "".join(f"  {name:22}{one.summary}\n" for name, one in CONFIGURATIONS.items()),
    )
    parser.add_argument("configuration", nargs="?", choices=CONFIGURATIONS, metavar="CONFIGURATION")
    parser.add_argument("--run", action="store_true", help="run it instead of printing it")
    parser.add_argument("--fetch", action="store_true", help="only make sure there is a kernel")
    parser.add_argument(
        "--kernel-dir",
        type=Path,
        help="folder with boot/vmlinuz-* and lib/modules/* (default: $DMAREWIND_KERNEL_DIR, then "
        "what was fetched before, then this machine's own, then a download with apt-get)",
    )
    parser.add_argument("--cache", type=Path, default=kernels.CACHE, help="(default: %(default)s)")
    parser.add_argument("--qemu", default="qemu-system-x86_64", help="program to run")
    parser.add_argument("--memory", default="512M", help="guest RAM (default: %(default)s)")
    parser.add_argument(
        "--mib", type=int, default=2, help="MiB per pass over the disk (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        if options.fetch:
            print(kernels.find(options.kernel_dir, options.cache).image)
            return 0
        if options.configuration is None:
            parser.error("name a configuration")
        command = prepare(
            options.configuration,
            options.cache,
            kernel_directory=options.kernel_dir,
            qemu=options.qemu,
            memory=options.memory,
            mebibytes=options.mib,
        )
        if not options.run:
            print(shlex.join(command))
            return 0
        return run(command)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(command: list[str]) -> int:
    """Run a guest with its console on ours; 0 when all its steps went well, else 1."""
    good = False
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        failed = False
        for line in process.stdout:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            failed |= line.startswith(b"guest:") and b"FAILED" in line
            good |= line.startswith(b"guest: done")
    return 0 if good and not failed and process.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
