"""Which options make an intel-iommu what a recording says of its unit, and what cannot be had.

Facts: vtd_cap_init and the properties in hw/i386/intel_iommu.c of QEMU 10.0 and 11.1.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Final

from decoders.layout import layout
from decoders.vtd.registers import Capability, ExtendedCapability, address_width
from harness.errors import HarnessError

_CAP: Final = layout(Capability)
_ECAP: Final = layout(ExtendedCapability)

_NAMES: Final = {
    "scalable": ("scalable-mode", "x-scalable-mode"),
    "first-stage": ("fsts", "x-flts"),
}
"""What options are called, in the versions that have them."""

_HELP_SECONDS: Final = 20.0

_OF_CAP: Final = {"caching-mode": "cm", "fs1gp": "fs1gp"}
_OF_ECAP: Final = {
    "device-iotlb": "dt", "snoop-control": "sc", "scalable": "smts", "first-stage": "fsts",
    "intremap": "ir", "pt": "pt",
}  # fmt: skip
"""Fields that an option sets."""

_DEFAULTS: Final = {"fs1gp": "on", "pt": "on"}
"""Options whose default is not off. Where it is right they are not given."""

_TOLERATED: Final = {
    Capability: ("dwd", "drd", "esrtps", "esirtps"),
    ExtendedCapability: ("eim",),
}
"""Fields that may differ: the permitted set is that of the unit that runs, and interrupt requests
are not repeated."""


def spelled(program: str, wanted: Mapping[str, str]) -> str:
    """Return the value of -device for options, in the words of this QEMU.

    Errors: HarnessError when it has no intel-iommu, or not with what is wanted.
    """
    known = _known_options(program)
    words = ["intel-iommu"]
    for option, value in wanted.items():
        name = next((n for n in _NAMES.get(option, (option,)) if n in known), None)
        if name is None:
            raise HarnessError(f"{program} has no intel-iommu with {option}")
        words.append(f"{name}={value}")
    return ",".join(words)


def options_for(capability: int, extended_capability: int) -> dict[str, str]:
    """Return the options that come closest to a unit with these CAP and ECAP."""
    found = {"aw-bits": str(address_width(capability))}
    for option, name in _OF_CAP.items():
        found[option] = "on" if _CAP[name].get((capability,)) else "off"
    for option, name in _OF_ECAP.items():
        found[option] = "on" if _ECAP[name].get((extended_capability,)) else "off"
    if found["scalable"] == "off":
        found["first-stage"] = "off"
    # FS1GP counts with the first stage only, and is off without it.
    if found["first-stage"] == "off":
        found["fs1gp"] = "on"
    usual = {option: _DEFAULTS.get(option, "off") for option in found}
    kept = ("aw-bits", "intremap")
    return {o: value for o, value in found.items() if o in kept or value != usual[o]}


def differing(
    recorded: tuple[int, int], running: tuple[int, int]
) -> list[tuple[str, str, int, int]]:
    """Return what matters and differs between two units (CAP, ECAP): register, field, values."""
    found = []
    for register, shape, ours, theirs in (
        ("CAP", Capability, recorded[0], running[0]),
        ("ECAP", ExtendedCapability, recorded[1], running[1]),
    ):
        fields = layout(shape).fields
        for name, field in fields.items():
            left, right = field.get((ours,)), field.get((theirs,))
            if left != right and name not in _TOLERATED[shape]:
                found.append((register, name.upper(), left, right))
    return found


def _known_options(program: str) -> set[str]:
    try:
        said = subprocess.run(
            [program, "-device", "intel-iommu,help"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_HELP_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HarnessError(f"cannot run {program}: {error}") from error
    lines = said.stdout.decode(errors="replace").splitlines()
    found = {line.split("=")[0].strip() for line in lines if "=<" in line}
    if not found:
        told = said.stderr.decode(errors="replace").strip()[:200]
        raise HarnessError(f"{program} has no intel-iommu: {told}")
    return found
