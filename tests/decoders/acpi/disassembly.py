"""Read what `iasl -d` prints of a data table, and compare it with our fields."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from decoders.acpi import Node, Table, Text
from decoders.bytewise import Opaque, bits_of

LINE = re.compile(
    r"\[([0-9A-F]+)h +\d+ +([0-9A-F]+h?|\d+)\] +(.*?) ?: ?(.*)"  # [024h 0036 002h]  Label : 0001
)
BITS = re.compile(r" {8,}(\S.*?) : ([0-9A-F]+)\s*$")

LABELS = {
    "signature": "Signature",
    "length": "Table Length|Length|Entry Length|Length of RMR",
    "revision": "Revision",
    "checksum": "Checksum",
    "oem_id": "Oem ID",
    "oem_table_id": "Oem Table ID",
    "oem_revision": "Oem Revision",
    "creator_id": "Asl Compiler ID",
    "creator_revision": "Asl Compiler Revision",
    "node_count": "Node Count|Node count",
    "node_offset": "Node Offset|Node offset",
    "type": "Type|Subtable Type|Entry Type",
    "reserved": "Reserved",
    "reserved1": "Reserved",
    "reserved2": "Reserved",
    "reserved_memory": "Reserved",
    "flags": "Flags",
    "segment": "PCI Segment|PCI Segment Number",
    "base_address": "Base Address|Base address|Base Address of RMR|Config Frame base",
    "endpoint_start": "Endpoint start",
    "segment_start": "PCI Segment start",
    "segment_end": "PCI Segment end",
    "bdf_start": "PCI BDF start",
    "bdf_end": "PCI BDF end",
    "output_node": "Output node",
    "endpoint": "Endpoint",
    "bdf": "PCI BDF number",
    "identifier": "Identifier|Reserved",
    "mapping_count": "Mapping Count",
    "mapping_offset": "Mapping Offset",
    "its_count": "ItsCount",
    "value": "Identifiers|Context Interrupt|PMU Interrupt",
    "node_flags": "Node Flags",
    "cache_coherency": "Cache Coherency",
    "memory_hints": "Hints",
    "memory_flags": "Memory Flags",
    "memory_address_limit": "Memory Size Limit",
    "ats_attribute": "ATS Attribute",
    "pci_segment_number": "PCI Segment Number",
    "pasid_capabilities": "PASID Capabilities",
    "input_base": "Input base",
    "id_count": "ID Count",
    "output_base": "Output Base",
    "output_reference": "Output Reference",
    "span": "Span",
    "model": "Model",
    "global_interrupt_offset": "Global Interrupt Offset",
    "context_interrupt_count": "Context Interrupt Count",
    "context_interrupt_offset": "Context Interrupt Offset",
    "pmu_interrupt_count": "PMU Interrupt Count",
    "pmu_interrupt_offset": "PMU Interrupt Offset",
    "nsgirpt": "NSgIrpt",
    "nsgirpt_flags": "NSgIrpt Flags",
    "nsgcfgirpt": "NSgCfgIrpt",
    "nsgcfgirpt_flags": "NSgCfgIrpt Flags",
    "vatos_address": "VATOS Address",
    "event_gsiv": "Event GSIV",
    "pri_gsiv": "PRI GSIV",
    "gerr_gsiv": "GERR GSIV",
    "sync_gsiv": "Sync GSIV",
    "proximity_domain": "Proximity Domain",
    "id_mapping_index": "Device ID Mapping Index",
    "page0_base_address": "Page 0 Base Address",
    "page1_base_address": "Page 1 Base Address",
    "overflow_gsiv": "Overflow Interrupt GSIV",
    "node_reference": "Node Reference",
    "rmr_count": "Number of RMR Descriptors",
    "rmr_offset": "RMR Descriptor Offset",
    "iwb_index": "IWB Index",
    "width": "Host Address Width",
    "size": "Size",
    "address": "Register Base Address",
    "end_address": "End Address (limit)",
    "device_number": "Device Number",
    "entry_type": "Device Scope Type",
    "enumeration_id": "Enumeration ID",
    "bus": "PCI Bus Number",
    "info": "Virtualization Info",
    "device_id": "DeviceId|Device ID",
    "capability_offset": "Capability Offset",
    "pci_segment_group": "PCI Segment Group",
    "feature_reporting": "Feature Reporting",
    "attributes": "Attributes",
    "efr_register_image": "EFR Image",
    "aux_data": "Auxiliary Data",
    "start_address": "Start Address",
    "memory_length": "Memory Length",
    "data_setting": "Data Setting",
    "used_id": "Source Used Device ID",
    "extended_data": "Extended Data",
    "handle": "Handle",
    "variety": "Variety",
    "acpi_hid": "ACPI HID",
    "acpi_cid": "ACPI CID",
    "uid_type": "UID Format",
    "uid_length": "UID Length",
    "text": "Device Name|IWB Device Name",
    "data": "UID|Extended Data|Reserved",
}
"""For each of our names, what iasl calls it."""

BIT_LABELS = {
    "Single Mapping": "single_mapping",
    "Transient": "transient",
    "Write Allocate": "write_allocate",
    "Read Allocate": "read_allocate",
    "Override": "override",
    "Coherency": "coherency",
    "Device Attribute": "attributes",
    "Ensured Coherency of Accesses": "canwbs",
    "DVM Supported": "dvm_supported",
    "Coherent Walk": "coherent_walk",
    "Edge Triggered": "edge_triggered",
    "COHACC Override": "cohacc_override",
    "Proximity Domain Valid": "proximity_valid",
    "DeviceID Valid": "device_id_valid",
    "Remapping Permitted": "remapping_permitted",
    "Access Privileged": "access_privileged",
    "Access Attributes": "access_attributes",
    "Size (pages, log2)": "pages_log2",
    "HtTunEn": "ht_tunnel",
    "PassPW": "pass_pw",
    "ResPassPW": "res_pass_pw",
    "Isoc Control": "isochronous",
    "Iotlb Support": "iotlb_support",
    "Coherent": "coherent",
    "Prefetch Support": "prefetch_support",
    "PPR Support": "ppr_support",
    "Unity": "unity",
    "Readable": "read",
    "Writeable": "write",
    "Exclusion Range": "exclusion_range",
    "INITPass": "init_pass",
    "EIntPass": "eint_pass",
    "NMIPass": "nmi_pass",
    "System MGMT": "system_management",
    "LINT0 Pass": "lint0_pass",
    "LINT1 Pass": "lint1_pass",
}
"""For each name that iasl gives to bits, ours."""

# iasl prints one bit of the two (ACPI_DMT_FLAG1), so that it is right for 0 and 1 only.
ONE_BIT_OF_TWO = {"HTTU Override": "httu_override"}


# For the padding in an IORT iasl prints the first bytes of the table (AcpiDmDumpIort hands the
# table to AcpiDmDumpTable); its template has them there for this reason.
WRONG_BYTES = ("Padding", "Optional Padding")


@dataclass
class Shown:
    """Hold one field as iasl shows it, and the bits below it."""

    offset: int
    size: int
    label: str
    value: str
    bits: list[tuple[str, int]] = field(default_factory=list)


def parse(text: str) -> list[Shown]:
    fields: list[Shown] = []
    for line in text.splitlines():
        match = LINE.match(line)
        if match is not None:
            size = match[2]
            number = int(size[:-1], 16) if size.endswith("h") else int(size)
            label = re.sub(r" ?\(decoded [Bb]elow\)$", "", match[3].strip())
            fields.append(Shown(int(match[1], 16), number, label, match[4].strip()))
        elif fields and (match := BITS.match(line)) is not None:
            fields[-1].bits.append((match[1], int(match[2], 16)))
    return fields


def value_of(shown: Shown) -> int | bytes | None:
    """Give the value of a field: a number, text, or nothing where iasl shows only a name."""
    text = shown.value
    if text.startswith('"'):
        return text[1 : text.index('"', 1)].encode()
    if text.startswith("["):
        return None
    if shown.label == "PCI Path":
        device, function = text.split(",")
        return bytes([int(device, 16), int(function, 16)])
    word = text.split(" [")[0].split("/*")[0].strip().rstrip("\\").strip()
    if " " in word or (shown.size > 8 and word):
        return bytes.fromhex(word)
    return int(word, 16) if word else None


def differences(table: Table, text: str) -> tuple[list[str], int]:
    """Compare every field that iasl shows with ours; give what differs, and how many are equal."""
    ours = {located.offset: located for located in table.located()}
    nodes = {
        located.offset: (node, located.path.rpartition(".")[2])
        for node in table.walk()
        for located in node.located()
    }
    wrong: list[str] = []
    covered: set[int] = set()
    equal = 0
    for shown in parse(text):
        value = value_of(shown)
        if value is None or shown.label in WRONG_BYTES:
            continue
        parts, at = [], shown.offset
        while at < shown.offset + shown.size and at in ours:
            parts.append(ours[at])
            at += max(1, ours[at].size)
        where = f"{shown.label} at {shown.offset:#x}"
        if not parts or at != shown.offset + shown.size:
            wrong.append(f"{where}: our fields have other bounds")
            continue
        covered.update(part.offset for part in parts)
        data = b"".join(
            p.value if isinstance(p.value, bytes) else p.value.to_bytes(p.size, "little")
            for p in parts
        )
        same = (
            data.rstrip(b"\0") == value
            if shown.value.startswith('"')
            else data[: len(value)] == value
            if isinstance(value, bytes)
            else int.from_bytes(data, "little") == value
        )
        if not same:
            wrong.append(f"{where}: {shown.value}, ours {data.hex()}")
        elif len(parts) == 1 and shown.label not in LABELS[_name(parts[0].path)].split("|"):
            wrong.append(f"{where}: we say {parts[0].path}")
        else:
            equal += 1
            wrong += _bits(nodes[shown.offset], shown)
    for located in ours.values():
        if (
            located.offset not in covered
            and located.size
            and not _unshown(nodes[located.offset][0])
        ):
            wrong.append(f"{located.path} at {located.offset:#x}: iasl does not show it")
    return wrong, equal


def _name(path: str) -> str:
    return path.rpartition(".")[2]


def _unshown(node: Node) -> bool:
    """Say whether a structure is one that iasl passes over: bytes, or the NUL-padded names."""
    return isinstance(node.body, Opaque | Text)


def _bits(place: tuple[Node, str], shown: Shown) -> list[str]:
    node, name = place
    ours = dict(bits_of(node.body, name))
    wrong = []
    for label, value in shown.bits:
        if label in ("Reserved",) or label in ONE_BIT_OF_TWO:
            continue
        mine = ours.get(BIT_LABELS[label])
        if mine != value:
            wrong.append(f"{label} at {shown.offset:#x}: {value}, ours {mine}")
    return wrong
