"""Let the decoders with their resolver, and the native core, take a table; fail on a difference."""

from __future__ import annotations

import os

from fuzzers.acpi_compare import DEVICES, Group, Tally, groups
from harness.acpi.topology import Device, NamedDevice

EXAMPLES = 1000 if os.environ.get("DMAREWIND_REQUIRE") == "all" else 150
"""Tables that Hypothesis makes up in one test."""

_NAMED: tuple[Device, ...] = (
    NamedDevice("\\_SB.DEV1"),
    NamedDevice("AMDI0020", "\\_SB.UA0"),
    NamedDevice("\\_SB.IWB0"),
)


def everyone() -> list[Group]:
    """Return all devices at once, with each topology."""
    devices = DEVICES + _NAMED
    return groups(devices, len(devices))


def compare(name: str, data: bytes, asked: list[Group]) -> Tally:
    """Let both take a table; fail when they differ."""
    tally = Tally()
    for group in asked:
        tally.compare(name, data, group)
    assert tally.differences == []
    return tally
