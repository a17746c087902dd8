"""Structures of the IORT (Arm DEN 0049E.f), and of the draft VIOT that wraps one."""

from __future__ import annotations

from typing import Final

from scapy.fields import AnyField

from decoders.bytewise import ByteStructure, octets, u8, u16, u32, u64


class Iort(ByteStructure):
    """Say how many nodes there are, and where the first one is (DEN 0049 table 2)."""

    fields_desc = [*u32("node_count", "node_offset"), *octets("reserved", 4)]


NODE: Final[list[AnyField]] = [
    *u8("type"),
    *u16("length"),
    *u8("revision"),
    *u32("identifier", "mapping_count", "mapping_offset"),
]
"""Fields that all nodes begin with; they begin at odd places."""

MEMORY: Final[list[AnyField]] = [
    *u32("cache_coherency"),
    *u8("memory_hints"),
    *octets("reserved_memory", 2),
    *u8("memory_flags"),
]
MEMORY_BITS = {
    "memory_hints": [
        ("transient", 1),
        ("write_allocate", 1),
        ("read_allocate", 1),
        ("override", 1),
        ("reserved", 4),
    ],
    "memory_flags": [("coherency", 1), ("attributes", 1), ("canwbs", 1), ("reserved", 5)],
}


class IortNodeHeader(ByteStructure):
    """Begin a node; all that is known of one of an unknown type."""

    fields_desc = [*NODE]


class IdMapping(ByteStructure):
    """Map ids of a node to ids of the node that output_reference points to.

    id_count is the number of ids less one. A single mapping takes any id (DEN 0049 table 4).
    """

    fields_desc = u32("input_base", "id_count", "output_base", "output_reference", "flags")
    bits = {"flags": [("single_mapping", 1), ("reserved", 31)]}


class ItsGroup(ByteStructure):
    """List interrupt translation services (node type 0); their identifiers follow."""

    fields_desc = [*NODE, *u32("its_count")]


class NamedComponent(ByteStructure):
    """Describe a device that the ACPI namespace names (node type 1); the name follows."""

    fields_desc = [*NODE, *u32("node_flags"), *MEMORY, *u8("memory_address_limit")]
    bits = {
        "node_flags": [("stall_supported", 1), ("pasid_bits", 5), ("reserved", 26)],
        **MEMORY_BITS,
    }


class EarlyRootComplex(ByteStructure):
    """Describe a PCI root complex as revision 0 of the node does (node type 2)."""

    fields_desc = [*NODE, *MEMORY, *u32("ats_attribute", "pci_segment_number")]
    bits = {
        "ats_attribute": [("ats", 1), ("pri", 1), ("pasid_forwarding", 1), ("reserved", 29)],
        **MEMORY_BITS,
    }


class RootComplex(EarlyRootComplex):
    """Describe a PCI root complex (node type 2, revision 1 and later)."""

    fields_desc = [
        *NODE,
        *MEMORY,
        *u32("ats_attribute", "pci_segment_number"),
        *u8("memory_address_limit"),
        *u16("pasid_capabilities"),
        *u8("reserved"),
    ]
    bits = {
        **EarlyRootComplex.bits,
        "pasid_capabilities": [("max_pasid_width", 5), ("reserved", 11)],
    }


class Smmu(ByteStructure):
    """Describe an SMMUv1 or SMMUv2 (node type 3); the interrupts follow.

    model: 0 v1, 1 v2, 2 MMU-400, 3 MMU-500, 4 MMU-401, 5 ThunderX.
    """

    fields_desc = [
        *NODE,
        *u64("base_address", "span"),
        *u32("model", "flags", "global_interrupt_offset"),
        *u32("context_interrupt_count", "context_interrupt_offset"),
        *u32("pmu_interrupt_count", "pmu_interrupt_offset"),
    ]
    bits = {"flags": [("dvm_supported", 1), ("coherent_walk", 1), ("reserved", 30)]}


class GlobalInterrupts(ByteStructure):
    """Give the global interrupts of an SMMUv1 or SMMUv2 (Linux acpi_iort_smmu_gsi)."""

    fields_desc = u32("nsgirpt", "nsgirpt_flags", "nsgcfgirpt", "nsgcfgirpt_flags")
    bits = {
        "nsgirpt_flags": [("edge_triggered", 1), ("reserved", 31)],
        "nsgcfgirpt_flags": [("edge_triggered", 1), ("reserved", 31)],
    }


_SMMU_V3: Final[list[AnyField]] = [
    *NODE,
    *u64("base_address"),
    *u32("flags"),
    *octets("reserved", 4),
    *u64("vatos_address"),
    *u32("model", "event_gsiv", "pri_gsiv", "gerr_gsiv", "sync_gsiv"),
]


class EarlySmmuV3(ByteStructure):
    """Describe an SMMUv3 as revision 0 of the node does (node type 4).

    model: 0 generic, 1 HiSilicon Hi161x, 2 Cavium CN99xx.
    """

    fields_desc = [*_SMMU_V3]
    bits = {
        "flags": [
            ("cohacc_override", 1),
            ("httu_override", 2),
            ("proximity_valid", 1),
            ("device_id_valid", 1),
            ("reserved", 27),
        ]
    }


class SmmuV3(EarlySmmuV3):
    """Describe an SMMUv3 (node type 4, revision 1 and later)."""

    fields_desc = [*_SMMU_V3, *u32("proximity_domain", "id_mapping_index")]


class EarlyPmcg(ByteStructure):
    """Describe a performance monitor group as revision 0 of the node does (node type 5)."""

    fields_desc = [*NODE, *u64("page0_base_address"), *u32("overflow_gsiv", "node_reference")]


class Pmcg(EarlyPmcg):
    """Describe a performance monitor group (node type 5, revision 1 and later)."""

    fields_desc = [*EarlyPmcg.fields_desc, *u64("page1_base_address")]


class ReservedMemory(ByteStructure):
    """Describe memory that devices use before anything drives them (RMR, node type 6)."""

    fields_desc = [*NODE, *u32("flags", "rmr_count", "rmr_offset")]
    bits = {
        "flags": [
            ("remapping_permitted", 1),
            ("access_privileged", 1),
            ("access_attributes", 8),
            ("reserved", 22),
        ]
    }


class ReservedRange(ByteStructure):
    """Give one range of an RMR node (DEN 0049E.f table 19)."""

    fields_desc = [*u64("base_address", "length"), *octets("reserved", 4)]


class Iwb(ByteStructure):
    """Describe an interrupt wire bridge of a GICv5 (node type 7); its name follows."""

    fields_desc = [*NODE, *u64("base_address"), *u16("iwb_index")]


class DraftVirtioPci(ByteStructure):
    """Name a virtio-iommu that is a PCI function, in a draft VIOT (node type 0x80).

    devid is segment, bus, device and function (16, 8, 5 and 3 bits).
    """

    fields_desc = [*NODE, *u32("devid")]


class DraftVirtioMmio(ByteStructure):
    """Name a virtio-iommu that is a platform device, in a draft VIOT (node type 0x81).

    interrupt is a GSIV in its low half, and the trigger mode in bit 32.
    """

    fields_desc = [*NODE, *u64("base_address", "span", "flags", "interrupt")]
    bits = {
        "flags": [("cache_coherent", 1), ("reserved", 63)],
        "interrupt": [("gsiv", 32), ("edge_triggered", 1), ("reserved", 31)],
    }


NODES: Final[dict[int, tuple[type[ByteStructure], ...]]] = {
    0: (ItsGroup,),
    1: (NamedComponent,),
    2: (RootComplex, EarlyRootComplex),
    3: (Smmu,),
    4: (SmmuV3, EarlySmmuV3),
    5: (Pmcg, EarlyPmcg),
    6: (ReservedMemory,),
    7: (Iwb,),
}
"""Node types that are defined; the longest form that a node has room for is the one it has."""

DRAFT_NODES: Final[dict[int, tuple[type[ByteStructure], ...]]] = {
    0x80: (DraftVirtioPci,),
    0x81: (DraftVirtioMmio,),
}
"""Node types that the IORT in a draft VIOT has besides."""

IOMMUS: Final = (Smmu, EarlySmmuV3, DraftVirtioPci, DraftVirtioMmio)
"""Kinds of node that translate."""
