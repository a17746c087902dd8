"""Structures of virtio-iommu: config space, requests, properties and fault reports (virtio 1.4,
5.13).

A request is the part that the device reads; the tail that it writes is a structure of its own.
"""

from __future__ import annotations

from decoders.bytewise import ByteStructure, octets, u8, u16, u32, u64

HEAD = [*u8("type"), *octets("reserved_head", 3)]
PROPERTY_HEAD = u16("type", "length")


class Config(ByteStructure):
    """Say what the device can do; ranges are inclusive (5.13.4)."""

    fields_desc = [
        *u64("page_size_mask", "input_range_start", "input_range_end"),
        *u32("domain_range_start", "domain_range_end", "probe_size"),
        *u8("bypass"),
        *octets("reserved", 3),
    ]


class RequestHead(ByteStructure):
    """Begin every request."""

    fields_desc = [*u8("type"), *octets("reserved", 3)]


class RequestTail(ByteStructure):
    """Answer a request; behind the properties for PROBE."""

    fields_desc = [*u8("status"), *octets("reserved", 3)]


class Attach(ByteStructure):
    """Put an endpoint into a domain."""

    fields_desc = [*HEAD, *u32("domain", "endpoint", "flags"), *octets("reserved", 4)]
    bits = {"flags": [("bypass", 1), ("reserved", 31)]}


class Detach(ByteStructure):
    """Take an endpoint out of its domain."""

    fields_desc = [*HEAD, *u32("domain", "endpoint"), *octets("reserved", 8)]


class Map(ByteStructure):
    """Map virt_start to virt_end, which is included, to phys_start in a domain."""

    fields_desc = [
        *HEAD,
        *u32("domain"),
        *u64("virt_start", "virt_end", "phys_start"),
        *u32("flags"),
    ]
    bits = {"flags": [("read", 1), ("write", 1), ("mmio", 1), ("reserved", 29)]}


class Unmap(ByteStructure):
    """Remove all mappings from virt_start to virt_end, which is included, from a domain."""

    fields_desc = [*HEAD, *u32("domain"), *u64("virt_start", "virt_end"), *octets("reserved", 4)]


class Probe(ByteStructure):
    """Ask for the properties of an endpoint."""

    fields_desc = [*HEAD, *u32("endpoint"), *octets("reserved", 64)]


class PropertyHead(ByteStructure):
    """Begin a property; length is that of what follows."""

    fields_desc = [*PROPERTY_HEAD]
    bits = {"type": [("type", 12), ("reserved", 4)]}


class ResvMem(ByteStructure):
    """Name addresses that the endpoint must not be given for DMA; end is included."""

    fields_desc = [*PROPERTY_HEAD, *u8("subtype"), *octets("reserved", 3), *u64("start", "end")]


class FaultReport(ByteStructure):
    """Report an access that failed (5.13.6.9)."""

    fields_desc = [
        *u8("reason"),
        *octets("reserved", 3),
        *u32("flags", "endpoint"),
        *octets("reserved2", 4),
        *u64("address"),
    ]
    bits = {
        "flags": [
            ("read", 1),
            ("write", 1),
            ("exec", 1),
            ("reserved", 5),
            ("address", 1),
            ("reserved", 23),
        ]
    }
