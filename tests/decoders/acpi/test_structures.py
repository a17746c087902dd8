"""Tests of single structures."""

from __future__ import annotations

import pytest

from decoders.acpi import checksum, dmar, iort_nodes, ivrs, seal, viot
from decoders.acpi.structures import Header
from decoders.bytewise import ByteStructure, build, decode, encode, field_sizes, size_of
from decoders.errors import DecodeError
from tests.decoders.acpi.blobs import MADE

SIZES: dict[type[ByteStructure], int] = {
    Header: 36,
    viot.Viot: 12,
    viot.PciRange: 24,
    viot.MmioEndpoint: 24,
    viot.VirtioPciIommu: 16,
    viot.VirtioMmioIommu: 16,
    iort_nodes.Iort: 12,
    iort_nodes.IortNodeHeader: 16,
    iort_nodes.IdMapping: 20,
    iort_nodes.ItsGroup: 16 + 4,
    iort_nodes.NamedComponent: 16 + 13,
    iort_nodes.EarlyRootComplex: 16 + 16,
    iort_nodes.RootComplex: 16 + 20,
    iort_nodes.Smmu: 16 + 44,
    iort_nodes.EarlySmmuV3: 16 + 44,
    iort_nodes.SmmuV3: 16 + 52,
    iort_nodes.EarlyPmcg: 16 + 16,
    iort_nodes.Pmcg: 16 + 24,
    iort_nodes.ReservedMemory: 16 + 12,
    iort_nodes.ReservedRange: 20,
    iort_nodes.Iwb: 16 + 10,
    iort_nodes.DraftVirtioPci: 16 + 4,
    iort_nodes.DraftVirtioMmio: 16 + 32,
    dmar.Dmar: 12,
    dmar.Drhd: 16,
    dmar.Rmrr: 24,
    dmar.Atsr: 8,
    dmar.Rhsa: 20,
    dmar.Andd: 8,
    dmar.Satc: 8,
    dmar.Sidp: 8,
    dmar.DeviceScope: 6,
    dmar.PathStep: 2,
    ivrs.Ivrs: 12,
    ivrs.Ivhd10: 24,
    ivrs.Ivhd11: 40,
    ivrs.Ivmd: 32,
    ivrs.DeviceEntry: 4,
    ivrs.AliasEntry: 8,
    ivrs.ExtendedEntry: 8,
    ivrs.SpecialEntry: 8,
    ivrs.HidEntry: 22,
}
"""Sizes in ACPICA's actbl1.h to actbl3.h, and in the patch series of the draft."""


@pytest.mark.parametrize("cls", SIZES, ids=lambda cls: cls.__name__)
def test_sizes(cls: type[ByteStructure]) -> None:
    assert size_of(cls) == SIZES[cls]


@pytest.mark.parametrize("cls", SIZES, ids=lambda cls: cls.__name__)
def test_bits_fill_their_fields(cls: type[ByteStructure]) -> None:
    sizes = dict(field_sizes(cls))
    for name, columns in cls.bits.items():
        assert sum(width for _, width in columns) == 8 * sizes[name], name


@pytest.mark.parametrize("cls", SIZES, ids=lambda cls: cls.__name__)
def test_bytes_survive(cls: type[ByteStructure]) -> None:
    data = bytes(range(1, size_of(cls) + 1))
    assert encode(decode(cls, data, "here")) == data


def test_decode_takes_exactly_one_structure() -> None:
    with pytest.raises(DecodeError, match=r"here.base_address: the data ends here, at offset 0x40"):
        decode(viot.MmioEndpoint, bytes(12), "here", 0x40)
    with pytest.raises(
        DecodeError, match=r"here: PathStep takes 2 bytes, 1 more follow, at .* 0x2"
    ):
        decode(dmar.PathStep, bytes(3), "here")


def test_build_checks_what_it_is_given() -> None:
    body = build(viot.PciRange, type=1, length=24, bdf_end=0xFFFF, reserved1=b"abcdef")
    assert encode(body).hex() == "0100180000000000000000000000ffff0000616263646566"
    with pytest.raises(ValueError, match="PciRange has no field bdf"):
        build(viot.PciRange, bdf=0)
    with pytest.raises(ValueError, match="bdf_end: 0x10000 does not fit 2 bytes"):
        build(viot.PciRange, bdf_end=0x10000)
    with pytest.raises(ValueError, match="reserved1: 1 bytes instead of 6"):
        build(viot.PciRange, reserved1=b"a")


def test_changed_fields_are_encoded() -> None:
    body = decode(dmar.PathStep, b"\1\2", "here")
    body.device = 5
    assert encode(body) == b"\5\2"


def test_seal() -> None:
    data = bytearray(MADE["dmar"])
    data[60] ^= 0x55
    assert checksum(bytes(data)) != 0
    sealed = seal(bytes(data) + b"more")
    assert checksum(sealed) == 0
    assert int.from_bytes(sealed[4:8], "little") == len(data) + 4
    with pytest.raises(ValueError, match="at least 36 bytes"):
        seal(b"short")
