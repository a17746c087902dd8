"""Fuzz VIOT tables alone, which are small enough to be searched deeply."""

from __future__ import annotations

from fuzzers.targets.acpi import AcpiTarget


def create() -> AcpiTarget:
    """Build the target."""
    target = AcpiTarget("viot", "VIOT tables, final and draft", (b"VIOT",))
    target.max_size = 1024
    return target
