"""The native core takes ACPI tables as the decoders and the resolver do, to the last word."""

from __future__ import annotations

import os
import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders.acpi import read, read_file
from decoders.errors import DecodeError
from fuzzers.acpi_compare import groups
from fuzzers.acpi_mutations import mutate
from fuzzers.acpi_seeds import Seed, bombs, seed
from harness.acpi.answers import Answer, Behind, IommuKind, Why
from harness.acpi.resolve import resolve
from harness.acpi.topology import (
    Bridge,
    Device,
    MmioDevice,
    NamedDevice,
    PciDevice,
    Topology,
)
from harness.native import available
from harness.native.acpi import NativeResolver, read_and_resolve
from tests.decoders.acpi.blobs import ALL, MADE
from tests.harness.acpi.native import compare, everyone
from tests.writers import acpi as w
from tools.mutate_acpi.__main__ import chunk

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

ROUNDS = int(os.environ.get("DMAREWIND_ACPI_MUTATIONS", "3000"))
EXAMPLES = 1000 if os.environ.get("DMAREWIND_REQUIRE") == "all" else 150
LONGEST = 0.25
"""Seconds of the processor that the largest table may take the core, with all devices."""

SEEDS = {name: seed(name, data) for name, data in ALL.items()}
BOMBS = {one.name: one for one in bombs()}


@pytest.mark.parametrize("name", SEEDS)
def test_sound_tables(name: str) -> None:
    assert compare(name, SEEDS[name].data, everyone()).refused == 0


@pytest.mark.parametrize("name", BOMBS)
def test_tables_made_to_hurt(name: str) -> None:
    group = everyone()[-1]
    compare(name, BOMBS[name].data, [group])
    began = time.process_time()
    group.native.ask(BOMBS[name].data)
    assert time.process_time() - began < LONGEST


@pytest.mark.parametrize("name", MADE)
def test_every_cut(name: str) -> None:
    group = groups()[0]
    data = MADE[name]
    refused = 0
    for size in range(len(data)):
        refused += compare(f"{name}[:{size}]", data[:size], [group]).refused
    assert refused == len(data)


def test_changed_tables() -> None:
    tally = chunk(("native", 0, ROUNDS))
    assert tally.differences == []
    # A comparison of tables that are all refused, or never, proves nothing.
    assert 0.2 * ROUNDS < tally.refused < 0.8 * ROUNDS
    assert tally.same_text == tally.refused
    missing = {str(one) for one in (*IommuKind, *Why)} - set(tally.met)
    assert not missing, dict(tally.met)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from([*SEEDS.values()]), st.randoms(use_true_random=False), st.data())
def test_any_changed_table(one: Seed, random: Random, data: st.DataObject) -> None:
    changed = mutate(one, random)
    compare(one.name, changed, [data.draw(st.sampled_from(groups()))])


def both(data: bytes, device: Device) -> Answer:
    """Return the answer that both give."""
    answer = resolve(read(data), device)
    assert read_and_resolve(data, device) == answer
    return answer


@pytest.mark.parametrize(
    ("device", "found"),
    [
        (NamedDevice("\\xffA"), True),
        (NamedDevice("\xffA"), False),
        (NamedDevice("\\xffAB"), False),
        (NamedDevice("\\xff"), False),
        (NamedDevice("\udcffA"), False),
        (NamedDevice("\\xffA\0"), False),
    ],
)
def test_names_that_are_no_text(device: Device, found: bool) -> None:
    iort = w.iort([w.smmu_v3(0x1000), w.named_component(b"\xffA\0B\0", w.mapping(48))])
    dmar = w.dmar([w.drhd(0x1000, w.scope(5, 0, (1, 0), enumeration=1)), w.andd(1, b"\xffA\0B\0")])
    for data in (iort, dmar):
        assert isinstance(both(data, device), Behind) == found


@pytest.mark.parametrize(
    ("uid", "found"),
    [
        ("", True),
        ("256", True),
        ("0256", False),
        ("+256", False),
        ("\u0662\u0665\u0666", False),  # digits, but no ASCII
        ("257", False),
        ("9" * 5000, False),
    ],
)
def test_numbers_as_uids(uid: str, found: bool) -> None:
    data = w.ivrs([w.ivhd(0x1000, w.hid(9, b"AMDI0020", b"\0\1\0\0", uid_type=1))])
    assert isinstance(both(data, NamedDevice("AMDI0020", uid)), Behind) == found
    zero = w.ivrs([w.ivhd(0x1000, w.hid(9, b"AMDI0020", bytes(255), uid_type=1))])
    assert isinstance(both(zero, NamedDevice("AMDI0020", "0")), Behind)


def test_a_refused_table_raises_the_same() -> None:
    data = w.viot([w.pci_range(48, length=3)])
    for refuse in (read, lambda data: read_and_resolve(data, PciDevice(0, 0))):
        with pytest.raises(DecodeError) as caught:
            refuse(data)
        assert str(caught.value) == (
            "viot.node[0].length: 3 bytes, PciRange takes 24, at offset 0x32"
        )
        assert (caught.value.path, caught.value.offset) == ("viot.node[0].length", 0x32)


def test_tables_of_one_file() -> None:
    device = PciDevice(0, 0x18)
    data = MADE["viot"] + MADE["dmar"]
    answers = [read_and_resolve(found.data, device) for found in read_file(data)]
    assert answers == [both(MADE["viot"], device), both(MADE["dmar"], device)]
    assert len(answers) == 2


@pytest.mark.parametrize(
    "device",
    [
        PciDevice(0, 1 << 16),
        PciDevice(-1, 0),
        MmioDevice(1 << 64),
        NamedDevice("A", id=-1),
    ],
)
def test_devices_that_do_not_fit(device: Device) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        NativeResolver([device])


@pytest.mark.parametrize(
    "bridge", [Bridge(PciDevice(0, 1 << 16), 1, 1), Bridge(PciDevice(0, 0), 256, 256)]
)
def test_bridges_that_do_not_fit(bridge: Bridge) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        NativeResolver([], Topology([bridge]))
