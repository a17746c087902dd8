"""What drivers do and may do: nothing is found in it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from decoders.events import Gap, Release, Reset, Role
from decoders.vtd import registers as vtd
from decoders.vtd.registers import ContextCommand, IotlbRegister, fault_record_offset, iotlb_offset
from harness.check.command import watch
from harness.check.rules import Notebook
from tests.harness.check.driver import (
    DATA,
    IOVA,
    OTHER,
    ROOT,
    WAIT,
    Driver,
    contexts,
    interrupts,
    iotlb,
    page,
    pasid_domain,
    pasid_page,
    pasids,
)
from tests.harness.check.test_mistakes import broken
from tests.writers.platform import DOMAIN, quadword, unit_config

Habit = Callable[[Driver], object]
LEGACY: dict[str, Habit] = {}
SCALABLE: dict[str, Habit] = {}


def legacy(habit: Habit) -> Habit:
    LEGACY[getattr(habit, "__name__", "")] = habit
    return habit


def scalable(habit: Habit) -> Habit:
    SCALABLE[getattr(habit, "__name__", "")] = habit
    return habit


def remap(driver: Driver, address: int = OTHER) -> None:
    driver.store(driver.entry(), driver.space.value(address))


@legacy
def nothing_special(driver: Driver) -> None:
    pass


@legacy
def unmapping_in_bulk(driver: Driver) -> None:
    for number in range(40):
        driver.map(IOVA + 0x1000 * number, DATA + 0x1000 * number)
        driver.use(IOVA + 0x1000 * number)
    for number in range(40):
        driver.store(driver.entry(IOVA + 0x1000 * number), 0)
    driver.submit(iotlb(2))
    for number in range(40):
        driver.map(IOVA + 0x1000 * number, OTHER + 0x1000 * number)
        driver.use(IOVA + 0x1000 * number)


@legacy
def aligned_ranges_of_pages(driver: Driver) -> None:
    driver.map()
    driver.use()
    remap(driver)
    driver.submit(page(0, am=3))
    driver.use()


@legacy
def the_hint_where_only_a_leaf_changed(driver: Driver) -> None:
    driver.map()
    driver.use()
    remap(driver)
    driver.submit(page(IOVA, ih=1))
    driver.use()


@legacy
def a_table_that_is_given_up_in_order(driver: Driver) -> None:
    driver.map()
    driver.use()
    table = driver.entry() & ~0xFFF
    driver.store(driver.entry(level=2), 0)
    driver.submit(page(0, am=9))
    driver.events.append(Release(table))
    driver.store(table + 0x800, 0x1234_5678)


@legacy
def a_device_that_moves_and_comes_back(driver: Driver) -> None:
    for did in (DOMAIN, DOMAIN + 1, DOMAIN, DOMAIN):
        at, entry = driver.context(did=did)
        if driver.load(at):
            driver.detach(at)
            driver.submit(contexts(3, did=DOMAIN), contexts(3, did=DOMAIN + 1))
            driver.submit(iotlb(2, did=DOMAIN))
            driver.submit(iotlb(2, did=DOMAIN + 1))
        driver.put(at, entry)
        driver.submit(contexts(3, did=0))
        driver.submit(iotlb(2, did=did))
        driver.map(address=DATA + 0x10000 * did)
        driver.use()


@legacy
def flags_of_an_entry_in_use(driver: Driver) -> None:
    driver.map()
    driver.use()
    driver.store(driver.entry(), driver.space.value(DATA) | 1 << 52)  # ignored by the unit
    driver.use()


@legacy
def an_entry_is_written_in_passing(driver: Driver) -> None:
    driver.map()
    driver.use()
    remap(driver)
    remap(driver, DATA)
    driver.use()


@legacy
def a_new_root_under_way(driver: Driver) -> None:
    driver.map()
    driver.use()
    driver.command(te=0)
    driver.set_root()
    driver.flush()
    driver.command(te=1)
    driver.use()


@legacy
def the_queue_is_turned_off_and_on(driver: Driver) -> None:
    driver.command(qie=0)
    ecap = driver.config.extended_capability
    driver.write(vtd.CCMD, quadword(ContextCommand, icc=1, cirg=1))
    driver.read(vtd.CCMD)
    driver.write(vtd.IOTLB, quadword(IotlbRegister, ivt=1, iirg=1), iotlb_offset(ecap))
    driver.read(vtd.IOTLB, iotlb_offset(ecap))
    driver.tail = 0
    driver.start_queue(size=1)
    driver.map()
    driver.use()


@legacy
def interrupt_remapping(driver: Driver) -> None:
    driver.command(sirtp=1)
    driver.submit(interrupts())
    driver.command(ire=1)


@legacy
def a_fault_is_looked_at_and_cleared(driver: Driver) -> None:
    driver.fault()
    place = fault_record_offset(driver.config.capability, 0) + 8
    driver.read(vtd.FRCD_HIGH, place)
    driver.write(vtd.FRCD_HIGH, 1 << 63, place)


@legacy
def a_reset_forgets_everything(driver: Driver) -> None:
    driver.map()
    driver.use()
    driver.store(driver.entry(), 0)
    driver.events.append(Reset())
    driver.memory = {}
    driver.levels = driver.tail = 0
    driver.start()
    driver.store(ROOT, 0)
    driver.attach()


@legacy
def what_is_lost_is_not_judged(driver: Driver) -> None:
    driver.map()
    driver.use()
    driver.events.append(Gap("recorder restarted"))
    remap(driver)
    driver.use()
    driver.write(vtd.GCMD, 0xFFFF_FFFF)
    driver.alive = False


@scalable
def nothing_special_by_pasid(driver: Driver) -> None:
    pass


@scalable
def a_pasid_that_moves(driver: Driver) -> None:
    driver.map()
    driver.use()
    at, entry = driver.pasid_entry(Role.SECOND_STAGE, did=DOMAIN + 1)
    for offset in (0, 8, 16):
        driver.store(at + offset, 0)
    for descriptor in (pasids(), pasid_domain(), iotlb(2)):
        driver.submit(descriptor)
    driver.put(at, entry)
    driver.submit(pasids(did=DOMAIN + 1), iotlb(2, did=DOMAIN + 1))
    driver.map(address=OTHER)
    driver.use()


@scalable
def snooping_is_forced_for_an_entry_in_use(driver: Driver) -> None:
    at, entry = driver.pasid_entry(pgsnp=0)
    driver.store(at + 8, entry[1] | 1 << 23)
    driver.submit(pasids(), pasid_domain())


@scalable
def pages_by_pasid(driver: Driver) -> None:
    driver.map()
    driver.use()
    remap(driver)
    by_pasid = driver.space.role is Role.FIRST_STAGE
    driver.submit(pasid_page(IOVA) if by_pasid else page(IOVA))
    driver.use()


@pytest.mark.parametrize("cm", [0, 1])
@pytest.mark.parametrize("name", LEGACY)
def test_nothing_is_found_in_legacy_mode(name: str, cm: int) -> None:
    driver = Driver(unit_config(cm=cm, ir=1))
    driver.start()
    driver.attach()
    LEGACY[name](driver)
    driver.go_on()
    assert broken(driver.config, driver.events) == []


@pytest.mark.parametrize("cm", [0, 1])
@pytest.mark.parametrize("stage", [Role.FIRST_STAGE, Role.SECOND_STAGE], ids=lambda one: one.name)
@pytest.mark.parametrize("name", SCALABLE)
def test_nothing_is_found_in_scalable_mode(name: str, stage: Role, cm: int) -> None:
    driver = Driver(unit_config(cm=cm), wide=True)
    driver.start(1)
    driver.attach_pasid(stage)
    SCALABLE[name](driver)
    driver.go_on()
    assert broken(driver.config, driver.events) == []


def test_a_device_that_keeps_translations() -> None:
    driver = Driver(unit_config())
    driver.start()
    driver.ats = True
    driver.attach(tt=1)
    driver.go_on()
    for address in (DATA, OTHER, DATA):
        driver.map(address=address)
        driver.use()
        driver.unmap()
    assert broken(driver.config, driver.events) == []


def test_a_driver_recovers_from_a_bad_descriptor() -> None:
    # As Linux does: the slot becomes a wait descriptor, and the error is cleared.
    driver = Driver(unit_config())
    driver.start()
    driver.attach()
    slot = driver.ring + driver.tail
    bad = driver.submit((0xF, 0))
    driver.store(slot, WAIT[0])
    driver.store(slot + 8, WAIT[1])
    driver.write(vtd.FSTS, 0x10)
    driver.write(vtd.IQT, driver.tail)
    driver.go_on()
    assert broken(driver.config, driver.events) == [("descriptor-type", bad)]


def test_a_tail_that_overtakes_the_head() -> None:
    # The head stands still at a bad descriptor; the driver fills the ring all around.
    driver = Driver(unit_config())
    driver.start()
    driver.attach()
    bad = driver.submit((0xF, 0))
    tail = (driver.tail - 32) % 0x1000
    over = driver.write(vtd.IQT, tail)
    assert broken(driver.config, driver.events) == [
        ("descriptor-type", bad),
        ("tail-overtakes-head", over),
    ]


def test_a_mistake_that_is_repeated_is_reported_once() -> None:
    driver = Driver(unit_config())
    driver.start()
    driver.attach()
    driver.map()
    driver.use()
    remap(driver)
    first = driver.use()
    driver.use()
    driver.use(IOVA + 8)
    assert broken(driver.config, driver.events) == [("mapping-not-invalidated", first)]


def test_only_so_many_are_kept() -> None:
    driver = Driver(unit_config())
    driver.start()
    for _ in range(1200):
        driver.write(vtd.CCMD, 1 << 63)
    notes = Notebook()
    assert watch(driver.config, driver.events, notes) == len(driver.events)
    assert (notes.count, len(notes.kept)) == (1200, 1000)
