"""The same topology in each form that describes a virtio-iommu resolves in the same way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from decoders.acpi import read as read_table
from decoders.virtio_iommu.forms import Form
from decoders.virtio_iommu.topology import read
from decoders.virtio_iommu.topology_rules import validate
from decoders.virtio_iommu.topology_writing import Item, MmioEndpoint, PciEndpoints
from harness.acpi.answers import Answer, Behind, Iommu, IommuKind, Nowhere, Why
from harness.acpi.resolve import resolve
from harness.acpi.resolve_config import resolve_config
from harness.acpi.topology import (
    Bridge,
    BridgeKind,
    Device,
    MmioDevice,
    NamedDevice,
    PciDevice,
    Topology,
)
from tests.writers import acpi
from tests.writers import config_space as space

IDS = 1 << 32
IOMMU_AT = 48
"""Where the node of the IOMMU is in a table written here."""


@dataclass(frozen=True)
class Machine:
    """Hold an IOMMU and what is behind it."""

    iommu: Iommu
    items: tuple[Item, ...]

    @property
    def ranges(self) -> list[PciEndpoints]:
        return [item for item in self.items if isinstance(item, PciEndpoints)]

    def expected(self, device: Device) -> int | Why:
        """Give the endpoint id of a device without any of the resolvers."""
        if device in (PciDevice(self.iommu.segment, self.iommu.bdf), MmioDevice(self.iommu.base)):
            found: int | Why = Why.IS_IOMMU
        else:
            found = Why.NOT_DESCRIBED
        for item in self.items:
            if isinstance(item, MmioEndpoint) and device == MmioDevice(item.address):
                return found if found is Why.IS_IOMMU else item.endpoint
            if isinstance(item, PciEndpoints) and isinstance(device, PciDevice):
                if device.segment == item.segment and item.first <= device.bdf <= item.last:
                    endpoint = (item.endpoint + device.bdf - item.first) % IDS
                    return found if found is Why.IS_IOMMU else endpoint
        return Why.NOT_DESCRIBED

    def devices(self) -> Iterator[Device]:
        """Give devices inside of the ranges, at their edges, beyond them, and where none is."""
        yield PciDevice(max(0, self.iommu.segment), max(0, self.iommu.bdf))
        yield MmioDevice(self.iommu.base)
        for item in self.items:
            if isinstance(item, MmioEndpoint):
                yield from (MmioDevice(item.address + step) for step in (-1, 0, 1))
                continue
            middle = (item.first + item.last) // 2
            for bdf in (item.first - 1, item.first, middle, item.last, item.last + 1):
                for segment in {max(0, item.segment - 1), item.segment, item.segment + 1}:
                    if 0 <= bdf <= 0xFFFF and segment <= 0xFFFF:
                        yield PciDevice(segment, bdf)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Make up a machine that every form can express.

    One IOMMU, because a config space describes endpoints of its own device only; ranges of one
    segment each, because only a VIOT has a last segment. They do not overlap: all forms take the
    first, but an IORT looks once more for a range that begins with the last id of another one.
    Devices with an address are left out of the draft VIOT when it is written, because an IORT
    gives names.
    """
    if draw(st.booleans()):
        place = {"segment": draw(st.sampled_from([0, 1, 0xFFFF])), "bdf": draw(bdfs)}
        iommu = Iommu(IommuKind.VIRTIO_PCI, IOMMU_AT, **place)
    else:
        iommu = Iommu(IommuKind.VIRTIO_MMIO, IOMMU_AT, draw(addresses))
    items: list[Item] = []
    for segment in draw(st.lists(st.sampled_from([0, 1, 2, 0xFFFF]), max_size=3, unique=True)):
        edges = sorted(draw(st.lists(bdfs, max_size=6, unique=True)))
        for first, last in zip(edges[::2], edges[1::2], strict=False):
            items.append(PciEndpoints(segment, first, last, draw(endpoints)))
    own = st.just(iommu.base) if iommu.base > 0 else addresses
    for address in draw(st.lists(st.one_of(addresses, own), max_size=3, unique=True)):
        items.append(MmioEndpoint(address, draw(endpoints)))
    return Machine(iommu, tuple(draw(st.permutations(items))))


bdfs = st.one_of(st.integers(0, 0xFFFF), st.sampled_from([0, 1, 8, 0xFF, 0x100, 0xFFFF]))
endpoints = st.one_of(st.integers(0, IDS - 1), st.sampled_from([0, 0x10000, IDS - 1]))
addresses = st.integers(1, (1 << 64) - 2)


# --- each form -----------------------------------------------------------------------------------


def final_viot(machine: Machine) -> bytes:
    pci = machine.iommu.kind is IommuKind.VIRTIO_PCI
    place = machine.iommu.segment, machine.iommu.bdf
    nodes = [acpi.virtio_pci(*place) if pci else acpi.virtio_mmio(machine.iommu.base)]
    for item in machine.items:
        if isinstance(item, MmioEndpoint):
            nodes.append(acpi.mmio_endpoint(IOMMU_AT, item.endpoint, item.address))
        else:
            segments, ids = (item.segment, item.segment), (item.first, item.last)
            nodes.append(acpi.pci_range(IOMMU_AT, item.endpoint, segments, ids))
    return acpi.viot(nodes)


def draft_viot(machine: Machine) -> bytes:
    if machine.iommu.kind is IommuKind.VIRTIO_PCI:
        place = machine.iommu.segment << 16 | machine.iommu.bdf
        nodes = [acpi.iort_node(0x80, place.to_bytes(4, "little"))]
    else:
        nodes = [acpi.iort_node(0x81, machine.iommu.base.to_bytes(8, "little") + bytes(24))]
    for segment in sorted({item.segment for item in machine.ranges}):
        mappings = [
            acpi.mapping(IOMMU_AT, item.first, item.last - item.first + 1, item.endpoint)
            for item in machine.ranges
            if item.segment == segment
        ]
        nodes.append(acpi.root_complex(segment, *mappings))
    return acpi.draft_viot(acpi.iort(nodes))


def config_v1(machine: Machine) -> bytes:
    data = b""
    for index, item in enumerate(machine.items, 1):
        following = 40 + 16 * index if index < len(machine.items) else 0
        if isinstance(item, MmioEndpoint):
            data += space.v1_mmio(following, item.endpoint, item.address)
        else:
            place = item.segment, item.first, item.last
            data += space.v1_pci(following, item.endpoint, *place)
    return space.v1(data, 40 if machine.items else 0)


def config_v2(machine: Machine) -> bytes:
    return space.v2(
        [
            space.v2_mmio(item.endpoint, item.address)
            if isinstance(item, MmioEndpoint)
            else space.v2_pci(item.endpoint, item.segment, item.first, item.last)
            for item in machine.items
        ]
    )


def config_v3(machine: Machine) -> bytes:
    return space.v3(
        [
            space.v3_mmio(item.endpoint, item.address)
            if isinstance(item, MmioEndpoint)
            else space.v3_pci(item.endpoint, item.segment, item.first, item.last)
            for item in machine.items
        ]
    )


CONFIGS = {Form.V1: config_v1, Form.V2: config_v2, Form.V3: config_v3}


def endpoint(machine: Machine, answer: Answer) -> int | Why:
    """Give what an answer says, in the words of `Machine.expected`."""
    if isinstance(answer, Behind):
        told, real = answer.iommu, machine.iommu
        assert (told.kind, told.base, told.segment, told.bdf) == (
            *(real.kind, real.base),
            *(real.segment, real.bdf),
        )
        return answer.endpoint
    # A root complex that has no mapping for an id is the IORT's way not to describe it.
    return Why.NOT_DESCRIBED if answer.why is Why.NO_MAPPING else answer.why


@settings(max_examples=150)
@given(machine=machines())
def test_all_forms_agree(machine: Machine) -> None:
    final, draft = read_table(final_viot(machine)), read_table(draft_viot(machine))
    configs = {form: read(make(machine), form=form) for form, make in CONFIGS.items()}
    for device in machine.devices():
        expected = machine.expected(device)
        assert endpoint(machine, resolve(final, device)) == expected, f"VIOT, {device}"
        if isinstance(device, PciDevice):
            assert endpoint(machine, resolve(draft, device)) == expected, f"draft VIOT, {device}"
        for form, config in configs.items():
            answer = resolve_config(config, machine.iommu, device)
            assert endpoint(machine, answer) == expected, f"config space {form}, {device}"


@settings(max_examples=100)
@given(machine=machines())
def test_each_form_of_config_space_is_detected(machine: Machine) -> None:
    assume(machine.items)  # an empty V1 looks like a bypass field of 0
    for form, make in CONFIGS.items():
        assert read(make(machine)).form is form


@settings(max_examples=100)
@given(machine=machines())
def test_the_rules_agree_on_what_is_wrong(machine: Machine) -> None:
    found = {
        form: [
            (violation.rule, violation.path)
            for violation in validate(read(make(machine), form=form))
        ]
        for form, make in CONFIGS.items()
    }
    assert found[Form.V1] == found[Form.V2] == found[Form.V3]


# --- by hand -------------------------------------------------------------------------------------

PCI = Iommu(IommuKind.VIRTIO_PCI, -1, segment=0, bdf=8)
CONFIG = read(space.v3([space.v3_pci(0x100, first=0, last=0x2FF), space.v3_mmio(7, 0xA000)]))


def test_answers_name_the_item() -> None:
    answer = resolve_config(CONFIG, PCI, PciDevice(0, 0x10))
    assert answer == Behind(PCI, 0x110, "config.item[0]")
    assert str(resolve_config(CONFIG, PCI, MmioDevice(0xA000))) == (
        "virtio-pci at 0000:00:01.0, endpoint 0x7 (config.item[1])"
    )


@pytest.mark.parametrize(
    ("device", "why"),
    [
        (PciDevice(0, 8), Why.IS_IOMMU),
        (PciDevice(0, 0x300), Why.NOT_DESCRIBED),
        (PciDevice(1, 0), Why.NOT_DESCRIBED),
        (MmioDevice(0xB000), Why.NOT_DESCRIBED),
        (NamedDevice("DEV0"), Why.NO_SUCH_NAME),
    ],
)
def test_devices_that_are_behind_nothing(device: Device, why: Why) -> None:
    answer = resolve_config(CONFIG, PCI, device)
    assert isinstance(answer, Nowhere) and answer.why is why


def test_the_iommu_may_have_an_address() -> None:
    mmio = Iommu(IommuKind.VIRTIO_MMIO, -1, base=0xA000)
    answer = resolve_config(CONFIG, mmio, MmioDevice(0xA000))
    assert answer == Nowhere(Why.IS_IOMMU, "config.item[1]")


def test_a_device_behind_a_conventional_bridge_shows_as_the_bridge() -> None:
    bridges = Topology([Bridge(PciDevice(0, 0x28), 4, 4, BridgeKind.CONVENTIONAL)])
    device = PciDevice(0, 0x408)
    assert isinstance(resolve_config(CONFIG, PCI, device), Nowhere)
    answer = resolve_config(CONFIG, PCI, device, bridges)
    assert answer == Behind(PCI, 0x128, "config.item[0]")


def test_a_config_space_without_a_description() -> None:
    answer = resolve_config(read(space.plain(1)), PCI, PciDevice(0, 0))
    assert isinstance(answer, Nowhere) and answer.why is Why.NO_TABLE
