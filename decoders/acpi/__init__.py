"""ACPI tables that say which device is behind which IOMMU: VIOT, IORT, DMAR and IVRS."""

from decoders.acpi.files import Found, read_file, read_text, split
from decoders.acpi.reading import LARGEST_TABLE, MOST_STRUCTURES
from decoders.acpi.structures import (
    HEADER_SIZE,
    AcpiStructure,
    Header,
    Opaque,
    Text,
    checksum,
    seal,
)
from decoders.acpi.tables import READERS, read, read_tolerant
from decoders.acpi.tree import Located, Node, Rule, Table, Violation
from decoders.acpi.validate import validate, validate_table
from decoders.bytewise import bit, bits_of, build, decode, encode, field_sizes, number, size_of

__all__ = [
    "HEADER_SIZE",
    "LARGEST_TABLE",
    "MOST_STRUCTURES",
    "READERS",
    "AcpiStructure",
    "Found",
    "Header",
    "Located",
    "Node",
    "Opaque",
    "Rule",
    "Table",
    "Text",
    "Violation",
    "bit",
    "bits_of",
    "build",
    "checksum",
    "decode",
    "encode",
    "field_sizes",
    "number",
    "read",
    "read_file",
    "read_text",
    "read_tolerant",
    "seal",
    "size_of",
    "split",
    "validate",
    "validate_table",
]
