"""DMAR: the DMA remapping units of an Intel platform and their devices (VT-d chapter 8)."""

from __future__ import annotations

from typing import Final

from decoders.acpi.reading import NodeLists, Reading, read_sequence
from decoders.acpi.structures import Text
from decoders.acpi.tree import Node, Rule
from decoders.bytewise import ByteStructure, octets, size_of, u8, u16, u32, u64

NODE = u16("type", "length")


class Dmar(ByteStructure):
    """Describe the platform: width is the host address width less one (VT-d 8.1)."""

    fields_desc = [*u8("width", "flags"), *octets("reserved", 10)]
    bits = {
        "flags": [
            ("intr_remap", 1),
            ("x2apic_opt_out", 1),
            ("dma_ctrl_platform_opt_in", 1),
            ("reserved", 5),
        ]
    }


class DmarNodeHeader(ByteStructure):
    """Begin a remapping structure; all that is known of one of an unknown type."""

    fields_desc = [*NODE]


class Drhd(ByteStructure):
    """Describe a remapping unit (VT-d 8.3); its registers take 4 KiB << size."""

    fields_desc = [*NODE, *u8("flags", "size"), *u16("segment"), *u64("address")]
    bits = {
        "flags": [("include_pci_all", 1), ("reserved", 7)],
        "size": [("pages_log2", 4), ("reserved", 4)],
    }


class Rmrr(ByteStructure):
    """Name memory that devices use without the system's software (VT-d 8.4); end inclusive."""

    fields_desc = [
        *NODE,
        *octets("reserved", 2),
        *u16("segment"),
        *u64("base_address", "end_address"),
    ]


class Atsr(ByteStructure):
    """Name root ports that support ATS (VT-d 8.5)."""

    fields_desc = [*NODE, *u8("flags", "reserved"), *u16("segment")]
    bits = {"flags": [("all_ports", 1), ("reserved", 7)]}


class Rhsa(ByteStructure):
    """Give the proximity domain of a remapping unit (VT-d 8.6)."""

    fields_desc = [*NODE, *octets("reserved", 4), *u64("base_address"), *u32("proximity_domain")]


class Andd(ByteStructure):
    """Number a device of the ACPI namespace (VT-d 8.7); its name follows."""

    fields_desc = [*NODE, *octets("reserved", 3), *u8("device_number")]


class Satc(ByteStructure):
    """Name integrated devices with an address translation cache (VT-d 8.8)."""

    fields_desc = [*NODE, *u8("flags", "reserved"), *u16("segment")]
    bits = {"flags": [("atc_required", 1), ("reserved", 7)]}


class Sidp(ByteStructure):
    """Name properties of integrated devices, in the flags of their scopes (VT-d 8.9)."""

    fields_desc = [*NODE, *octets("reserved", 2), *u16("segment")]


class DeviceScope(ByteStructure):
    """Name a device by the path to it from a bus (VT-d 8.3.1); the steps follow.

    entry_type: 1 PCI endpoint, 2 PCI sub-hierarchy, 3 I/O APIC, 4 HPET, 5 ACPI namespace device.
    """

    fields_desc = u8("entry_type", "length", "flags", "reserved", "enumeration_id", "bus")


class PathStep(ByteStructure):
    """Go to a device, and if another step follows, to the bus behind it (VT-d 8.3.1)."""

    fields_desc = u8("device", "function")


NODES: Final[dict[int, type[ByteStructure]]] = {
    0: Drhd,
    1: Rmrr,
    2: Atsr,
    3: Rhsa,
    4: Andd,
    5: Satc,
    6: Sidp,
}
"""Remapping structures that are defined; readers skip any other by its length."""

SCOPED: Final = (Drhd, Rmrr, Atsr, Satc, Sidp)
"""Remapping structures that device scopes follow."""

ENDPOINT, SUB_HIERARCHY, IO_APIC, HPET, NAMESPACE = 1, 2, 3, 4, 5
"""Values of DeviceScope.entry_type."""


def read_nodes(reading: Reading, path: str, start: int, end: int) -> NodeLists:
    """Read what follows the header of a DMAR: fixed part, remapping structures, the rest."""
    return read_sequence(reading, Dmar, _node, path, start, end)


def _node(reading: Reading, path: str, at: int, end: int) -> Node | None:
    header = reading.values(DmarNodeHeader, path, at, end)
    if header is None:
        return None
    kind, length = header
    cls = NODES.get(kind, DmarNodeHeader)
    if not reading.fits(cls, path, at, length, end):
        return None
    body = reading.structure(cls, path, at, end)
    if body is None:
        return None
    after, stop = at + size_of(cls), at + length
    if cls in SCOPED:
        scopes = _scopes(reading, path, after, stop)
        return None if scopes is None else Node(path, at, body, scopes)
    if cls is Andd:
        return Node(path, at, body, _name(reading, path, after, stop))
    if cls is DmarNodeHeader:
        problem = f"type {kind} is not defined"
        reading.note(Rule.UNKNOWN_TYPE, f"{path}.type", problem, at)
    elif after < stop:
        problem = f"{length} bytes, {cls.__name__} takes {size_of(cls)}"
        reading.note(Rule.LENGTH, f"{path}.length", problem, at + 2)
    return Node(path, at, body, reading.rest(f"{path}.data", after, stop))


def _name(reading: Reading, path: str, start: int, end: int) -> tuple[Node, ...]:
    stop = reading.data.find(b"\0", start, end) + 1
    if stop == 0:
        problem = "no NUL before the end of the node"
        reading.note(Rule.UNTERMINATED, f"{path}.device_name", problem, start)
        stop = end
    name = reading.rest(f"{path}.device_name", start, stop, Text)
    return name + reading.rest(f"{path}.padding", stop, end)


def _scopes(reading: Reading, path: str, start: int, end: int) -> tuple[Node, ...] | None:
    scopes: list[Node] = []
    at = start
    while at < end:
        scope = _scope(reading, f"{path}.scope[{len(scopes)}]", at, end)
        if scope is None:
            return None
        scopes.append(scope)
        at += scope.body.length
    return tuple(scopes)


def _scope(reading: Reading, path: str, at: int, end: int) -> Node | None:
    body = reading.structure(DeviceScope, path, at, end, "node")
    if body is None:
        return None
    size, length = size_of(DeviceScope), body.length
    if length < size or at + length > end:
        problem = f"{length} bytes, a device scope takes at least {size}"
        if length >= size:
            problem = f"scope of {length} bytes runs past its node, {end - at} are left"
        reading.fail(Rule.LENGTH, f"{path}.length", problem, at + 1)
        return None
    steps, spare = divmod(length - size, size_of(PathStep))
    stop = at + length
    path_steps = reading.array(PathStep, f"{path}.path", at + size, steps, stop)
    if path_steps is None:
        return None
    if spare:
        problem = f"{length} bytes do not hold whole steps of a path"
        reading.note(Rule.LENGTH, f"{path}.length", problem, at + 1)
    parts = path_steps + reading.rest(f"{path}.padding", stop - spare, stop)
    return Node(path, at, body, parts)
