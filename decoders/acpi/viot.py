"""VIOT: which device is behind which paravirtual IOMMU (ACPI 6.4, 5.2.35).

The final form lists nodes of its own. An earlier draft, of which a Linux patch series of November
2019 is the only known reader, wraps a whole IORT that has two more types of node.
"""

from __future__ import annotations

from typing import Final

from decoders.acpi.reading import NodeLists, Reading
from decoders.acpi.structures import HEADER_SIZE
from decoders.acpi.tree import Node, Rule
from decoders.bytewise import ByteStructure, octets, size_of, u8, u16, u32, u64

NODE = u8("type", "reserved") + u16("length")


class Viot(ByteStructure):
    """Say how many nodes there are, and where the first one is (ACPI 6.4, table 5.165)."""

    fields_desc = [*u16("node_count", "node_offset"), *octets("reserved", 8)]


class ViotNodeHeader(ByteStructure):
    """Begin a node; all that is known of one of an unknown type."""

    fields_desc = [*NODE]


class PciRange(ByteStructure):
    """Give endpoint ids to the PCI devices of some segments and buses (ACPI 6.4, type 1)."""

    fields_desc = [
        *NODE,
        *u32("endpoint_start"),
        *u16("segment_start", "segment_end", "bdf_start", "bdf_end", "output_node"),
        *octets("reserved1", 6),
    ]


class MmioEndpoint(ByteStructure):
    """Give an endpoint id to the device at an address (ACPI 6.4, type 2)."""

    fields_desc = [
        *NODE,
        *u32("endpoint"),
        *u64("base_address"),
        *u16("output_node"),
        *octets("reserved1", 6),
    ]


class VirtioPciIommu(ByteStructure):
    """Name a virtio-iommu that is a PCI function (ACPI 6.4, type 3)."""

    fields_desc = [*NODE, *u16("segment", "bdf"), *octets("reserved1", 8)]


class VirtioMmioIommu(ByteStructure):
    """Name a virtio-iommu that is a platform device (ACPI 6.4, type 4)."""

    fields_desc = [*NODE, *octets("reserved1", 4), *u64("base_address")]


class DraftViot(ByteStructure):
    """Precede the table that a draft VIOT wraps; the meaning of these bytes is not known."""

    fields_desc = octets("reserved", 12)


NODES: Final[dict[int, type[ByteStructure]]] = {
    1: PciRange,
    2: MmioEndpoint,
    3: VirtioPciIommu,
    4: VirtioMmioIommu,
}
"""Node types that are defined; readers skip any other."""

IOMMUS: Final = (VirtioPciIommu, VirtioMmioIommu)
ENDPOINTS: Final = (PciRange, MmioEndpoint)

FIXED_SIZE: Final = HEADER_SIZE + size_of(Viot)
"""Bytes before the first node, where no padding is."""

WRAPPED: Final = frozenset({b"IORT", b"DMAR", b"IVRS"})
"""Tables that a draft VIOT can wrap; the patch series accepts an IORT only."""


def is_draft(table: bytes) -> bool:
    """Tell a draft VIOT by the signature of the table that it wraps, where nodes would begin.

    The first bytes of a final table's node are a type of 1 to 4 and a reserved zero.
    """
    return table[FIXED_SIZE : FIXED_SIZE + 4] in WRAPPED


def read_nodes(reading: Reading, path: str, start: int, end: int) -> NodeLists:
    """Read what follows the header of a final VIOT: fixed part and padding, nodes, the rest."""
    head = reading.node(Viot, path, start + HEADER_SIZE, end)
    if head is None:
        return (), (), reading.rest(f"{path}.rest", start + HEADER_SIZE, end)
    return reading.counted(path, head, start, end, lambda place, at: _node(reading, place, at, end))


def _node(reading: Reading, path: str, at: int, end: int) -> Node | None:
    header = reading.values(ViotNodeHeader, path, at, end)
    if header is None:
        return None
    kind, _, length = header
    cls = NODES.get(kind, ViotNodeHeader)
    size = size_of(cls)
    if not reading.fits(cls, path, at, length, end):
        return None
    if cls is ViotNodeHeader:
        problem = f"type {kind} is not defined"
        reading.note(Rule.UNKNOWN_TYPE, f"{path}.type", problem, at)
    elif length > size:
        problem = f"{length} bytes, {cls.__name__} takes {size}"
        reading.note(Rule.LENGTH, f"{path}.length", problem, at + 2)
    body = reading.structure(cls, path, at, end)
    if body is None:
        return None
    return Node(path, at, body, reading.rest(f"{path}.data", at + size, at + length))
