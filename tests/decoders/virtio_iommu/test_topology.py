"""Tests of topology descriptions against bytes written by struct."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from random import Random

import pytest

from decoders.acpi.tree import Rule
from decoders.bytewise import ByteStructure, encode, field_sizes, packed
from decoders.errors import DecodeError
from decoders.virtio_iommu import forms as f
from decoders.virtio_iommu.constants import Feature
from decoders.virtio_iommu.forms import Form, detect
from decoders.virtio_iommu.topology import LARGEST_CONFIG, read, read_tolerant
from decoders.virtio_iommu.topology_rules import validate
from decoders.virtio_iommu.topology_writing import Item, MmioEndpoint, PciEndpoints, write
from tests.writers import config_space as w

ITEMS: list[Item] = [
    PciEndpoints(2, 0x10, 0x4FF, 0x0001_2345),
    MmioEndpoint(0x12_3456_789A_B000, 0xFFFF_0007),
    PciEndpoints(0, 0, 0xFFFF, 0x8000_0000),
]
WRITTEN: dict[str, bytes] = {
    Form.V1: w.v1(
        w.v1_pci(56, 0x0001_2345, 2, 0x10, 0x4FF)
        + w.v1_mmio(72, 0xFFFF_0007, 0x12_3456_789A_B000)
        + w.v1_pci(0, 0x8000_0000)
    ),
    Form.V2: w.v2(
        [
            w.v2_pci(0x0001_2345, 2, 0x10, 0x4FF),
            w.v2_mmio(0xFFFF_0007, 0x12_3456_789A_B000),
            w.v2_pci(0x8000_0000),
        ]
    ),
    Form.V3: w.v3(
        [
            w.v3_pci(0x0001_2345, 2, 0x10, 0x4FF),
            w.v3_mmio(0xFFFF_0007, 0x12_3456_789A_B000),
            w.v3_pci(0x8000_0000),
        ]
    ),
}
"""ITEMS in each form."""

UNUSUAL = {
    "backwards": w.v1(w.v1_mmio(0, 1, 2) + w.v1_pci(40), offset=56),
    "far apart": w.v1(w.v1_pci(60) + bytes(4) + w.v1_mmio(0, 1, 2) + b"more"),
    "unknown v1": w.v1(struct.pack("<HH", 9, 44) + w.v1_pci(0)),
    "short v2": w.v2([w.v2_pci(1), w.v2_pci(2, 1)], length=12),
    "wide v2": w.v2([w.v2_pci(1) + b"abc", w.v2_mmio(2, 3)], length=21),
    "unknown v2": w.v2([b"\7\0abcdef", w.v2_pci()]),
    "long v3": w.v3([w.v3_pci(length=20) + b"abcd", w.v3_mmio(1, 2)], offset=48),
    "unknown v3": w.v3([w.v3_item(77, b""), w.v3_item(0, b"123"), w.v3_mmio(1, 2)]),
    "unaligned v3": w.v3([w.v3_mmio(1, 2)], offset=41),
    "bypass": w.plain(1),
    "longer": w.plain() + b"behind",
}


def brief(value: object) -> str:
    """Name a parameter in the list of tests."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


@pytest.mark.parametrize("form", WRITTEN)
def test_the_writer_writes_each_form(form: Form) -> None:
    assert write(form, w.plain(1), ITEMS) == WRITTEN[form]


@pytest.mark.parametrize("form", WRITTEN)
def test_items_are_read(form: Form) -> None:
    space = read(WRITTEN[form])
    assert space.form is form
    first, second, third = (node.body for node in space.items)
    assert (first.segment, first.bdf_start, first.bdf_end) == (2, 0x10, 0x4FF)
    assert first.endpoint_start == 0x0001_2345
    assert (second.endpoint, second.address) == (0xFFFF_0007, 0x12_3456_789A_B000)
    assert third.endpoint_start == 0x8000_0000
    assert space.lead[0].body.probe_size == 512
    assert validate(space) == []


@pytest.mark.parametrize("name", [*WRITTEN, *UNUSUAL])
def test_bytes_survive(name: str) -> None:
    data = {**WRITTEN, **UNUSUAL}[name]
    space = read(data)
    assert space.encode() == data
    at = 0
    for node in space.walk():
        assert node.offset == at, "nodes are all there is, and in order"
        at += len(encode(node.body))
    assert at == len(data)


def test_the_list_is_followed_in_its_order() -> None:
    space = read(UNUSUAL["backwards"], form=Form.V1)
    assert [node.offset for node in space.items] == [56, 40]


def test_unknown_items_are_passed_over_and_reported() -> None:
    for name in ("unknown v1", "unknown v2", "unknown v3"):
        space = read(UNUSUAL[name])
        assert Rule.UNKNOWN_TYPE in {violation.rule for violation in validate(space)}, name
        assert sum(1 for _ in space.of(f.PciRange)) + sum(1 for _ in space.of(f.Mmio)) == 1, name


GOLDEN = json.loads(
    (Path(__file__).parents[2] / "golden/virtio-iommu-topology.json").read_text(encoding="utf-8")
)
COUNTERPARTS: dict[str, type[ByteStructure]] = {
    "topo19_head": f.ItemV1,
    "topo19_pci_range": f.PciRangeV1,
    "topo19_endpoint": f.MmioV1,
    "topo20_config": f.HeadV2,
    "topo20_pci_range": f.PciRangeV2,
    "topo20_endpoint": f.MmioV2,
    "topo20b_config": f.HeadV3,
    "topo20b_pci_range": f.PciRangeV3,
    "topo20b_mmio": f.MmioV3,
}


@pytest.mark.parametrize("name", COUNTERPARTS)
def test_layouts_are_those_of_a_compiler(name: str) -> None:
    cls = COUNTERPARTS[name]
    places = [(packed(cls).offset(field), size) for field, size in field_sizes(cls)]
    expected: list[tuple[int, int]] = []
    for _, offset, size, kind in GOLDEN["structs"][name]["members"]:
        inner = GOLDEN["structs"].get(kind.removeprefix("struct "), {"members": []})["members"]
        expected += [(offset + at, width) for _, at, width, _ in inner] or [(offset, size)]
    assert places == expected
    assert packed(cls).size == GOLDEN["structs"][name]["size"]


# --- which form ----------------------------------------------------------------------------------


def test_bit_6_is_the_one_that_counts() -> None:
    """The driver of November 2019 tests `features & 6`: bits 1 and 2 instead of bit 6."""
    data = WRITTEN[Form.V1]
    assert detect(data, Feature.DOMAIN_RANGE | Feature.MAP_UNMAP) is Form.PLAIN
    assert detect(data, 1 << 6) is Form.V1
    assert read(data, Feature.DOMAIN_RANGE | Feature.MAP_UNMAP).items == ()


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (w.plain(0), Form.BYPASS_CONFIG),
        (w.plain(1), Form.BYPASS_CONFIG),
        (w.v1(w.v1_pci(0)), Form.V1),
        (w.v1(bytes(8) + w.v1_pci(0), 48), Form.V1),
        (w.v1(w.v1_pci(0), 0x4000), Form.V1),
        (w.v2([w.v2_pci()], length=12), Form.V2),
        (w.v2([]), Form.V2),
        (w.v3([]), Form.V3),
        (w.v3([w.v3_pci()], 48), Form.V3),
        (w.v3([w.v3_pci()], count=0xFFFF), Form.V3),
    ],
    ids=brief,
)
def test_detection(data: bytes, form: Form) -> None:
    assert detect(data) is form


@pytest.mark.parametrize("form", Form)
def test_what_is_known_overrides_the_guess(form: Form) -> None:
    assert detect(w.plain(1), 0, form) is form


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (w.plain(2), "config: neither a bypass field nor a topology description, at offset 0x24"),
        (w.plain(0, b"\0\1\0"), "config: neither"),
        (w.plain()[:39], r"config.bypass: bit 6 of the features needs 40 bytes, at offset 0x27"),
    ],
    ids=brief,
)
def test_what_is_of_no_form(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        detect(data)


# --- hostile input -------------------------------------------------------------------------------

CIRCLE = w.v1(w.v1_pci(56) + w.v1_pci(40))
"""On which the driver of November 2019 spins until it has taken 0x10000 steps."""

HOSTILE = [
    (CIRCLE, Form.V1, "config.item[1].next", "leads back to config.item[0]", 58),
    (w.v1(w.v1_pci(40)), Form.V1, "config.item[0].next", "leads back to config.item[0]", 42),
    (w.v1(w.v1_pci(4)), Form.V1, "config.item[0].next", "an item at 0x4, the first one can be", 42),
    (w.v1(w.v1_pci(0), 39), Form.V1, "config.topology.offset", "an item at 0x27", 36),
    (
        w.v1(w.v1_pci(0), 56),
        Form.V1,
        "config.topology.offset",
        "an item at 0x38, beyond the config space of 56 bytes",
        36,
    ),
    (w.v1(w.v1_pci(0xFFFF)), Form.V1, "config.item[0].next", "an item at 0xffff, beyond", 42),
    (w.v1(w.v1_pci(0)[:-1]), Form.V1, "config.item[0].reserved", "past the config space", 40),
    (w.v1(b"\0"), Form.V1, "config.item[0].type", "past the config space", 40),
    (w.v1(w.v1_pci(48) + bytes(8)), Form.V1, "config.item[1]", "it lies over another item", 48),
    (w.v2([w.v2_pci()], length=0), Form.V2, "config.topology.item_length", "items of 0 bytes", 44),
    (w.v2([w.v2_pci()], length=11), Form.V2, "config.topology.item_length", "items of 11 b", 44),
    (w.v2([w.v2_mmio(1, 2)], length=12), Form.V2, "config.item[0].type", "MmioV2 takes 16", 48),
    (
        w.v2([w.v2_pci()], count=0xFFFF_FFFF),
        Form.V2,
        "config.topology.count",
        "4294967295 items of 16 bytes run past the config space, 1 fit",
        40,
    ),
    (w.v2([w.v2_pci()], offset=44), Form.V2, "config.topology.offset", "an item at 0x2c", 36),
    (w.v2([w.v2_pci()], offset=1 << 31), Form.V2, "config.topology.offset", "beyond", 36),
    (w.v2([])[:47], Form.V2, "config.topology.item_length", "past the config space", 36),
    (w.v3([w.v3_pci(length=0)]), Form.V3, "config.item[0].length", "0 bytes, PciRangeV3 takes", 42),
    (w.v3([w.v3_item(9, b"", 3)]), Form.V3, "config.item[0].length", "3 bytes, ItemV3 takes 4", 42),
    (w.v3([w.v3_pci(length=17)]), Form.V3, "config.item[0].length", "past the config space", 42),
    (w.v3([w.v3_pci()], count=2), Form.V3, "config.topology.count", "2 items announced, 1 are", 36),
    (w.v3([w.v3_pci(), b"\1\0"], count=2), Form.V3, "config.item[1].length", "past the", 56),
    (w.v3([w.v3_pci()])[:39], Form.V3, "config.topology.offset", "past the config space", 36),
    (b"", Form.V3, "config.page_size_mask", "past the config space", 0),
]


@pytest.mark.parametrize(("data", "form", "path", "problem", "offset"), HOSTILE, ids=brief)
def test_hostile_input(data: bytes, form: Form, path: str, problem: str, offset: int) -> None:
    with pytest.raises(DecodeError) as caught:
        read(data, form=form)
    assert caught.value.path == path
    assert problem in caught.value.problem
    assert caught.value.offset == offset
    assert read_tolerant(data, form=form).encode() == data


def test_numbers_are_read_whole() -> None:
    """The driver of November 2019 reads these 32 and 64-bit numbers with 16-bit accesses."""
    for form, data in WRITTEN.items():
        ids = [body.endpoint_start for _, body in read(data).of(f.PciRange)]
        assert ids == [0x0001_2345, 0x8000_0000], form
        (mmio,) = (body for _, body in read(data).of(f.Mmio))
        assert mmio.endpoint >> 16 == 0xFFFF, form
        assert mmio.address >> 16 == 0x12_3456_789A, form


def test_a_config_space_is_limited() -> None:
    with pytest.raises(DecodeError, match="more than the 1048576 that are read"):
        read(w.plain().ljust(LARGEST_CONFIG + 1, b"\0"))


BOMBS = {
    Form.V1: w.v1(b"".join(struct.pack("<HH", 9, 44 + 4 * i) for i in range(16370))),
    Form.V2: w.v2([b"\7"] * 60000, length=12),
    Form.V3: w.v3([w.v3_item(7, b"")] * 60000),
}


@pytest.mark.parametrize("form", BOMBS)
def test_many_items_take_bounded_time(form: Form) -> None:
    before = time.monotonic()
    space = read_tolerant(BOMBS[form], form=form)
    validate(space)
    assert time.monotonic() - before < 10
    assert len(space.items) > 5000
    assert {fault.rule for fault in space.faults if fault.fatal} == {Rule.BOUND}
    assert space.encode() == BOMBS[form]


def test_damaged_config_spaces_are_read_or_refused() -> None:
    choose = Random(6)
    sound = [*WRITTEN.values(), *UNUSUAL.values()]
    refused = 0
    for _ in range(3000):
        data = bytearray(choose.choice(sound))
        for _ in range(choose.randint(1, 3)):
            data[choose.randrange(36, len(data))] = choose.choice([0, 1, 16, 40, 48, 56, 255])
        cut = bytes(data[: choose.randint(36, len(data))])
        form = choose.choice(list(Form))
        assert read_tolerant(cut, form=form).encode() == cut
        try:
            validate(read(cut, form=form))
        except DecodeError as error:
            refused += 1
            assert error.path.startswith("config.")
            assert error.offset is not None
    assert refused > 300


# --- rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "rule", "path"),
    [
        (w.v1(w.v1_pci(0)), None, ""),
        (w.v1(w.v1_pci(0)[:-1] + b"\1"), Rule.RESERVED, "config.item[0].reserved"),
        (w.v2([w.v2_pci(first=2, last=1)]), Rule.RANGE, "config.item[0].bdf_end"),
        (w.v2([w.v2_pci(0xFFFF_FFFF, last=1)]), Rule.RANGE, "config.item[0].endpoint_start"),
        (w.v3([w.v3_pci(), w.v3_pci(0x10000, first=9)]), Rule.OVERLAP, "config.item[1]"),
        (w.v3([w.v3_pci(), w.v3_mmio(9, 0)]), Rule.OVERLAP, "config.item[1]"),
        (w.v3([w.v3_mmio(8, 0), w.v3_mmio(9, 0)]), Rule.DUPLICATE, "config.item[1]"),
        (w.v3([w.v3_pci(), w.v3_pci(0x10000, 1)]), None, ""),
        (UNUSUAL["unaligned v3"], Rule.ALIGNMENT, "config.topology.offset"),
    ],
    ids=brief,
)
def test_rules(data: bytes, rule: Rule | None, path: str) -> None:
    found = [(violation.rule, violation.path) for violation in validate(read(data))]
    assert found == ([] if rule is None else [(rule, path)])


def test_rules_of_the_bypass_field() -> None:
    space = read(w.plain(2, b"abc"), form=Form.BYPASS_CONFIG)
    assert [v.path for v in validate(space)] == ["config.bypass", "config.reserved"]


def test_what_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="form plain describes no topology"):
        write(Form.PLAIN, b"", [])
    with pytest.raises(ValueError, match="offset 0x10008 does not fit 16 bits"):
        write(Form.V1, b"", [MmioEndpoint(0, 0)] * 5000)
    with pytest.raises(ValueError, match="number of items 0x10000 does not fit"):
        write(Form.V3, b"", [MmioEndpoint(0, 0)] * 0x10000)
    with pytest.raises(ValueError, match="bdf_end: 0x10000 does not fit 2 bytes"):
        write(Form.V2, b"", [PciEndpoints(0, 0, 0x10000, 0)])
