"""Device TLBs: messages that make devices forget, and translated requests (VT-d 4.2, 6.5.2)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from decoders.events import Attribute, DeviceTlbMessage, Translation
from decoders.vtd.descriptors import (
    DeviceTlbInvalidation,
    InvalidationWait,
    IotlbInvalidation,
    PasidDeviceTlbInvalidation,
)
from harness.findings import Finding, FindingKind
from harness.model import device_tlb
from harness.model.caches import WAYS
from harness.model.unit import VtdUnit
from tests.harness.unit.conftest import MakePlatform
from tests.writers.page_requests import forgotten, messages
from tests.writers.platform import DEVICE, READ, WRITE, Platform, Space, descriptor, page

ATS, TRANSLATED = Attribute.TRANSLATION_REQUEST, Attribute.TRANSLATED
IOVA, OLD, NEW = 0x40_1000, 0x50_1000, 0x60_1000
EVERYTHING = 1 << 64
WAIT = descriptor(InvalidationWait, fn=1)
FLUSH = descriptor(IotlbInvalidation, g=1)


def range_of(address: int, size: int) -> dict[str, int]:
    """Return the fields that give a range of a power of two of pages, as Linux composes them."""
    if size == 0x1000:
        return {"addr": address >> 12, "s": 0}
    ones = (size - 1) >> 13
    return {"addr": (address >> 12 & ~(size - 1 >> 12)) | ones, "s": 1}


def without_pasid(address: int = 0, size: int = EVERYTHING, sid: int = DEVICE) -> tuple[int, ...]:
    if size == EVERYTHING:
        return descriptor(DeviceTlbInvalidation, sid=sid, s=1, addr=(1 << 52) - 1)
    return descriptor(DeviceTlbInvalidation, sid=sid, **range_of(address, size))


def with_pasid(pasid: int, address: int = 0, size: int = EVERYTHING, g: int = 0) -> tuple[int, ...]:
    fields = {"sid": DEVICE, "pasid": pasid, "g": g}
    if size == EVERYTHING:
        return descriptor(PasidDeviceTlbInvalidation, s=1, addr=(1 << 52) - 1, **fields)
    return descriptor(PasidDeviceTlbInvalidation, **fields, **range_of(address, size))


# -- messages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "address", "size"),
    [
        ({"addr": 0x12345, "s": 0}, 0x1234_5000, 0x1000),
        ({"addr": 0x12344, "s": 1}, 0x1234_4000, 0x2000),
        ({"addr": 0x12345, "s": 1}, 0x1234_4000, 0x4000),
        ({"addr": 0x122FF, "s": 1}, 0x1220_0000, 0x20_0000),
        ({"addr": (1 << 51) - 1, "s": 1}, 0, EVERYTHING),
        ({"addr": (1 << 52) - 1, "s": 1}, 0, EVERYTHING),
        ({"addr": (1 << 51) - 1 << 1, "s": 1}, EVERYTHING - 0x2000, 0x2000),
    ],
)
def test_a_range_is_coded_in_its_address(
    platform: Platform, fields: dict[str, int], address: int, size: int
) -> None:
    platform.start_queue(wide=True)
    platform.submit(descriptor(DeviceTlbInvalidation, sid=DEVICE, **fields))
    assert messages(platform) == [forgotten(address, size)]
    platform.submit(descriptor(PasidDeviceTlbInvalidation, sid=DEVICE, pasid=4, **fields))
    assert messages(platform) == [forgotten(address, size, pasid=4)]


def test_a_global_invalidation_is_for_every_pasid(platform: Platform) -> None:
    platform.start_queue(wide=True)
    platform.submit(with_pasid(4, 0x5000, 0x1000, g=1))
    assert messages(platform) == [forgotten(0x5000, every_pasid=True)]


def test_a_narrow_queue_tells_devices_too(platform: Platform) -> None:
    platform.submit(without_pasid(0x5000, 0x1000, sid=0x1234))
    assert messages(platform) == [DeviceTlbMessage(0x1234, None, 0x5000, 0xFFF)]


def test_a_recording_of_qemu_shows_no_messages(make_platform: MakePlatform) -> None:
    platform = make_platform(dialect="qemu")
    platform.submit(without_pasid())
    assert messages(platform) == []


# -- use -------------------------------------------------------------------------------------------


@dataclass
class Device:
    """A device with a TLB of its own."""

    platform: Platform
    space: Space
    pasid: int | None = None

    def ask(self, iova: int = IOVA) -> None:
        """Ask for a translation, which is recorded as it should be."""
        asked = {"pasid": self.pasid, "attributes": ATS}
        verdict = self.platform.request(iova, READ, **asked)  # type: ignore[arg-type]
        assert isinstance(verdict.taken, Translation)
        assert self.platform.unit.findings() == []

    def use(self, address: int = OLD) -> list[Finding]:
        """Use a translated address that is let through; return the findings."""
        recorded = page(address & ~0xFFF)
        self.platform.request(address, WRITE, recorded=recorded, attributes=TRANSLATED)
        return self.platform.unit.findings()

    def kinds(self, address: int = OLD) -> list[FindingKind]:
        """Use a translated address; return the kinds of the findings."""
        return [finding.kind for finding in self.use(address)]

    def move(self, iova: int = IOVA, address: int = NEW) -> int:
        """Map the page elsewhere, and flush the IOTLB; return the store's number."""
        self.space.map(iova, address)
        store = self.platform.unit.event
        self.platform.submit(FLUSH)
        return store

    def tell(self, *descriptors: tuple[int, ...]) -> None:
        """Invalidate, and wait until it is done."""
        self.platform.submit(*descriptors, WAIT)


@pytest.fixture
def device(platform: Platform) -> Device:
    """Make a device in legacy mode that may keep translations (TT 1), and does."""
    space = platform.legacy(tt=1)
    space.map(IOVA, OLD)
    platform.start_queue(wide=True)
    made = Device(platform, space)
    made.ask()
    return made


def test_what_the_tables_still_say_may_be_used(device: Device) -> None:
    assert device.use() == []
    assert device.use(OLD + 0xFF8) == []


def test_an_address_that_nobody_asked_for_is_not_judged(device: Device) -> None:
    assert device.use(0x1234_5000) == []


def test_a_changed_mapping_must_not_be_used(device: Device) -> None:
    filled = device.platform.unit.event - 1
    changed = device.move()
    (found,) = device.use()
    assert (found.kind, found.cache) == (FindingKind.STALE_USE, "device-tlb")
    assert found.permitted == (page(NEW),)
    assert found.changed_by == changed
    assert found.filled_by <= filled + 1


def test_each_use_is_found(device: Device) -> None:
    device.move()
    assert [device.kinds() for _ in range(3)] == [[FindingKind.STALE_USE]] * 3


def test_a_mapping_that_is_gone_must_not_be_used(device: Device) -> None:
    device.space.unmap(IOVA)
    device.platform.submit(FLUSH)
    assert device.kinds() == [FindingKind.STALE_USE]


def test_a_device_may_hold_both(device: Device) -> None:
    device.move()
    device.ask()
    assert device.kinds(NEW) == []
    assert device.kinds(OLD) == [FindingKind.STALE_USE]


def test_another_page_may_lead_to_the_same_place(device: Device) -> None:
    device.space.map(0x9000, OLD)
    device.ask(0x9000)
    device.move()
    assert device.kinds() == []


def test_nothing_is_judged_without_a_recorded_answer(device: Device) -> None:
    device.move()
    device.platform.request(OLD, WRITE, attributes=TRANSLATED)
    assert device.platform.unit.findings() == []


def test_a_device_that_used_what_it_was_told_to_forget(device: Device) -> None:
    device.move()
    device.platform.submit(without_pasid())
    told = device.platform.unit.event
    device.platform.submit(WAIT)
    (found,) = device.use()
    assert found.kind == FindingKind.STALE_AFTER_INVALIDATION
    assert (found.cache, found.covered_by) == ("device-tlb", told)


def test_a_request_may_pass_an_invalidation_until_software_waits(device: Device) -> None:
    device.move()
    device.platform.submit(without_pasid())
    assert device.kinds() == []
    device.platform.submit(WAIT)
    assert device.kinds() == [FindingKind.STALE_AFTER_INVALIDATION]


def test_a_device_may_ask_again(device: Device) -> None:
    device.tell(without_pasid())
    device.ask()
    assert device.kinds() == []


def test_a_reset_empties_device_tlbs(device: Device) -> None:
    device.tell(without_pasid())
    device.platform.unit.reset()
    device.platform.levels_of_command = 0
    device.platform.ring = None
    device.platform.set_root(device.platform.root, 0)
    device.platform.command(te=1)
    assert device.kinds() == []


def test_a_message_that_was_not_expected_is_taken_over(device: Device) -> None:
    device.platform.unit.adopt(forgotten(0, EVERYTHING))
    device.platform.submit(WAIT)
    assert device.kinds() == [FindingKind.STALE_AFTER_INVALIDATION]


STALE, GONE = FindingKind.STALE_USE, FindingKind.STALE_AFTER_INVALIDATION


@pytest.mark.parametrize(
    ("content", "covered"),
    [
        (without_pasid(), True),
        (without_pasid(IOVA, 0x1000), True),
        (without_pasid(IOVA & ~0x1FFF, 0x2000), True),
        (without_pasid(IOVA & ~0x1F_FFFF, 0x20_0000), True),
        (without_pasid(IOVA + 0x1000, 0x1000), False),
        (without_pasid(IOVA - 0x1000, 0x1000), False),
        (without_pasid(0x80_0000, 0x20_0000), False),
        (without_pasid(sid=DEVICE + 1), False),
        (with_pasid(0), False),
        (with_pasid(0, g=1), False),
    ],
)
def test_what_an_invalidation_covers(
    device: Device, content: tuple[int, ...], covered: bool
) -> None:
    device.move()
    device.tell(content)
    assert device.kinds() == [GONE if covered else STALE]


@pytest.mark.parametrize(
    ("content", "covered"),
    [
        (with_pasid(3), True),
        (with_pasid(3, IOVA, 0x1000), True),
        (with_pasid(4, g=1), True),
        (with_pasid(4, IOVA, 0x1000, g=1), True),
        (with_pasid(4), False),
        (with_pasid(3, IOVA + 0x1000, 0x1000), False),
        (with_pasid(4, IOVA + 0x1000, 0x1000, g=1), False),
        (without_pasid(), False),
    ],
)
def test_what_an_invalidation_covers_of_a_pasid(
    platform: Platform, content: tuple[int, ...], covered: bool
) -> None:
    platform.scalable_context(dte=1)
    space = platform.first_stage(3)
    space.map(IOVA, OLD)
    platform.start_queue(wide=True)
    device = Device(platform, space, 3)
    device.ask()
    device.space.unmap(IOVA)
    platform.submit(FLUSH)
    device.tell(content)
    assert device.kinds() == [GONE if covered else STALE]


def test_a_part_of_a_large_page_makes_a_device_forget_it_all(platform: Platform) -> None:
    space = platform.legacy(tt=1)
    space.map(0x40_0000, 0x80_0000, 2)
    platform.start_queue(wide=True)
    device = Device(platform, space)
    device.ask(0x40_0000)
    space.unmap(0x40_0000, 2)
    device.tell(FLUSH, without_pasid(0x40_7000, 0x1000))
    assert device.kinds(0x80_1000) == [GONE]


def test_many_translations_to_one_page_are_not_followed(device: Device) -> None:
    for number in range(1, 18):
        device.space.map(number << 12, OLD)
        device.ask(number << 12)
    for number in range(1, 18):
        device.space.unmap(number << 12)
    device.move()
    assert device.kinds() == []


# -- limits ----------------------------------------------------------------------------------------


def test_of_one_page_the_oldest_translation_is_not_judged_any_more(device: Device) -> None:
    targets = [OLD, *(0x100_0000 + 0x1000 * number for number in range(WAYS))]
    for target in targets[1:]:
        device.move(address=target)
        device.ask()
    device.move()
    assert device.kinds(targets[0]) == []
    for target in targets[1:]:
        assert device.kinds(target) == [FindingKind.STALE_USE], hex(target)


def test_a_translation_asked_for_twice_is_kept_once(device: Device) -> None:
    for _ in range(WAYS):
        device.ask()
    device.move(address=NEW)
    device.ask()
    device.move()
    assert device.kinds(OLD) == [FindingKind.STALE_USE]


@pytest.mark.parametrize("mask", [0x7FF, 0x1_2FFF, (1 << 64) - 1])
def test_what_is_no_page_is_not_kept(device: Device, mask: int) -> None:
    device.platform.request(0x9000, READ, recorded=Translation(0, mask), attributes=ATS)
    device.platform.unit.findings()
    assert device.kinds(0x9000) == []


def test_one_translation_too_many_makes_it_forget_all(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = device.platform
    if isinstance(platform.unit, VtdUnit):
        monkeypatch.setattr(device_tlb, "HELD_LIMIT", 600)
    first = 0x8000_0000
    for directory in range(-(-device_tlb.HELD_LIMIT // 512)):
        leaves = platform.page()
        content = b"".join(
            device.space.value(first + (directory * 512 + entry << 12)).to_bytes(8, "little")
            for entry in range(512)
        )
        platform.unit.snapshot(leaves, content)
        platform.store(device.space.entry(first + (directory << 21), 2), device.space.value(leaves))
    for number in range(device_tlb.HELD_LIMIT - 1):
        platform.request(first + (number << 12), READ, attributes=ATS)
    device.move()
    assert device.kinds() == [FindingKind.STALE_USE]
    platform.request(first + (device_tlb.HELD_LIMIT - 1 << 12), READ, attributes=ATS)
    assert device.kinds() == []
    assert device.kinds(first) == []
