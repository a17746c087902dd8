"""Tests of decoding and encoding whole tables."""

from __future__ import annotations

import struct
import time
from collections import Counter

import pytest

from decoders.acpi import LARGEST_TABLE, MOST_STRUCTURES, Header, Text, read, read_tolerant
from decoders.acpi.dmar import DeviceScope, Drhd, PathStep
from decoders.acpi.iort_nodes import (
    EarlyPmcg,
    EarlyRootComplex,
    EarlySmmuV3,
    GlobalInterrupts,
    IdMapping,
    IortNodeHeader,
    ReservedRange,
    RootComplex,
    SmmuV3,
)
from decoders.acpi.ivrs import HidEntry, Ivhd11, UnknownEntry8
from decoders.acpi.viot import PciRange, ViotNodeHeader
from decoders.bytewise import Opaque, bit, bits_of
from decoders.errors import DecodeError
from tests.decoders.acpi.blobs import ALL, MADE, QEMU
from tests.writers import acpi as w


@pytest.mark.parametrize("name", ALL)
def test_encode_gives_back_the_bytes(name: str) -> None:
    assert read(ALL[name]).encode() == ALL[name]


@pytest.mark.parametrize("name", ALL)
def test_fields_cover_every_byte_once(name: str) -> None:
    at = 0
    for field in read(ALL[name]).located():
        assert field.offset == at, field.path
        at += field.size
    assert at == len(ALL[name])


def test_qemu_tables_have_nothing_unknown() -> None:
    assert len(QEMU) == 38
    for path in QEMU:
        table = read(path.read_bytes())
        assert table.nodes and not table.faults, path.name
        assert not any(isinstance(node.body, Opaque) for node in table.walk()), path.name


def test_every_kind_of_node_is_known() -> None:
    kinds = Counter(node.kind for table in MADE.values() for node in read(table).walk())
    unknown = {"IortNodeHeader", "DmarNodeHeader", "IvrsNodeHeader", "ViotNodeHeader"}
    assert not unknown & kinds.keys()
    assert len(kinds) == 44


def test_fields_of_a_viot() -> None:
    table = read(MADE["viot"])
    (first, second) = table.of(PciRange)
    assert (first[0].path, first[0].offset) == ("viot.node[2]", 80)
    body = second[1]
    assert (body.endpoint_start, body.segment_start, body.segment_end) == (0x10000, 1, 3)
    assert (body.bdf_start, body.bdf_end, body.output_node) == (0, 0xFFFF, 48)
    header = table.head(Header)
    assert header is not None and header.oem_table_id == b"TESTTABL"


def test_fields_of_a_dmar() -> None:
    first, second = read(MADE["dmar"]).of(Drhd)
    assert (bit(first[1], "flags", "include_pci_all"), first[1].address) == (0, 0xFED90000)
    assert bit(second[1], "flags", "include_pci_all") == 1
    scopes = list(first[0].of(DeviceScope))
    assert [s.entry_type for _, s in scopes] == [1, 2]
    steps = [(s.device, s.function) for _, s in scopes[1][0].of(PathStep)]
    assert steps == [(1, 0), (0, 0), (3, 1)]
    assert scopes[1][0].parts[2].path == "dmar.node[0].scope[1].path[2]"


def test_fields_of_an_iort() -> None:
    table = read(MADE["iort"])
    smmu_v3 = next(body for _, body in table.of(SmmuV3))
    assert smmu_v3.base_address == 0x9050000
    names = [node.body.string for node in table.walk() if isinstance(node.body, Text)]
    assert names == ["\\_SB.DEV0", "\\_SB.IWB0"]
    areas = [n.body for n in table.walk() if isinstance(n.body, ReservedRange)]
    assert [(a.base_address, a.length) for a in areas] == [(0x10000, 0x20000), (0x100000, 0x10000)]
    reserved = table.nodes[6].body
    assert dict(bits_of(reserved, "flags")) == {
        "remapping_permitted": 1,
        "access_privileged": 1,
        "access_attributes": 0,
        "reserved": 0,
    }
    assert len([n for n in table.walk() if isinstance(n.body, GlobalInterrupts)]) == 1
    assert len([n for n in table.walk() if ".context_interrupt[" in n.path]) == 3
    mappings = [m for node in table.nodes for _, m in node.of(IdMapping)]
    assert [m.id_count + 1 for m in mappings] == [65536, 16, 65536, 1, 1, 65536]


def test_early_forms_of_iort_nodes_are_told_by_their_size() -> None:
    root = w.iort_node(2, bytes(16), [w.mapping(48)])
    table = read(w.iort([root, w.iort_node(4, bytes(44)), w.iort_node(5, bytes(16))]))
    assert [node.kind for node in table.nodes] == ["EarlyRootComplex", "EarlySmmuV3", "EarlyPmcg"]
    assert [
        cls in type(node.body).__mro__
        for node, cls in zip(table.nodes, (EarlyRootComplex, EarlySmmuV3, EarlyPmcg), strict=True)
    ] == [True] * 3
    assert isinstance(read(w.iort([w.root_complex(0)])).nodes[0].body, RootComplex)


def test_fields_of_an_ivrs() -> None:
    table = read(MADE["ivrs"])
    node, body = next(table.of(Ivhd11))
    assert body.base_address == 0xFEB80000
    named, entry = next(node.of(HidEntry))
    assert entry.acpi_hid == b"AMDI0020"
    assert named.parts[0].body.data == b"\\_SB.UA0"


def test_draft_viot_wraps_a_table() -> None:
    table = read(MADE["viot-draft"])
    assert table.inner is not None and not table.nodes
    assert [node.kind for node in table.inner.nodes[:2]] == ["DraftVirtioPci", "DraftVirtioMmio"]
    assert table.inner.nodes[0].path == "viot.iort.node[0]"
    assert table.inner.nodes[0].offset == 96
    for other in ("dmar", "ivrs"):
        wrapped = w.draft_viot(MADE[other])
        inner = read(wrapped).inner
        assert inner is not None and inner.signature == other.upper()
        assert len(inner.nodes) == len(read(MADE[other]).nodes)


def test_draft_nodes_are_unknown_elsewhere() -> None:
    table = read(w.iort([w.iort_node(0x80, bytes(4))]))
    assert isinstance(table.nodes[0].body, IortNodeHeader)
    assert str(table.faults[0]) == "iort.node[0].type: type 0x80 is not defined, at offset 0x30"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (w.viot([w.viot_node(9, b"something"), w.virtio_pci()]), "ViotNodeHeader"),
        (w.iort([w.iort_node(99, b"what", [w.mapping(48)])]), "IortNodeHeader"),
        (w.dmar([w.dmar_node(77, b"new")]), "DmarNodeHeader"),
        (w.ivrs([w.ivhd(0x4000)[:0] + b"\x50\0\x08\0\0\0\1\2"]), "IvrsNodeHeader"),
    ],
)
def test_unknown_nodes_are_kept(data: bytes, kind: str) -> None:
    table = read(data)
    assert table.nodes[0].kind == kind
    assert table.encode() == data
    assert [fault.rule for fault in table.faults] == ["unknown-type"]


def test_what_follows_is_kept() -> None:
    data = w.viot([w.virtio_pci()], count=0) + b"tail"
    table = read(data)
    assert table.encode() == data
    assert [node.path for node in table.tail] == ["viot.rest", "viot.trailing"]
    assert read(w.viot([w.viot_node(3, bytes(20))])).nodes[0].parts[0].path == "viot.node[0].data"
    entry = read(w.ivrs([w.ivhd(0x4000, b"\x45" + bytes(7))])).nodes[0].parts[0]
    assert isinstance(entry.body, UnknownEntry8)


def test_other_tables_are_a_header_and_bytes() -> None:
    data = w.table(b"SSDT", b"code")
    table = read(data)
    assert (table.signature, table.encode()) == ("SSDT", data)
    facs = b"FACS" + (64).to_bytes(4, "little") + bytes(56)
    assert read(facs).encode() == facs


def cut(data: bytes, size: int) -> bytes:
    """Give a table that ends early, and says so."""
    short = bytearray(data[:size])
    short[4:8] = size.to_bytes(4, "little")
    return bytes(short)


RANGE = w.viot([w.virtio_pci(), w.mmio_endpoint(48, 1, 0x1000), w.pci_range(48)])
ITS = w.its_group(0)
ERRORS = {
    "empty": (b"", "table.signature: header runs past the table, at offset 0x0"),
    "header": (RANGE[:20], "viot.oem_table_id: header runs past the table, at offset 0x0"),
    "short length": (
        w.table(b"DMAR", b"", length=35),
        "dmar.length: 35 bytes, less than a header, at offset 0x4",
    ),
    "long length": (
        w.table(b"DMAR", bytes(12), length=49),
        "dmar.length: the table has 49 bytes, the data ends after 48, at offset 0x4",
    ),
    "fixed part": (
        w.table(b"VIOT", b"\1"),
        "viot.node_count: node runs past the table, at offset 0x24",
    ),
    "cut in a node": (
        cut(RANGE, 0x5C),
        "viot.node[2].endpoint_start: node runs past the table, at offset 0x58",
    ),
    "cut at the end of a node": (
        cut(w.viot([w.viot_node(3, bytes(30))]), 80),
        "viot.node[0].length: node of 34 bytes runs past the table, at offset 0x32",
    ),
    "no length": (
        w.viot([w.viot_node(7, b"", 0)]),
        "viot.node[0].length: 0 bytes, ViotNodeHeader takes 4, at offset 0x32",
    ),
    "short node": (
        w.viot([w.pci_range(48, length=16)]),
        "viot.node[0].length: 16 bytes, PciRange takes 24, at offset 0x32",
    ),
    "nodes in the header": (
        w.viot([w.virtio_pci()], offset=47),
        "viot.node_offset: nodes begin at 0x2f, which is not behind the header, at offset 0x26",
    ),
    "nodes beyond": (
        cut(w.iort([], offset=49), 48),
        "iort.node_offset: nodes begin at 0x31, beyond the table, at offset 0x28",
    ),
    "iort without length": (
        w.iort([w.iort_node(9, b"", length=0)]),
        "iort.node[0].length: 0 bytes, IortNodeHeader takes 16, at offset 0x31",
    ),
    "too many identifiers": (
        w.iort([w.its_group(1, count=0xFFFFFFFF)]),
        "iort.node[0].identifier: 4294967295 of 4 bytes run past the node, 1 fit, at offset 0x44",
    ),
    "too many mappings": (
        w.iort([ITS, w.root_complex(0, w.mapping(48), count=3)]),
        "iort.node[1].mapping: 3 of 20 bytes run past the node, 1 fit, at offset 0x6c",
    ),
    "mappings in the header": (
        w.iort([w.root_complex(0, w.mapping(48), offset=16)]),
        "iort.node[0].mapping_offset: 0x10 is not behind the fixed part of the node, "
        "at offset 0x3c",
    ),
    "mappings beyond": (
        w.iort([w.root_complex(0, w.mapping(48), offset=0xFFFFFFFF)]),
        "iort.node[0].mapping_offset: 0xffffffff is not behind the fixed part of the node, "
        "at offset 0x3c",
    ),
    "mappings over ranges": (
        w.iort(
            [w.iort_node(6, struct.pack("<III", 0, 1, 28) + bytes(20), [w.mapping(48)], offset=32)]
        ),
        "iort.node[0].mapping: overlaps what comes before it in the node, at offset 0x50",
    ),
    "scope without length": (
        w.dmar([w.drhd(0x1000, w.scope(1, 0, length=0))]),
        "dmar.node[0].scope[0].length: 0 bytes, a device scope takes at least 6, at offset 0x41",
    ),
    "scope beyond its node": (
        w.dmar([w.drhd(0x1000, w.scope(1, 0, (1, 0), length=10)), w.rhsa(0x1000)]),
        "dmar.node[0].scope[0].length: scope of 10 bytes runs past its node, 8 are left, "
        "at offset 0x41",
    ),
    "scope cut": (
        w.dmar([w.dmar_node(2, b"\0\0\0\0\1\6\0")]),
        "dmar.node[0].scope[0].reserved: node runs past the node, at offset 0x38",
    ),
    "entry beyond its block": (
        w.ivrs([w.ivhd(0x4000, b"\x46\0\0")]),
        "ivrs.node[0].entry[0].data_setting: node runs past the node, at offset 0x48",
    ),
    "entry of unknown size": (
        w.ivrs([w.ivhd(0x4000, b"\x80\0\0\0")]),
        "ivrs.node[0].entry[0].type: type 0x80 is not defined, and neither is its length, "
        "at offset 0x48",
    ),
    "uid beyond its block": (
        w.ivrs([w.ivhd(0x4000, w.hid(1, b"AMDI0020", b"ABC")[:-1])]),
        "ivrs.node[0].entry[0].uid_length: UID of 3 bytes runs past the node, at offset 0x5d",
    ),
    "wrapped table": (
        w.draft_viot(w.table(b"IORT", b"", length=300)),
        "viot.iort.length: the table has 300 bytes, the data ends after 36, at offset 0x34",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_where(name: str) -> None:
    data, message = ERRORS[name]
    with pytest.raises(DecodeError) as caught:
        read(data)
    assert str(caught.value) == message
    assert read_tolerant(data).encode() == data


def test_a_broken_node_does_not_hide_those_before_it() -> None:
    table = read_tolerant(cut(RANGE, 0x5C))
    assert [node.kind for node in table.nodes] == ["VirtioPciIommu", "MmioEndpoint"]


def test_bounds_are_named() -> None:
    with pytest.raises(DecodeError, match=f"more than the {LARGEST_TABLE} that are read"):
        read(w.table(b"DMAR", bytes(LARGEST_TABLE)))
    many = w.viot([w.viot_node(9, b"")] * (MOST_STRUCTURES // 2 + 1))
    with pytest.raises(DecodeError, match=f"more than {MOST_STRUCTURES} structures in one table"):
        read(many)
    assert read_tolerant(many).encode() == many


@pytest.mark.parametrize(
    "data",
    [
        w.iort([w.iort_node(9, b"")] * 10, count=0xFFFFFFFF),
        w.ivrs([w.ivhd(0x4000, w.entry(2) * 16000)]),
        w.dmar([w.drhd(0x1000, *[w.scope(1, 0)] * 10000)]),
    ],
    ids=["count", "entries", "scopes"],
)
def test_time_is_bounded(data: bytes) -> None:
    began = time.process_time()
    read_tolerant(data)
    assert time.process_time() - began < 10


def test_types() -> None:
    assert isinstance(read(w.viot([w.viot_node(200, b"")])).nodes[0].body, ViotNodeHeader)
