"""Find the QEMU plugin that watches the guest, or build it from a checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from harness.errors import HarnessError
from harness.files import replacing

NAME = "dmarewind-recorder.so"
VARIABLE = "DMAREWIND_RECORDER"
_ROOT = Path(__file__).resolve().parents[2]
_SOURCES = _ROOT / "tools" / "recorder"


def find() -> Path:
    """Return the plugin: of DMAREWIND_RECORDER, built from this checkout, or as installed.

    A checkout's sources come first, because an editable installation may be older than them.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            raise HarnessError(f"{VARIABLE} names {named}, which is no file")
        return Path(named).resolve()
    if (_SOURCES / "plugin.c").is_file() and (compiler := _compiler()):
        return build(compiler, _ROOT / "build" / "recorder")
    for folder in (Path(__file__).parents[1], Path(sysconfig.get_path("platlib")) / "harness"):
        if (folder / "native" / NAME).is_file():
            return folder / "native" / NAME
    raise HarnessError(
        f"the recorder plugin {NAME} is missing; install dmarewind with pip, or a C compiler (gcc) "
        "to build it from this checkout"
    )


def build(compiler: str, folder: Path) -> Path:
    """Compile the plugin into a folder, unless these sources were compiled there before."""
    sources = sorted(_SOURCES.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    plugin = folder / digest[:16] / NAME
    if plugin.is_file():
        return plugin
    plugin.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-std=gnu11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread"]
    with replacing(plugin) as draft:
        done = subprocess.run(
            [compiler, *flags, "-o", str(draft), *map(str, sorted(_SOURCES.glob("*.c")))],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise HarnessError(f"{compiler} cannot build the recorder plugin:\n{done.stderr}")
    return plugin


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
