"""Devices with TLBs under made-up software: on a real intel-iommu, and what is made of messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from decoders.events import AccessKind, DeviceTlbMessage, StatusWrite
from harness.deviations_vtd import known_crash
from harness.differential.device_tlb import DeviceMessages, answered
from harness.differential.vtd import Differential
from harness.errors import HarnessError
from harness.model.dialects import SPECIFICATION, dialect_named
from harness.qemu.device_tlb import DeviceTlb, Held, shown
from harness.qemu.pci import Function
from harness.qemu.process import EndedError
from harness.qemu.vhost_user import Iotlb, Told
from harness.qemu.vtd import VtdQemu

STEPS = 60
SID = 0x400
EVERYTHING = (1 << 64) - 1
MACHINES = ("device-tlb", "device-tlb-second-stage", "device-tlb-first-stage")


# -- a real unit -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Iterator[VtdQemu]:
    with VtdQemu(request.param) as found:
        yield found


def held_to(machine: VtdQemu, specification: bool = False) -> Differential:
    own = dialect_named("qemu-{}.{}".format(*machine.version))
    judges = ["model", "native"]
    return Differential(machine, judges, STEPS, own, SPECIFICATION if specification else own)


@pytest.mark.qemu
def test_what_qemu_does_for_devices_with_tlbs_is_known(machine: VtdQemu) -> None:
    differential = held_to(machine)
    for seed in range(8):
        for found in differential.run(seed):
            row = differential.deviation(found)
            assert row is not None, f"seed {seed}, step {found.step}: {found.facts}"
    seen = differential.totals.seen
    asked = sum(count for what, count in seen.items() if what.startswith("asked for: "))
    used = sum(count for what, count in seen.items() if what.startswith("translated: "))
    assert asked > 80 and used and seen["message to a device"] > 80, seen


@pytest.mark.qemu
def test_held_to_the_specification_qemu_looks_at_neither_tt_nor_dte(machine: VtdQemu) -> None:
    differential = held_to(machine, specification=True)
    met = set()
    for seed in range(20, 32):
        try:
            divergences = differential.run(seed)
        except EndedError as error:
            assert known_crash(str(error), machine.version), str(error)
            machine.restart()
            continue
        for found in divergences:
            row = differential.deviation(found)
            assert row is not None, f"seed {seed}, step {found.step}: {found.facts}"
            met.add(row.id)
        if "device-requests-unchecked" in met:
            return
    pytest.fail(f"met only {sorted(met)}")


# -- messages --------------------------------------------------------------------------------------


class FakeTlb:
    """A device that only knows what it holds."""

    def __init__(self) -> None:
        self.function = Function(SID, 0, 0, SID)
        self.forgotten: list[tuple[int, int]] = []

    def forget(self, address: int, mask: int) -> None:
        self.forgotten.append((address, mask))


def heard(*spans: tuple[int, int]) -> DeviceMessages:
    messages = DeviceMessages(cast(DeviceTlb, FakeTlb()))
    messages.told = [Told(Iotlb.INVALIDATE, a, b - a + 1, None, 0) for a, b in spans]
    return messages


def message(address: int, mask: int, sid: int = SID, pasid: int | None = None) -> DeviceTlbMessage:
    return DeviceTlbMessage(sid, pasid, address, mask)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_message_is_put_together_from_its_parts(backwards: bool) -> None:
    parts = list(shown(0, EVERYTHING))
    messages = heard(*(reversed(parts) if backwards else parts), (0x1000, 0x1FFF))
    assert messages.has(message(0, EVERYTHING))
    assert not messages.has(message(0, EVERYTHING)), "it was sent once"
    assert messages.has(message(0x1000, 0xFFF))
    assert messages.rest() == []


def test_another_range_is_another_message() -> None:
    messages = heard((0x1000, 0x1FFF))
    assert not messages.has(message(0x1000, 0x1FFF))
    assert messages.rest() == [message(0x1000, 0xFFF)]


def test_what_was_not_due_is_told_as_the_least_that_shows_so() -> None:
    parts = list(shown(0xFEC0_0000, 0x3F_FFFF))
    assert heard(*parts).rest() == [message(0xFEC0_0000, 0x3F_FFFF)]
    with pytest.raises(HarnessError, match="no range"):
        heard((0x1000, 0x3FFF)).rest()


def test_what_shows_nowhere_is_believed() -> None:
    messages = heard()
    assert messages.has(message(0x1000, 0xFFF, sid=0x20))
    assert messages.has(message(0x1000, 0xFFF, pasid=5))
    assert messages.has(message(0xFEE0_0000, 0xFFF)), "no part of it reaches a device"
    assert not messages.has(message(0x1000, 0xFFF))
    assert not messages.has(StatusWrite(0x1000, 1))


def test_a_device_forgets_what_it_was_not_told() -> None:
    tlb = FakeTlb()
    messages = DeviceMessages(cast(DeviceTlb, tlb))
    messages.miss([message(0x1000, 0xFFF), message(0x2000, 0xFFF, sid=1), StatusWrite(0, 0)])
    assert tlb.forgotten == [(0x1000, 0xFFF)]


def test_a_machine_without_such_a_device_shows_nothing() -> None:
    messages = DeviceMessages(None)
    assert messages.has(message(0x1000, 0xFFF))
    assert messages.rest() == []


# -- translations ----------------------------------------------------------------------------------


def test_a_page_is_given_as_a_page_and_anything_else_by_one_byte() -> None:
    whole = Told(Iotlb.UPDATE, 0x20_0000, 0x20_0000, 0x40_0000, 3)
    assert (answered(0x20_1234, whole).address, answered(0x20_1234, whole).mask) == (
        0x40_0000,
        0x1F_FFFF,
    )
    cut = Told(Iotlb.UPDATE, 0xC000_0000, 0xC_0000, 0, 3)
    assert (answered(0xC03C_0123, cut).address, answered(0xC03C_0123, cut).mask) == (0x3C_0123, 0)


def test_what_is_held_covers_its_bytes_and_no_more() -> None:
    held = Held(0x1000, 0x1000, 0x5000, AccessKind.READ)
    assert [held.covers(at) for at in (0xFFF, 0x1000, 0x1FFF, 0x2000)] == [
        False,
        True,
        True,
        False,
    ]
