"""Say which IOMMU a device is behind, by any kind of table."""

from __future__ import annotations

from decoders.acpi.tree import Table
from harness.acpi.answers import Answer, Nowhere, Why
from harness.acpi.resolve_dmar import resolve_dmar
from harness.acpi.resolve_iort import resolve_iort
from harness.acpi.resolve_ivrs import resolve_ivrs
from harness.acpi.resolve_viot import resolve_viot
from harness.acpi.topology import Device, Topology


def resolve(table: Table, device: Device, topology: Topology | None = None) -> Answer:
    """Return the IOMMU of a device and its endpoint id there, or why there is none.

    topology has the bridges of the machine; without one, a device whose answer depends on them
    gets `Why.TOPOLOGY`, and the id that a device behind a conventional bridge shows is not known.
    """
    while table.inner is not None:  # a draft VIOT
        table = table.inner
    match table.signature:
        case "VIOT":
            return resolve_viot(table, device, topology)
        case "IORT":
            return resolve_iort(table, device, topology)
        case "DMAR":
            return resolve_dmar(table, device, topology)
        case "IVRS":
            return resolve_ivrs(table, device, topology)
        case _:
            return Nowhere(Why.NO_TABLE, table.path, f"{table.signature} names no IOMMU")
