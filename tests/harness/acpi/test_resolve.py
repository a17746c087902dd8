"""Tests of the resolver on tables that are written here."""

from __future__ import annotations

import random
import time

import pytest

from decoders.acpi import read, read_tolerant
from harness.acpi.answers import Answer, Behind, Iommu, IommuKind, Nowhere, Why
from harness.acpi.resolve import resolve
from harness.acpi.topology import (
    Bridge,
    BridgeKind,
    Device,
    MmioDevice,
    NamedDevice,
    PciDevice,
    Topology,
)
from tests.decoders.acpi.blobs import ALL
from tests.decoders.acpi.test_hostile import LONGEST, ROUNDS, mutate
from tests.writers import acpi as w


def pci(bus: int, device: int = 0, function: int = 0, segment: int = 0) -> PciDevice:
    return PciDevice(segment, bus << 8 | device << 3 | function)


def ask(data: bytes, device: Device, topology: Topology | None = None) -> Answer:
    return resolve(read(data), device, topology)


def endpoint(answer: Answer) -> int:
    assert isinstance(answer, Behind), str(answer)
    return answer.endpoint


def why(answer: Answer) -> Why:
    assert isinstance(answer, Nowhere), str(answer)
    return answer.why


# 00:01.0 is a root port with 01:00.0 behind it; 00:02.0 one with the bridge 02:00.0 from PCI
# Express to PCI, behind which is 03:04.0 and the PCI bridge 03:05.0 with 04:06.0.
TOPOLOGY = Topology(
    [
        Bridge(pci(0, 1), 1, 1),
        Bridge(pci(0, 2), 2, 4),
        Bridge(pci(2, 0), 3, 4, BridgeKind.TO_CONVENTIONAL),
        Bridge(pci(3, 5), 4, 4, BridgeKind.CONVENTIONAL),
    ]
)


def test_requesters() -> None:
    assert TOPOLOGY.requester(pci(1)) == pci(1)
    assert TOPOLOGY.requester(pci(3, 4)) == pci(3)
    assert TOPOLOGY.requester(pci(4, 6)) == pci(3)
    assert Topology([Bridge(pci(0, 5), 4, 4, BridgeKind.CONVENTIONAL)]).requester(pci(4, 6)) == pci(
        0, 5
    )
    assert [bridge.device for bridge in TOPOLOGY.above(pci(4, 6))] == [pci(3, 5), pci(2), pci(0, 2)]
    around = Topology([Bridge(pci(1), 2, 2), Bridge(pci(2), 1, 1)])
    assert len(around.above(pci(1))) == 2


# --- VIOT ----------------------------------------------------------------------------------------

VIOT = w.viot(
    [
        w.virtio_pci(0, 8),
        w.virtio_mmio(0xA000),
        w.pci_range(48, 0x100, (0, 0), (0x10, 0x4FF)),
        w.pci_range(64, 0x10000, (1, 3), (0x100, 0xFFFF)),
        w.mmio_endpoint(64, 5, 0xB000),
        w.mmio_endpoint(64, 6, 0xA000),
        w.pci_range(48, 0, (0, 0), (0, 0xF)),
        w.pci_range(80, 0, (9, 9)),
        w.pci_range(49, 0, (10, 10)),
    ]
)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (pci(0, 2), 0x100),
        (pci(4, 31, 7), 0x100 + 0x4EF),
        (pci(1, 0, 0, 1), 0x10000),
        (pci(1, 0, 1, 3), 0x30001),
        (pci(0, 0), 0),
        (MmioDevice(0xB000), 5),
    ],
)
def test_viot(device: Device, expected: int) -> None:
    assert endpoint(ask(VIOT, device)) == expected


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (pci(5), Why.NOT_DESCRIBED),
        (pci(0, 0, 0, 1), Why.NOT_DESCRIBED),
        (pci(0, 0, 0, 9), Why.DANGLING),
        (pci(0, 0, 0, 10), Why.DANGLING),
        (pci(0, 1), Why.IS_IOMMU),
        (MmioDevice(0xA000), Why.IS_IOMMU),
        (MmioDevice(0xC000), Why.NOT_DESCRIBED),
        (NamedDevice("\\_SB.DEV0"), Why.NO_SUCH_NAME),
    ],
)
def test_viot_says_why_not(device: Device, reason: Why) -> None:
    assert why(ask(VIOT, device)) is reason


def test_viot_identifies_the_iommu() -> None:
    answer = ask(VIOT, pci(0, 2))
    iommu = Iommu(IommuKind.VIRTIO_PCI, 48, segment=0, bdf=8)
    assert answer == Behind(iommu, 0x100, "viot.node[2]")
    assert str(answer) == "virtio-pci at 0000:00:01.0, endpoint 0x100 (viot.node[2])"
    answer = ask(VIOT, MmioDevice(0xB000))
    assert isinstance(answer, Behind)
    assert answer.iommu == Iommu(IommuKind.VIRTIO_MMIO, 64, 0xA000)
    assert str(ask(VIOT, pci(0, 1))) == "no IOMMU (is-iommu, viot.node[0])"


def test_viot_sees_the_id_that_a_bridge_shows() -> None:
    assert endpoint(ask(VIOT, pci(3, 4), TOPOLOGY)) == 0x100 + 0x2F0
    assert endpoint(ask(VIOT, pci(3, 4))) == 0x100 + 0x310


def test_endpoint_ids_wrap_as_in_linux() -> None:
    data = w.viot([w.virtio_pci(), w.pci_range(48, 0xFFFFFFFF)])
    assert endpoint(ask(data, pci(0, 2))) == 0xF


def test_draft_and_final_form_agree() -> None:
    """The same topology, once as nodes of a VIOT and once as an IORT in a draft."""
    final = w.viot(
        [
            w.virtio_pci(0, 8),
            w.virtio_mmio(0xA000),
            w.pci_range(48, 0x100, (0, 0), (0, 0xFF)),
            w.pci_range(64, 0, (0, 0), (0x100, 0xFFFF)),
            w.pci_range(48, 0x10000, (2, 2)),
        ]
    )
    iommu_pci = w.iort_node(0x80, (8).to_bytes(4, "little"))
    iommu_mmio = w.iort_node(0x81, (0xA000).to_bytes(8, "little") + bytes(24))
    second = 48 + len(iommu_pci)
    low = w.mapping(48, 0, 0x100, 0x100)
    draft = w.draft_viot(
        w.iort(
            [
                iommu_pci,
                iommu_mmio,
                w.root_complex(0, low, w.mapping(second, 0x100, 0xFF00, 0)),
                w.root_complex(2, w.mapping(48, 0, 0x10000, 0x10000)),
            ]
        )
    )
    for segment in range(4):
        for bus, device in ((0, 0), (0, 1), (0, 2), (0, 31), (1, 0), (7, 3), (255, 31)):
            asked = pci(bus, device, 0, segment)
            one, two = ask(final, asked), ask(draft, asked)
            if isinstance(one, Behind):
                assert isinstance(two, Behind), str(two)
                assert (one.iommu.kind, one.iommu.base, one.iommu.segment, one.iommu.bdf) == (
                    *(two.iommu.kind, two.iommu.base),
                    *(two.iommu.segment, two.iommu.bdf),
                )
                assert one.endpoint == two.endpoint
            else:
                assert why(one) is why(two)


def test_drafts_wrap_other_tables() -> None:
    inner = w.dmar([w.drhd(0x1000, everything=True)])
    answer = ask(w.draft_viot(inner), pci(0, 3))
    assert isinstance(answer, Behind) and answer.iommu.node == 48 + 48
    assert answer.path == "viot.dmar.node[0].flags"


# --- IORT ----------------------------------------------------------------------------------------

ITS = w.its_group(0)
SMMU_AT = 48 + len(ITS)


def iort(*nodes: bytes) -> bytes:
    return w.iort([ITS, w.smmu_v3(0x9050000, w.mapping(48)), *nodes])


def test_iort() -> None:
    data = iort(w.root_complex(0, w.mapping(SMMU_AT, 0x100, 0x200, 0x1000), ats=1))
    answer = ask(data, pci(1, 2))
    iommu = Iommu(IommuKind.SMMU_V3, SMMU_AT, 0x9050000)
    assert answer == Behind(iommu, 0x1010, "iort.node[2]", ats=True)
    assert endpoint(ask(data, pci(2, 31, 7))) == 0x11FF
    assert why(ask(data, pci(3))) is Why.NO_MAPPING
    assert why(ask(data, pci(1, 0, 0, 1))) is Why.NOT_DESCRIBED
    assert why(ask(data, MmioDevice(0x9050000))) is Why.NO_SUCH_NAME


def test_iort_names() -> None:
    data = iort(
        w.named_component(b"\\_SB.A\0", w.mapping(SMMU_AT, 0, 1, 7, flags=1)),
        w.named_component(b"\\_SB.B\0", w.mapping(SMMU_AT, 0, 4, 0x20)),
    )
    assert endpoint(ask(data, NamedDevice("\\_SB.A"))) == 7
    assert endpoint(ask(data, NamedDevice("\\_SB.B", id=3))) == 0x23
    assert why(ask(data, NamedDevice("\\_SB.C"))) is Why.NOT_DESCRIBED


def test_interrupts_only() -> None:
    answer = ask(w.iort([ITS, w.root_complex(0, w.mapping(48))]), pci(0, 1))
    assert answer == Nowhere(Why.NO_MAPPING, "iort.node[0]", "for id 0x8")


@pytest.mark.parametrize(
    ("mappings", "number", "expected"),
    [
        # the last id of a range belongs to the one that begins there: 257 ids where 256 are meant
        ([(0, 257, 0), (256, 16, 0x1000)], 256, 0x1000),
        ([(0, 257, 0), (256, 16, 0x1000)], 255, 255),
        # but not to one that has it inside, nor to one before it
        ([(0, 257, 0), (250, 16, 0x1000)], 256, 256),
        ([(256, 16, 0x1000), (0, 257, 0)], 256, 0x1000),
        # a single id is no such case
        ([(8, 1, 0x50), (8, 2, 0x60)], 8, 0x50),
        # sums wrap at 32 bits
        ([(0, 0x10000, 0xFFFFFFF0)], 0x20, 0x10),
    ],
)
def test_ends_of_ranges(mappings: list[tuple[int, int, int]], number: int, expected: int) -> None:
    maps = [w.mapping(SMMU_AT, first, count, base) for first, count, base in mappings]
    assert endpoint(ask(iort(w.root_complex(0, *maps)), PciDevice(0, number))) == expected


def test_iort_firmware_bugs() -> None:
    first_zero = iort(w.root_complex(0, w.mapping(0, 1, 1), w.mapping(SMMU_AT)))
    assert why(ask(first_zero, pci(0, 1))) is Why.NO_MAPPING
    nowhere = iort(w.root_complex(0, w.mapping(51)))
    assert why(ask(nowhere, pci(0, 1))) is Why.DANGLING
    itself = w.iort([w.root_complex(0, w.mapping(48))])
    assert why(ask(itself, pci(0, 1))) is Why.CIRCLE
    two = w.iort([w.root_complex(0, w.mapping(104)), w.root_complex(1, w.mapping(48))])
    assert why(ask(two, pci(0, 1))) is Why.CIRCLE
    single = w.iort(
        [w.iort_node(9, b"", [w.mapping(48, flags=1)]), w.root_complex(0, w.mapping(48))]
    )
    assert why(ask(single, pci(0, 1))) is Why.NO_MAPPING


def test_iort_other_iommus() -> None:
    data = w.iort([w.smmu(0x2B400000), w.root_complex(0, w.mapping(48))])
    answer = ask(data, pci(0, 1))
    assert isinstance(answer, Behind)
    assert answer.iommu == Iommu(IommuKind.SMMU, 48, 0x2B400000)
    assert answer.ats is False


# --- DMAR ----------------------------------------------------------------------------------------

UNIT, ALL_OTHERS = 0xFED90000, 0xFED91000


def dmar(*scopes: bytes, more: tuple[bytes, ...] = ()) -> bytes:
    return w.dmar([w.drhd(UNIT, *scopes), w.drhd(ALL_OTHERS, everything=True), *more])


def base(answer: Answer) -> int:
    assert isinstance(answer, Behind), str(answer)
    return answer.iommu.base


def test_dmar_includes_all_that_no_other_unit_has() -> None:
    data = dmar(w.scope(1, 0, (2, 0)))
    assert base(ask(data, pci(0, 2))) == UNIT
    assert base(ask(data, pci(0, 3))) == ALL_OTHERS
    assert base(ask(data, pci(9, 0))) == ALL_OTHERS
    assert why(ask(data, pci(0, 2, 0, 1))) is Why.NOT_DESCRIBED
    only = w.dmar([w.drhd(UNIT, w.scope(1, 0, (2, 0)))])
    assert why(ask(only, pci(0, 3))) is Why.NOT_DESCRIBED
    answer = ask(data, pci(0, 2))
    assert answer == Behind(
        Iommu(IommuKind.VT_D, 48, UNIT, 0), 0x10, "dmar.node[0].scope[0]", ats=None
    )


def test_dmar_all_comes_last_wherever_it_is() -> None:
    data = w.dmar([w.drhd(ALL_OTHERS, everything=True), w.drhd(UNIT, w.scope(1, 0, (2, 0)))])
    assert base(ask(data, pci(0, 2))) == UNIT


def test_dmar_paths_over_bridges() -> None:
    data = dmar(w.scope(1, 0, (2, 0), (0, 0), (4, 0)))
    assert base(ask(data, pci(3, 4), TOPOLOGY)) == UNIT
    assert base(ask(data, pci(3, 3), TOPOLOGY)) == ALL_OTHERS
    assert endpoint(ask(data, pci(3, 4), TOPOLOGY)) == 0x300
    assert why(ask(data, pci(3, 4))) is Why.TOPOLOGY
    # a bridge of the path that is not there: the scope names nothing
    assert base(ask(data, pci(3, 4), Topology())) == ALL_OTHERS


def test_dmar_sub_hierarchies() -> None:
    data = dmar(w.scope(2, 0, (2, 0)))
    for device in (pci(0, 2), pci(2), pci(3, 4), pci(4, 6)):
        assert base(ask(data, device, TOPOLOGY)) == UNIT
    assert base(ask(data, pci(1), TOPOLOGY)) == ALL_OTHERS
    assert why(ask(data, pci(3, 4))) is Why.TOPOLOGY
    assert base(ask(data, pci(0, 3))) == ALL_OTHERS
    endpoint_only = dmar(w.scope(1, 0, (2, 0)))
    assert base(ask(endpoint_only, pci(2), TOPOLOGY)) == ALL_OTHERS


def test_dmar_ats() -> None:
    def ats(data: bytes, device: PciDevice) -> bool | None:
        answer = ask(data, device, TOPOLOGY)
        assert isinstance(answer, Behind)
        return answer.ats

    ports = dmar(more=(w.atsr(w.scope(2, 0, (1, 0))),))
    assert ats(ports, pci(1)) is True
    assert ats(ports, pci(0, 5)) is True  # integrated
    assert ats(ports, pci(2)) is False
    everywhere = dmar(more=(w.atsr(all_ports=True),))
    assert ats(everywhere, pci(2)) is True
    assert ats(everywhere, pci(3, 4)) is False  # behind PCI
    assert ats(dmar(more=(w.atsr(all_ports=True, segment=1),)), pci(1)) is False
    assert ats(dmar(more=(w.satc(w.scope(1, 0, (1, 0), (0, 0))),)), pci(1)) is True


def test_dmar_names() -> None:
    named = w.scope(5, 0, (0x15, 2), enumeration=3)
    data = dmar(named, more=(w.andd(3, b"\\_SB.I2C0\0"), w.andd(4, b"\\_SB.I2C1\0")))
    answer = ask(data, NamedDevice("\\_SB.I2C0"))
    assert (base(answer), endpoint(answer)) == (UNIT, 0x15 << 3 | 2)
    assert why(ask(data, NamedDevice("\\_SB.I2C1"))) is Why.NOT_DESCRIBED
    assert why(ask(data, NamedDevice("\\_SB.I2C2"))) is Why.NOT_DESCRIBED
    assert why(ask(data, MmioDevice(0x1000))) is Why.NO_SUCH_NAME
    far = dmar(w.scope(5, 0, (1, 0), (2, 0), enumeration=3), more=(w.andd(3, b"A\0"),))
    assert why(ask(far, NamedDevice("A"))) is Why.TOPOLOGY
    assert endpoint(ask(far, NamedDevice("A"), TOPOLOGY)) == 0x110


# --- IVRS ----------------------------------------------------------------------------------------


def test_ivrs() -> None:
    data = w.ivrs(
        [
            w.ivhd(0x4000, w.entry(1)),  # the older form is not used
            w.ivhd(
                0x8000,
                *(w.entry(3, 0x10), w.entry(4, 0x1F), w.entry(2, 0x30)),
                *(w.alias(0x42, 0x40, 0xA4), w.alias(0x43, 0x100, 0xA5), w.entry(4, 0x1FF)),
                *(w.extended(0x46, 0x50, 1 << 31), w.special(0, 0xA0, 1)),
                *(w.hid(0xA8, b"AMDI0020", b"0"), w.hid(0xA9, b"AMDI0020", b"1")),
                w.hid(0xAA, b"AMDI0030", (7).to_bytes(8, "little"), uid_type=1),
                kind=0x11,
            ),
            w.ivhd(0xC000, w.entry(1), kind=0x11, segment=1, device=3),
        ]
    )
    answer = ask(data, PciDevice(0, 0x18))
    assert answer == Behind(
        Iommu(IommuKind.AMD_VI, 76, 0x8000, 0, 2), 0x18, "ivrs.node[1].entry[0]", ats=False
    )
    endpoints = {
        0x10: 0x10,
        0x1F: 0x1F,
        0x30: 0x30,
        0x40: 0xA4,
        0xA4: 0xA4,
        0x123: 0xA5,
        0xA0: 0xA0,
    }
    for number, expected in endpoints.items():
        assert endpoint(ask(data, PciDevice(0, number))) == expected
    for number in (0, 0x20, 0x31, 0x200):
        assert why(ask(data, PciDevice(0, number))) is Why.NOT_DESCRIBED
    assert why(ask(data, PciDevice(0, 2))) is Why.IS_IOMMU
    assert base(ask(data, PciDevice(1, 0x1234))) == 0xC000
    assert endpoint(ask(data, NamedDevice("AMDI0020"))) == 0xA8
    assert endpoint(ask(data, NamedDevice("AMDI0020", "1"))) == 0xA9
    assert endpoint(ask(data, NamedDevice("AMDI0030", "7"))) == 0xAA
    assert why(ask(data, NamedDevice("AMDI0020", "2"))) is Why.NOT_DESCRIBED
    assert why(ask(data, MmioDevice(0x8000))) is Why.NO_SUCH_NAME


def test_ivrs_later_entries_override() -> None:
    data = w.ivrs([w.ivhd(0x4000, w.entry(1)), w.ivhd(0x8000, w.entry(2, 0x40), device=3)])
    assert base(ask(data, PciDevice(0, 0x40))) == 0x8000
    assert base(ask(data, PciDevice(0, 0x41))) == 0x4000
    for entries in (
        (w.alias(0x42, 0x40, 0xA4), w.entry(1)),
        (w.entry(1), w.alias(0x42, 0x40, 0xA4)),
    ):
        assert endpoint(ask(w.ivrs([w.ivhd(0x4000, *entries)]), PciDevice(0, 0x40))) == 0xA4


# --- any -----------------------------------------------------------------------------------------


def test_other_tables_name_no_iommu() -> None:
    assert why(ask(w.table(b"SSDT", b""), pci(0))) is Why.NO_TABLE


def test_mutated_tables() -> None:
    choose = random.Random(1125)
    blobs = list(ALL.values())
    devices: list[Device] = [
        *(pci(0, n) for n in range(3)),
        *(pci(1, 2), pci(0, 0, 0, 1), MmioDevice(0xB000), NamedDevice("\\_SB.DEV0")),
    ]
    worst = 0.0
    for _ in range(ROUNDS):
        table = read_tolerant(mutate(choose.choice(blobs), choose))
        began = time.process_time()
        for device in devices:
            for topology in (None, TOPOLOGY):
                assert isinstance(resolve(table, device, topology), Behind | Nowhere)
        worst = max(worst, time.process_time() - began)
    assert worst < LONGEST
