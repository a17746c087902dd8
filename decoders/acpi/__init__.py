"""ACPI tables that say which device is behind which IOMMU: VIOT, IORT, DMAR and IVRS."""

from decoders.acpi.files import Found, read_file, read_text, split
from decoders.acpi.reading import LARGEST_TABLE, MOST_STRUCTURES
from decoders.acpi.structures import HEADER_SIZE, Header, Text, checksum, seal
from decoders.acpi.tables import READERS, read, read_tolerant, why_incomplete
from decoders.acpi.tree import Located, Node, Rule, Table, Violation
from decoders.acpi.validate import validate, validate_table

__all__ = [
    "HEADER_SIZE",
    "LARGEST_TABLE",
    "MOST_STRUCTURES",
    "READERS",
    "Found",
    "Header",
    "Located",
    "Node",
    "Rule",
    "Table",
    "Text",
    "Violation",
    "checksum",
    "read",
    "read_file",
    "read_text",
    "read_tolerant",
    "seal",
    "split",
    "validate",
    "validate_table",
    "why_incomplete",
]
