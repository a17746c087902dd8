"""Show a sequence that ran on a VT-d unit to a plain QEMU, as a shell script."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Final

from harness.qemu.landing import PAGE
from harness.qemu.pc import RAM_SIZE
from harness.qemu.vtd import REGISTERS, VtdQemu

_WORDS: Final = (
    "-nodefaults -display none -S -accel tcg -machine q35 -m 4M -qtest stdio -qtest-log /dev/null"
)

_VARIABLES: Final = {"scalable-mode": "SCALABLE", "flts": "FIRST", "fsts": "FIRST"}
"""What names an option in the environment: QEMU 11.0 calls them otherwise than 10 does."""
_RENAMED: Final = re.compile(r"(?<=,)((?:x-)?scalable-mode|x-flts|fsts)(?==)")


def script(
    qemu: VtdQemu,
    remarks: Sequence[str] = (),
    before: Sequence[str] = (),
    behind: Sequence[str] = (),
) -> str:
    """Return a shell script that does what was done since the last reset.

    Devices that have nothing to do in it are left out. Commands before and behind it are added.
    """
    lines = qemu.log[qemu.set_up :]
    alone = all(_is_about_the_unit(line) for line in lines)
    if not alone:
        lines = qemu.log
    lines = [*before, *lines, *behind]
    words = qemu.words[:1] if alone else qemu.words
    devices = " ".join(f"-device {_quoted(device)}" for device in words)
    version = ".".join(map(str, qemu.version))
    said = [
        *remarks,
        f"Seen on QEMU {version}. Each line is a qtest command; QEMU is ended after 5 s.",
    ]
    return "\n".join((
        "#!/bin/sh",
        *(f"# {line}" for line in said),
        f'timeout 5 "${{QEMU:-qemu-system-x86_64}}" {_WORDS} \\',
        f"    {devices} <<'END'",
        *lines,
        "END\n",
    ))  # fmt: skip


def _quoted(device: str) -> str:
    """Return a device as a word of the shell, with options that the environment may name."""
    named = _RENAMED.sub(
        lambda found: f"${{{_VARIABLES[found[1].removeprefix('x-')]}:-{found[1]}}}", device
    )
    return shlex.quote(device) if named == device else f'"{named}"'


def _is_about_the_unit(line: str) -> bool:
    """Say whether a command is about memory or the unit's registers, not about a device."""
    name, place, *_ = line.split()
    address = int(place, 0)
    if name.startswith(("in", "out")):
        return False
    return address < RAM_SIZE or address - address % PAGE == REGISTERS
