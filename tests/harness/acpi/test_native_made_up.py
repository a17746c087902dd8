"""The native core and the resolver agree on tables whose nodes Hypothesis makes up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzers.acpi_compare import Group
from harness.acpi.topology import Bridge, BridgeKind, Device, NamedDevice, PciDevice, Topology
from harness.native import available
from harness.native.acpi import NativeResolver
from tests.decoders.acpi.blobs import MADE
from tests.harness.acpi.native import EXAMPLES, compare
from tests.writers import acpi as w

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

any_tables = settings(max_examples=EXAMPLES, deadline=None)


def ask(data: bytes, devices: list[Device], topology: Topology | None = None) -> None:
    """Compare the answers for one table, which must be sound enough to be read."""
    group = Group(tuple(devices), topology, NativeResolver(devices, topology))
    assert compare("made up", data, [group]).refused == 0


# --- bridges -------------------------------------------------------------------------------------

FUNCTIONS = st.builds(
    lambda segment, bus, device: PciDevice(segment, bus << 8 | device << 3),
    st.integers(0, 1),
    st.integers(0, 5),
    st.integers(0, 3),
)
BRIDGES = st.lists(
    st.builds(Bridge, FUNCTIONS, st.integers(0, 5), st.just(5), st.sampled_from(BridgeKind)),
    max_size=8,
)
STEPS = st.lists(st.tuples(st.integers(0, 3), st.just(0)), max_size=3)
SCOPES = st.lists(
    st.builds(
        lambda kind, bus, steps: w.scope(kind, bus, *steps, enumeration=1),
        st.sampled_from([1, 2, 3, 5]),
        st.integers(0, 2),
        STEPS,
    ),
    max_size=3,
)


@any_tables
@given(BRIDGES, SCOPES, SCOPES, SCOPES, st.booleans(), st.lists(FUNCTIONS, min_size=1, max_size=6))
def test_bridges(
    bridges: list[Bridge],
    first: list[bytes],
    second: list[bytes],
    ports: list[bytes],
    everything: bool,
    functions: list[PciDevice],
) -> None:
    nodes = [
        w.drhd(0x1000, *first),
        w.drhd(0x2000, *second, everything=everything),
        w.atsr(*ports, all_ports=everything),
        w.andd(1, b"A\0"),
        w.satc(*second),
    ]
    devices: list[Device] = [*functions, NamedDevice("A")]
    for topology in (None, Topology(bridges)):
        for data in (w.dmar(nodes), MADE["iort"], MADE["viot"], MADE["ivrs"]):
            ask(data, devices, topology)


# --- id mappings ---------------------------------------------------------------------------------

# Small numbers, so that ranges meet, and the last ones, so that they wrap.
IDS = st.one_of(st.integers(0, 12), st.integers((1 << 32) - 3, (1 << 32) - 1))
MAPPINGS = st.lists(
    st.tuples(st.integers(0, 7), IDS, st.integers(1, 8), IDS, st.sampled_from([0, 0, 0, 1])),
    max_size=3,
)
KINDS = st.sampled_from(["smmu", "smmu", "root", "root", "named", "pmcg", "its", "iwb"])


def node(kind: str, mappings: list[bytes]) -> bytes:
    """Give a node of a kind; those without mappings ignore them."""
    match kind:
        case "smmu":
            return w.smmu_v3(0x1000, *mappings)
        case "root":
            return w.root_complex(0, *mappings)
        case "named":
            return w.named_component(b"A\0", *mappings)
        case "pmcg":
            return w.pmcg(0x2000, 0, *mappings)
        case "iwb":
            return w.iwb(0x3000, b"A\0", *mappings)
    return w.its_group(1)


@any_tables
@given(st.lists(st.tuples(KINDS, MAPPINGS), min_size=1, max_size=6), st.lists(IDS, max_size=4))
def test_id_mappings(kinds: list[tuple[str, list[Any]]], numbers: list[int]) -> None:
    # Where a node is depends on the sizes before it, and those on the numbers of mappings alone.
    places, at = [], 48
    for kind, mappings in kinds:
        places.append(at)
        at += len(node(kind, [w.mapping(0)] * len(mappings)))
    nodes = []
    for kind, mappings in kinds:
        made = [
            w.mapping(([*places, 0, 49] * 8)[to], first, count, base, flags)
            for to, first, count, base, flags in mappings
        ]
        nodes.append(node(kind, made))
    devices: list[Device] = [PciDevice(0, number & 0xFFFF) for number in numbers]
    ask(w.iort(nodes), [*devices, *(NamedDevice("A", id=number) for number in numbers)])


# Ranges that touch, or have one id in common as firmware makes them that gives the number of ids
# where the number less one belongs.
TOUCHING = st.lists(
    st.tuples(
        *(st.sampled_from([0, 48, 49]), st.sampled_from([0, 4, 8]), st.sampled_from([1, 4, 5])),
        st.sampled_from([0x100, 0x200]),
    ),
    min_size=2,
    max_size=4,
)


@any_tables
@given(TOUCHING)
def test_ranges_that_touch(mappings: list[tuple[int, int, int, int]]) -> None:
    root = w.root_complex(0, *(w.mapping(*mapping) for mapping in mappings))
    ask(w.iort([w.smmu_v3(0x1000), root]), [PciDevice(0, number) for number in range(14)])


# --- ranges of endpoints -------------------------------------------------------------------------

SMALL = st.integers(0, 20)
AREAS = st.builds(
    w.pci_range,
    st.sampled_from([48, 64, 80, 104, 49]),
    st.sampled_from([0, 5, (1 << 32) - 1]),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(SMALL, SMALL),
)


@any_tables
@given(st.lists(AREAS, max_size=5), st.lists(st.tuples(st.integers(0, 2), SMALL), max_size=6))
def test_endpoint_ranges(areas: list[bytes], functions: list[tuple[int, int]]) -> None:
    data = w.viot([w.virtio_pci(0, 8), w.virtio_mmio(0xA000), *areas])
    ask(data, [PciDevice(*function) for function in functions])


# --- device entries ------------------------------------------------------------------------------

ENTRIES = st.one_of(
    st.builds(w.entry, st.sampled_from([0, 1, 2, 3, 4, 5]), SMALL),
    st.builds(w.alias, st.sampled_from([0x42, 0x43]), SMALL, SMALL),
    st.builds(w.extended, st.sampled_from([0x46, 0x47]), SMALL, st.sampled_from([0, 1 << 31])),
    st.builds(w.special, st.integers(0, 2), SMALL, st.integers(1, 2)),
    st.builds(w.hid, SMALL, st.just(b"AMDI0020"), st.sampled_from([b"", b"0", b"1"])),
)
BLOCKS = st.builds(
    lambda base, entries, kind, device, segment: w.ivhd(
        base, *entries, kind=kind, device=device, segment=segment
    ),
    st.sampled_from([0x4000, 0x8000]),
    st.lists(ENTRIES, max_size=8),
    st.sampled_from([0x10, 0x11, 0x40]),
    st.sampled_from([2, 3]),
    st.integers(0, 1),
)


@any_tables
@given(st.lists(BLOCKS, max_size=4), st.lists(SMALL, max_size=6))
def test_device_entries(blocks: list[bytes], numbers: list[int]) -> None:
    names = [NamedDevice("AMDI0020", uid) for uid in ("", "0", "1")]
    functions = [PciDevice(segment, number) for number in numbers for segment in (0, 1)]
    ask(w.ivrs(blocks), [*functions, *names])


RANGES = st.lists(
    st.one_of(
        st.builds(w.entry, st.sampled_from([3, 4]), SMALL),
        st.builds(w.alias, st.just(0x43), SMALL, SMALL),
    ),
    max_size=3,
)


@any_tables
@given(RANGES, RANGES)
def test_ranges_that_are_left_open(first: list[bytes], second: list[bytes]) -> None:
    blocks = [w.ivhd(0x4000, *first, device=0x100), w.ivhd(0x8000, *second, device=0x101)]
    ask(w.ivrs(blocks), [PciDevice(0, number) for number in range(22)])
