"""IVRS: the IOMMUs of an AMD platform and their devices (AMD 48882, chapter 5)."""

from __future__ import annotations

from typing import Final

from decoders.acpi.reading import NodeLists, Reading, read_sequence
from decoders.acpi.tree import Node, Rule
from decoders.bytewise import ByteStructure, octets, size_of, u8, u16, u32, u64

NODE = u8("type", "flags") + u16("length", "device_id")
ENTRY = u8("type") + u16("device_id") + u8("data_setting")
DATA_SETTING = {
    "data_setting": [
        ("init_pass", 1),
        ("eint_pass", 1),
        ("nmi_pass", 1),
        ("reserved", 1),
        ("system_management", 2),
        ("lint0_pass", 1),
        ("lint1_pass", 1),
    ]
}


class Ivrs(ByteStructure):
    """Describe the platform (AMD 48882 5.2.1)."""

    fields_desc = [*u32("info"), *octets("reserved", 8)]
    bits = {
        "info": [
            ("efr_support", 1),
            ("dma_remap_support", 1),
            ("reserved", 3),
            ("guest_virtual_size", 3),
            ("physical_size", 7),
            ("virtual_size", 7),
            ("ats_reserved", 1),
            ("reserved", 9),
        ]
    }


class IvrsNodeHeader(ByteStructure):
    """Begin a block; all that is known of one of an unknown type."""

    fields_desc = [*NODE]


class Ivhd10(ByteStructure):
    """Describe an IOMMU (block type 0x10); its device entries follow."""

    fields_desc = [
        *NODE,
        *u16("capability_offset"),
        *u64("base_address"),
        *u16("pci_segment_group", "info"),
        *u32("feature_reporting"),
    ]
    bits = {
        "flags": [
            ("ht_tunnel", 1),
            ("pass_pw", 1),
            ("res_pass_pw", 1),
            ("isochronous", 1),
            ("iotlb_support", 1),
            ("coherent", 1),
            ("prefetch_support", 1),
            ("ppr_support", 1),
        ],
        "info": [("msi_number", 5), ("reserved", 3), ("unit_id", 5), ("reserved", 3)],
    }


class Ivhd11(Ivhd10):
    """Describe an IOMMU with an image of its feature register (block types 0x11 and 0x40)."""

    fields_desc = [
        *Ivhd10.fields_desc[:-1],
        *u32("attributes"),
        *u64("efr_register_image"),
        *octets("reserved", 8),
    ]


class Ivmd(ByteStructure):
    """Name memory that devices use (block types 0x20 all, 0x21 one, 0x22 range of devices).

    Linux takes a PCI segment from the two bytes behind aux_data.
    """

    fields_desc = [
        *NODE,
        *u16("aux_data", "segment"),
        *octets("reserved", 6),
        *u64("start_address", "memory_length"),
    ]
    bits = {
        "flags": [
            ("unity", 1),
            ("read", 1),
            ("write", 1),
            ("exclusion_range", 1),
            ("reserved", 4),
        ]
    }


class DeviceEntry(ByteStructure):
    """Name a device or one end of a range (entry types 0 to 4)."""

    fields_desc = [*ENTRY]
    bits = {**DATA_SETTING}


class UnknownEntry8(DeviceEntry):
    """Keep an entry of 8 bytes whose type says no more than its size."""

    fields_desc = [*ENTRY, *octets("data", 4)]


class AliasEntry(DeviceEntry):
    """Name a device that uses the id of another one (entry types 0x42 and 0x43)."""

    fields_desc = [*ENTRY, *u8("reserved1"), *u16("used_id"), *u8("reserved2")]


class ExtendedEntry(DeviceEntry):
    """Name a device with more settings (entry types 0x46 and 0x47)."""

    fields_desc = [*ENTRY, *u32("extended_data")]
    bits = {**DATA_SETTING, "extended_data": [("reserved", 31), ("ats_disabled", 1)]}


class SpecialEntry(DeviceEntry):
    """Name an I/O APIC (variety 1) or a HPET (variety 2) and the id it uses (entry type 0x48)."""

    fields_desc = [*ENTRY, *u8("handle"), *u16("used_id"), *u8("variety")]


class HidEntry(DeviceEntry):
    """Name a device by its ACPI ids (entry type 0xf0); uid_length bytes of UID follow."""

    fields_desc = [
        *ENTRY,
        *octets("acpi_hid", 8),
        *octets("acpi_cid", 8),
        *u8("uid_type", "uid_length"),
    ]


NODES: Final[dict[int, type[ByteStructure]]] = {
    0x10: Ivhd10,
    0x11: Ivhd11,
    0x40: Ivhd11,
    0x20: Ivmd,
    0x21: Ivmd,
    0x22: Ivmd,
}
"""Block types that are defined."""

PAD, ALL, SELECT, RANGE_START, RANGE_END, PAD8 = 0, 1, 2, 3, 4, 0x40
ALIAS_SELECT, ALIAS_START, EXTENDED_SELECT, EXTENDED_START = 0x42, 0x43, 0x46, 0x47
SPECIAL, ACPI_HID = 0x48, 0xF0
"""Types of device entries."""

ENTRIES: Final[dict[int, type[DeviceEntry]]] = {
    PAD: DeviceEntry,
    ALL: DeviceEntry,
    SELECT: DeviceEntry,
    RANGE_START: DeviceEntry,
    RANGE_END: DeviceEntry,
    PAD8: UnknownEntry8,
    ALIAS_SELECT: AliasEntry,
    ALIAS_START: AliasEntry,
    EXTENDED_SELECT: ExtendedEntry,
    EXTENDED_START: ExtendedEntry,
    SPECIAL: SpecialEntry,
    ACPI_HID: HidEntry,
}
"""Device entries that are defined."""


def read_nodes(reading: Reading, path: str, start: int, end: int) -> NodeLists:
    """Read what follows the header of an IVRS: fixed part, blocks, the rest."""
    return read_sequence(reading, Ivrs, _node, path, start, end)


def _node(reading: Reading, path: str, at: int, end: int) -> Node | None:
    header = reading.values(IvrsNodeHeader, path, at, end)
    if header is None:
        return None
    kind, _, length, _ = header
    cls = NODES.get(kind, IvrsNodeHeader)
    if not reading.fits(cls, path, at, length, end):
        return None
    body = reading.structure(cls, path, at, end)
    if body is None:
        return None
    after, stop = at + size_of(cls), at + length
    if isinstance(body, Ivhd10):
        entries = _entries(reading, path, after, stop)
        return None if entries is None else Node(path, at, body, entries)
    if cls is IvrsNodeHeader:
        problem = f"type {kind:#x} is not defined"
        reading.note(Rule.UNKNOWN_TYPE, f"{path}.type", problem, at)
    elif after < stop:
        problem = f"{length} bytes, {cls.__name__} takes {size_of(cls)}"
        reading.note(Rule.LENGTH, f"{path}.length", problem, at + 2)
    return Node(path, at, body, reading.rest(f"{path}.data", after, stop))


def _entries(reading: Reading, path: str, start: int, end: int) -> tuple[Node, ...] | None:
    entries: list[Node] = []
    at = start
    while at < end:
        place = f"{path}.entry[{len(entries)}]"
        kind = reading.data[at]
        cls = ENTRIES.get(kind) or (DeviceEntry, UnknownEntry8)[kind >> 6 == 1]
        if kind >= 0x80 and kind not in ENTRIES:
            # ACPICA takes 1x in the top bits for a length of the entry's own, where none is given.
            problem = f"type {kind:#x} is not defined, and neither is its length"
            reading.fail(Rule.UNKNOWN_TYPE, f"{place}.type", problem, at)
            return None
        entry = reading.node(cls, place, at, end, "node")
        if entry is None:
            return None
        if kind not in ENTRIES:
            reading.note(Rule.UNKNOWN_TYPE, f"{place}.type", f"type {kind:#x} is not defined", at)
        stop = at + size_of(cls)
        if isinstance(entry.body, HidEntry) and entry.body.uid_length:
            uid_end = stop + entry.body.uid_length
            if uid_end > end:
                problem = f"UID of {entry.body.uid_length} bytes runs past the node"
                reading.fail(Rule.LENGTH, f"{place}.uid_length", problem, stop - 1)
                return None
            uid = reading.rest(f"{place}.uid", stop, uid_end)
            entry, stop = Node(place, at, entry.body, uid), uid_end
        entries.append(entry)
        at = stop
    return tuple(entries)
