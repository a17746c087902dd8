"""Tests of the validator: sound tables have no violation, each rule is met by a broken one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from decoders.acpi import MOST_STRUCTURES, Rule, Violation, validate
from tests.decoders.acpi.blobs import MADE, QEMU
from tests.writers import acpi as w


@pytest.mark.parametrize("name", MADE)
def test_sound_tables(name: str) -> None:
    assert validate(MADE[name]) == []


@pytest.mark.parametrize("path", QEMU, ids=lambda path: path.name)
def test_qemu_tables(path: Path) -> None:
    assert validate(path.read_bytes()) == []


def poke(data: bytes, offset: int, new: bytes) -> bytes:
    """Change bytes and leave the checksum right."""
    return w.sealed(data[:offset] + new + data[offset + len(new) :])


IOMMU = w.virtio_pci(0, 8)
ITS = w.its_group(0)
SMMU = w.smmu_v3(0x9050000)
AFTER_ITS = 48 + len(ITS)
SCOPE = w.scope(1, 0, (2, 0))
UNIT = w.drhd(0xFED90000, everything=True)
AREA = w.mapping(48 + len(ITS), 0, 1, 0, flags=1)

VIOLATIONS: dict[str, tuple[bytes, list[str]]] = {
    "checksum": (
        MADE["viot"][:9] + b"\0" + MADE["viot"][10:],
        ["checksum viot.checksum: 0x00, the other bytes ask for 0x{checksum:02x}, at offset 0x9"],
    ),
    "revision": (
        w.viot([IOMMU], revision=3),
        ["revision viot.revision: 3 is not known, 0 are, at offset 0x8"],
    ),
    "viot reserved": (
        poke(w.viot([IOMMU]), 49, b"\1"),
        ["reserved viot.node[0].reserved: 0x1 in a reserved field, at offset 0x31"],
    ),
    "viot count too large": (
        w.viot([IOMMU], count=2),
        ["count viot.node_count: 2 nodes announced, 1 are there, at offset 0x24"],
    ),
    "viot count too small": (
        w.viot([IOMMU, w.virtio_mmio(0x1000)], count=1),
        ["count viot.node_count: 16 bytes follow the last of 1 nodes, at offset 0x40"],
    ),
    "viot dangling": (
        w.viot([IOMMU, w.pci_range(50)]),
        ["dangling viot.node[1].output_node: no node begins at 0x32, at offset 0x50"],
    ),
    "viot output is an endpoint": (
        w.viot([IOMMU, w.mmio_endpoint(48, 1, 0x1000), w.pci_range(64, 2)]),
        ["dangling viot.node[2].output_node: viot.node[1] at 0x40 is no IOMMU, at offset 0x68"],
    ),
    "viot self-reference": (
        w.viot([IOMMU, w.pci_range(64)]),
        ["self-reference viot.node[1].output_node: the node points to itself, at offset 0x50"],
    ),
    "viot ranges upside down": (
        w.viot([IOMMU, w.pci_range(48, 0, (2, 1), (9, 8))]),
        [
            "range viot.node[1].segment_end: 0x1 is below segment_start 0x2, at offset 0x4a",
            "range viot.node[1].bdf_end: 0x8 is below bdf_start 0x9, at offset 0x4e",
        ],
    ),
    "viot endpoint ids overflow": (
        w.viot([IOMMU, w.pci_range(48, 0xFFFF8000)]),
        [
            "range viot.node[1].endpoint_start: the last endpoint id would be 0x100007fff, "
            "beyond 32 bits, at offset 0x44"
        ],
    ),
    "viot overlapping devices": (
        w.viot(
            [
                IOMMU,
                w.pci_range(48, 0, (0, 2), (0, 0xFF)),
                w.pci_range(48, 0x100000, (2, 3), (0xF0, 0x1FF)),
            ]
        ),
        ["overlap viot.node[2]: PCI devices are in viot.node[1] as well, at offset 0x58"],
    ),
    "viot overlapping endpoint ids": (
        w.viot([IOMMU, w.pci_range(48, 0, bdfs=(0, 0xFF)), w.mmio_endpoint(48, 0x80, 0x1000)]),
        [
            "overlap viot.node[2]: endpoint ids 0x80 to 0x80 are in viot.node[1] as well, "
            "at offset 0x58"
        ],
    ),
    "viot duplicates": (
        w.viot([IOMMU, IOMMU, w.virtio_mmio(0x1000), w.virtio_mmio(0x1000)]),
        [
            "duplicate viot.node[1]: describes the same device as viot.node[0], at offset 0x40",
            "duplicate viot.node[3]: describes the same device as viot.node[2], at offset 0x60",
        ],
    ),
    "viot node too long": (
        w.viot([w.viot_node(3, bytes(14))]),
        ["length viot.node[0].length: 18 bytes, VirtioPciIommu takes 16, at offset 0x32"],
    ),
    "unknown type": (
        w.viot([w.viot_node(5, b"")]),
        ["unknown-type viot.node[0].type: type 5 is not defined, at offset 0x30"],
    ),
    "trailing": (
        w.viot([IOMMU]) + b"xyz",
        ["trailing viot.trailing: 3 bytes follow the table, at offset 0x40"],
    ),
    "truncated": (
        w.viot([IOMMU])[:60],
        [
            "length viot.length: the table has 64 bytes, the data ends after 60, at offset 0x4",
            "truncated viot.node[0].reserved1: node runs past the table, at offset 0x30",
        ],
    ),
    "iort references": (
        w.iort([ITS, w.root_complex(0, w.mapping(0), w.mapping(51, 0x10000), revision=0)]),
        [
            "dangling iort.node[1].mapping[0].output_reference: it is zero, at offset 0x78",
            "dangling iort.node[1].mapping[1].output_reference: no node begins at 0x33, "
            "at offset 0x8c",
        ],
    ),
    "iort self-reference": (
        w.iort([w.smmu_v3(0x1000, w.mapping(48))]),
        [
            "self-reference iort.node[0].mapping[0].output_reference: the node points to itself, "
            "at offset 0x80"
        ],
    ),
    "iort wrong output": (
        w.iort([w.root_complex(0), w.smmu_v3(0x1000, w.mapping(48))]),
        [
            "dangling iort.node[1].mapping[0].output_reference: iort.node[0] is a RootComplex, "
            "which is no output of a SmmuV3, at offset 0xa4"
        ],
    ),
    "iort circle": (
        w.iort([w.iort_node(9, b"", [w.mapping(84)]), w.iort_node(9, b"", [w.mapping(48)])]),
        [
            "unknown-type iort.node[0].type: type 0x9 is not defined, at offset 0x30",
            "unknown-type iort.node[1].type: type 0x9 is not defined, at offset 0x54",
            "self-reference iort.node[1].mapping[0].output_reference: leads back to "
            "iort.node[0], which leads here, at offset 0x70",
        ],
    ),
    "iort overlapping ids": (
        w.iort([ITS, SMMU, w.root_complex(0, w.mapping(AFTER_ITS, 0, 257), w.mapping(48, 256, 9))]),
        [
            "overlap iort.node[2].mapping[1]: input ids 0x100 to 0x100 are in "
            "iort.node[2].mapping[0] as well, at offset 0xc4"
        ],
    ),
    "iort ids overflow": (
        w.iort([ITS, w.root_complex(0, w.mapping(48, 0xFFFFFFFF, 2, 0xFFFFFFFE))]),
        [
            "range iort.node[1].mapping[0].input_base: the last of 2 ids would be 0x100000000, "
            "at offset 0x6c"
        ],
    ),
    "iort single mapping": (
        w.iort([ITS, w.smmu(0x1000, w.mapping(48, flags=1))]),
        [
            "value iort.node[1].mapping[0].flags: a single mapping is not allowed in this type of "
            "node, at offset 0xac"
        ],
    ),
    "iort device id mapping": (
        w.iort([ITS, w.smmu_v3(0x1000, w.mapping(48), flags=16, index=1)]),
        ["range iort.node[1].id_mapping_index: 1, there are 1 mappings, at offset 0x88"],
    ),
    "iort identifiers": (
        w.iort([ITS, w.root_complex(0)], revision=3),
        [
            "duplicate iort.node[1].identifier: 0 is the identifier of iort.node[0] as well, "
            "at offset 0x4c"
        ],
    ),
    "iort node revision": (
        w.iort([w.root_complex(0, revision=99)]),
        ["revision iort.node[0].revision: 99 is not known for this type, 4 is, at offset 0x33"],
    ),
    "iort group": (
        w.iort([w.its_group(), w.its_group(1, 2, 1)]),
        [
            "count iort.node[0].its_count: the group is empty, at offset 0x40",
            "duplicate iort.node[1].identifier[2].value: 1 is in the group already, at offset 0x60",
        ],
    ),
    "iort registers": (
        w.iort([w.smmu_v3(0), w.smmu_v3(0x1000), w.smmu(0x1000)]),
        [
            "value iort.node[0].base_address: 0 is no register base, at offset 0x40",
            "duplicate iort.node[2].base_address: iort.node[1] has its registers there as well, "
            "at offset 0xc8",
        ],
    ),
    "iort monitor": (
        w.iort([w.pmcg(0x1000, 5), w.pmcg(0x1000, 88), w.pmcg(0x1000, 48)]),
        [
            "dangling iort.node[0].node_reference: no node begins at 0x5, at offset 0x4c",
            "self-reference iort.node[1].node_reference: the node points to itself, at offset 0x74",
        ],
    ),
    "iort reserved memory": (
        w.iort(
            [
                ITS,
                SMMU,
                w.reserved_memory(
                    [(0x11000, 0x10000), (0x20000, 0), ((1 << 64) - 0x10000, 0x20000)], AREA
                ),
                w.reserved_memory([(0x10000, 0x20000), (0x20000, 0x10000)], AREA),
                w.reserved_memory([]),
            ]
        ),
        [
            "alignment iort.node[2].range[0].base_address: 0x11000 is not a multiple of 64 KiB, "
            "at offset 0xa8",
            "range iort.node[2].range[1].length: the range is empty, at offset 0xc4",
            "range iort.node[2].range[2].length: the range goes beyond 64 bits, at offset 0xd8",
            "overlap iort.node[3].range[1]: addresses 0x20000 to 0x2ffff are in "
            "iort.node[3].range[0] as well, at offset 0x128",
            "count iort.node[4].mapping_count: the memory is for no device, at offset 0x158",
            "count iort.node[4].rmr_count: the node names no memory, at offset 0x164",
        ],
    ),
    "iort name": (
        w.iort([w.named_component(b"ABC")]),
        [
            "unterminated iort.node[0].device_name: no NUL before the end of the node, "
            "at offset 0x4d"
        ],
    ),
    "iort reserved bits": (
        poke(w.iort([ITS, w.root_complex(0, ats=0x80)]), 60, b"\0"),
        ["reserved iort.node[1].ats_attribute: reserved bits 0x80 are set, at offset 0x60"],
    ),
    "dmar width": (
        w.dmar([UNIT], width=10),
        ["value dmar.width: host addresses of 11 bits, at offset 0x24"],
    ),
    "dmar order": (
        w.dmar([w.rhsa(0xFED90000), UNIT, w.drhd(0xFED91000, SCOPE)]),
        [
            "order dmar.node[1]: Drhd behind a structure of type 3, at offset 0x44",
            "order dmar.node[2]: Drhd behind a structure of type 3, at offset 0x54",
            "order dmar.node[2]: behind dmar.node[1], which includes all of segment 0, "
            "at offset 0x54",
        ],
    ),
    "dmar registers": (
        w.dmar(
            [
                w.drhd(0, SCOPE),
                w.drhd(0x1800, SCOPE, segment=1, size=1),
                w.drhd(0x2000, SCOPE, segment=2, size=16),
            ]
        ),
        [
            "value dmar.node[0].address: 0x0 is no register base, at offset 0x38",
            "alignment dmar.node[1].address: 0x1800 is not at the start of a page, at offset 0x50",
            "reserved dmar.node[2].size: reserved bits 0x10 are set, at offset 0x65",
            "overlap dmar.node[2].address: registers at 0x2000 to 0x2fff are in "
            "dmar.node[1].address as well, at offset 0x68",
        ],
    ),
    "dmar units without devices": (
        w.dmar([w.drhd(0x1000), w.rmrr(0x2000, 0x1FFF), w.atsr(), w.rhsa(0x5000)]),
        [
            "range dmar.node[0]: names no device, at offset 0x30",
            "range dmar.node[1]: names no device, at offset 0x40",
            "range dmar.node[1].end_address: 0x1fff is below base_address 0x2000, at offset 0x50",
            "range dmar.node[2]: names no root port, at offset 0x58",
            "dangling dmar.node[3].base_address: no unit has its registers at 0x5000, "
            "at offset 0x68",
        ],
    ),
    "dmar scopes": (
        w.dmar(
            [
                w.drhd(
                    0x1000,
                    *(SCOPE, SCOPE, w.scope(6, 0, (1, 0)), w.scope(1, 0), w.scope(1, 0, (32, 8))),
                    *(w.scope(5, 0, (3, 0), enumeration=4), w.scope(1, 0, length=7) + b"\0"),
                )
            ]
        ),
        [
            "duplicate dmar.node[0].scope[1]: names the device of dmar.node[0].scope[0], "
            "at offset 0x48",
            "unknown-type dmar.node[0].scope[2].entry_type: type 6 is not defined, at offset 0x50",
            "length dmar.node[0].scope[3].length: there is no path to the device, at offset 0x59",
            "value dmar.node[0].scope[4].path[0].device: 0x20, the largest is 0x1f, at offset 0x64",
            "value dmar.node[0].scope[4].path[0].function: 0x8, the largest is 0x7, at offset 0x65",
            "dangling dmar.node[0].scope[5].enumeration_id: no ANDD has device number 4, "
            "at offset 0x6a",
            "duplicate dmar.node[0].scope[6]: names the device of dmar.node[0].scope[3], "
            "at offset 0x6e",
            "length dmar.node[0].scope[6].length: 7 bytes do not hold whole steps of a path, "
            "at offset 0x6f",
            "length dmar.node[0].scope[6].length: there is no path to the device, at offset 0x6f",
        ],
    ),
    "dmar names": (
        w.dmar([UNIT, w.andd(1, b"A"), w.andd(1, b"B\0")]),
        [
            "unterminated dmar.node[1].device_name: no NUL before the end of the node, "
            "at offset 0x48",
            "duplicate dmar.node[2].device_number: 1 is the number of dmar.node[1] as well, "
            "at offset 0x50",
        ],
    ),
    "dmar memory": (
        w.dmar([UNIT, w.rmrr(0x1001, 0x2000, SCOPE)]),
        [
            "alignment dmar.node[1].base_address: 0x1001 is not at the start of a page, "
            "at offset 0x48",
            "alignment dmar.node[1].end_address: 0x2000 is not at the end of a page, "
            "at offset 0x50",
        ],
    ),
    "ivrs ranges": (
        w.ivrs(
            [
                w.ivhd(
                    0x4000,
                    *(w.entry(4, 1), w.entry(3, 8), w.entry(2, 9), w.entry(3, 9), w.entry(4, 8)),
                    w.entry(3, 20),
                )
            ]
        ),
        [
            "order ivrs.node[0].entry[0]: the end of a range that has no start, at offset 0x48",
            "order ivrs.node[0].entry[2]: the range of ivrs.node[0].entry[1] has no end before "
            "it, at offset 0x50",
            "range ivrs.node[0].entry[4].device_id: 0x8 is below the start, 0x9, at offset 0x59",
            "order ivrs.node[0].entry[5]: the start of a range that has no end, at offset 0x5c",
        ],
    ),
    "ivrs overlapping units": (
        w.ivrs(
            [
                w.ivhd(0x4000, w.entry(3, 0), w.entry(4, 0xFF)),
                w.ivhd(0x8000, w.entry(2, 0x80), device=3),
                w.ivhd(0xC000, w.entry(2, 0x80), device=4, segment=1),
                w.ivhd(0x10000, w.entry(1), device=5, kind=0x11),
            ]
        ),
        [
            "overlap ivrs.node[1].entry[0]: device ids are in ivrs.node[0].entry[0] as well, "
            "at offset 0x68"
        ],
    ),
    "ivrs blocks": (
        w.ivrs(
            [
                w.ivhd(0x4000),
                w.ivhd(0x4001),
                w.ivmd(1, 2),
                w.ivmd(0x1000, 0, 0x22, 9, 8),
                w.ivmd((1 << 64) - 0x1000, 0x2000, flags=16),
            ]
        ),
        [
            "duplicate ivrs.node[1]: describes the same IOMMU as ivrs.node[0], at offset 0x48",
            "alignment ivrs.node[1].base_address: 0x4001 is not a multiple of 16 KiB above 0, "
            "at offset 0x50",
            "alignment ivrs.node[2].start_address: 0x1 is not a multiple of 4 KiB, at offset 0x70",
            "alignment ivrs.node[2].memory_length: 0x2 is not a multiple of 4 KiB, at offset 0x78",
            "range ivrs.node[3].aux_data: 0x8 is below device_id 0x9, at offset 0x86",
            "range ivrs.node[3].memory_length: the range is empty, at offset 0x98",
            "reserved ivrs.node[4].flags: reserved bits 0x10 are set, at offset 0xa1",
            "range ivrs.node[4].memory_length: the range goes beyond 64 bits, at offset 0xb8",
        ],
    ),
    "ivrs entries": (
        w.ivrs(
            [
                w.ivhd(
                    0x4000,
                    w.special(0, 1, 3),
                    w.hid(1, b"A" * 8, b"x", uid_type=3),
                    w.hid(1, b"A" * 8, b"x", uid_type=1),
                )
            ]
        ),
        [
            "value ivrs.node[0].entry[0].variety: 3 is neither an I/O APIC nor a HPET, "
            "at offset 0x4f",
            "value ivrs.node[0].entry[1].uid_type: format 3 is not defined, at offset 0x64",
            "length ivrs.node[0].entry[2].uid_length: 1 bytes, a UID of format 1 has 8, "
            "at offset 0x7c",
        ],
    ),
    "wrapped": (
        w.draft_viot(w.iort([ITS], revision=200)),
        [
            "revision viot.iort.revision: 200 is not known, 0, 1, 2, 3, 4, 5, 6, 7 are, "
            "at offset 0x38"
        ],
    ),
    "behind the wrapped": (
        w.draft_viot(w.iort([ITS]) + b"abc"),
        ["trailing viot.iort.trailing: 3 bytes follow the table, at offset 0x78"],
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violations(name: str) -> None:
    data, expected = VIOLATIONS[name]
    right = {"checksum": MADE["viot"][9]}
    found = [f"{v.rule} {v}" for v in validate(data)]
    assert found == [line.format(**right) for line in expected]


def test_every_rule_is_met() -> None:
    met = {v.rule for data, _ in VIOLATIONS.values() for v in validate(data)}
    elsewhere = {Rule.OFFSET, Rule.BOUND}
    assert met | elsewhere == set(Rule)


def test_violations_are_values() -> None:
    (first,) = validate(w.viot([IOMMU], revision=3))
    assert first == Violation(Rule.REVISION, "viot.revision", "3 is not known, 0 are", 8)
    assert hash(first) and not first.fatal


@pytest.mark.parametrize(
    "data",
    [
        w.viot([IOMMU, *[w.pci_range(48, 0, (0, 0xFFFF))] * (MOST_STRUCTURES // 2 - 4)]),
        w.ivrs([w.ivhd(0x4000, w.entry(2, 1), device=n) for n in range(5000)]),
        w.iort([w.iort_node(9, b"", [w.mapping(48 + 36 * (n + 1))]) for n in range(5000)]),
        w.iort([w.iort_node(9, b"", [w.mapping(48)] * 3000)]),
        w.dmar([w.drhd(0x1000)] * 5000),
    ],
    ids=["ranges", "units", "chain", "mappings", "same"],
)
def test_time_is_bounded(data: bytes) -> None:
    began = time.process_time()
    assert validate(data)
    assert time.process_time() - began < 15


def test_comparisons_are_bounded() -> None:
    ranges = [w.pci_range(48, n, (0, 0xFFFF), (n, n)) for n in range(3000)]
    last = validate(w.viot([IOMMU, *ranges]))
    assert any(v.rule is Rule.BOUND and "pairs of ranges" in v.problem for v in last)
