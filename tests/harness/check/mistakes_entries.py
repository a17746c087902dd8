"""Mistakes in table entries."""

from __future__ import annotations

from decoders.events import Role
from decoders.vtd.tables import ContextEntry
from tests.harness.check.driver import CONTEXTS, DATA, IOVA, LEVELS, ROOT, Driver
from tests.harness.check.mistakes import mistake
from tests.writers.platform import DEVICE, DOMAIN, quadword


def entry_of(driver: Driver, **fields: int) -> int:
    """Attach a device by a wrong context entry; return the store that shows it to the unit."""
    driver.start()
    at, entry = driver.context(**fields)
    number = driver.put(at, entry)
    driver.flush()
    return number


def pasid_of(driver: Driver, stage: Role = Role.FIRST_STAGE, **fields: int) -> int:
    """Attach a device by a wrong PASID entry."""
    driver.start(1)
    at, entry = driver.pasid_entry(stage, **fields)
    number = driver.put(at, entry)
    driver.alive = False
    driver.flush(1)
    return number


@mistake("entry-reserved")
def reserved_bits_of_a_root_entry(driver: Driver) -> int:
    driver.start()
    driver.attach()
    number = driver.store(ROOT, driver.load(ROOT) | 1 << 5)
    driver.flush()
    return number


@mistake("entry-reserved")
def reserved_bits_of_a_context_entry(driver: Driver) -> int:
    driver.start()
    at, (low, high) = driver.context()
    number = driver.put(at, (low | 1 << 7, high))
    driver.flush()
    return number


@mistake("entry-reserved", width=39)
def a_context_entry_points_beyond_the_host_address_width(driver: Driver) -> int:
    driver.start()
    at, (low, high) = driver.context()
    number = driver.put(at, (low | 1 << 39, high))
    driver.flush()
    return number


@mistake("entry-reserved", wide=True)
def reserved_bits_of_a_directory_entry(driver: Driver) -> int:
    driver.start(1)
    driver.attach_pasid()
    directory = driver.load(CONTEXTS + 32 * DEVICE) & ~0xFFF
    number = driver.store(directory, driver.load(directory) | 1 << 3)
    driver.flush(1)
    return number


@mistake("entry-reserved", wide=True)
def reserved_bits_of_a_pasid_entry(driver: Driver) -> int:
    driver.start(1)
    at, (first, *rest) = driver.pasid_entry()
    rest[-1] = 1
    number = driver.put(at, (first, *rest))
    driver.flush(1)
    return number


@mistake("entry-invalid")
def a_reserved_translation_type(driver: Driver) -> int:
    return entry_of(driver, tt=3)


@mistake("entry-invalid", pt=0)
def pass_through_is_not_there(driver: Driver) -> int:
    return entry_of(driver, tt=2)


@mistake("entry-invalid", sagaw=0b0010)
def an_address_width_that_is_not_there(driver: Driver) -> int:
    return entry_of(driver, aw=2)


@mistake("entry-invalid", wide=True)
def nested_translation_is_not_there(driver: Driver) -> int:
    return pasid_of(driver, pgtt=3)


@mistake("entry-invalid", wide=True)
def an_option_without_its_capability(driver: Driver) -> int:
    return pasid_of(driver, sre=1)


@mistake("entry-invalid", wide=True, fs5lp=0)
def five_levels_are_not_there(driver: Driver) -> int:
    return pasid_of(driver, fspm=1)


@mistake("entry-domain", nd=0)
def a_domain_id_beyond_the_last(driver: Driver) -> int:
    driver.alive = False  # each invalidation would name it
    return entry_of(driver, did=16)


@mistake("entry-domain", cm=1)
def domain_0_in_caching_mode(driver: Driver) -> int:
    return entry_of(driver, did=0)


@mistake("entry-domain", wide=True, cm=1)
def domain_0_of_a_pasid_in_caching_mode(driver: Driver) -> int:
    return pasid_of(driver, did=0)


@mistake("paging-entry-reserved", width=39)
def a_page_beyond_the_host_address_width(driver: Driver) -> int:
    driver.start()
    driver.attach()
    return driver.map(address=1 << 39)


@mistake("paging-entry-reserved")
def snoop_control_is_not_there(driver: Driver) -> int:
    driver.start()
    driver.attach()
    return driver.map(snp=1)


@mistake("paging-entry-reserved", sslps=0)
def large_pages_are_not_there(driver: Driver) -> int:
    driver.start()
    driver.attach()
    return driver.store(driver.entry(0, 2), driver.space.value(DATA, ps=1))


@mistake("paging-entry-reserved", wide=True)
def a_large_page_that_is_not_aligned(driver: Driver) -> int:
    driver.start(1)
    driver.attach_pasid()
    return driver.store(driver.entry(0, 2), driver.space.value(DATA + 0x4000, ps=1))


@mistake("paging-entry-reserved")
def a_wrong_entry_becomes_reachable(driver: Driver) -> int:
    driver.start()
    driver.attach()
    above = driver.entry(IOVA, 2)
    table = driver.table(driver.space.role, 1)
    number = driver.store(table, driver.space.value(DATA, snp=1))
    driver.use(0x40_0000)  # nothing is mapped there, and nothing leads to the table
    driver.store(above, driver.space.value(table))
    return number


@mistake("paging-entry-reserved")
def a_wrong_entry_from_before_translation(driver: Driver) -> int:
    driver.start(translate=False)
    driver.attach()
    number = driver.map(snp=1)
    driver.command(te=1)
    return number


@mistake("present-set-early")
def a_context_entry_is_present_before_its_domain(driver: Driver) -> int:
    driver.start()
    at, (low, high) = driver.context()
    driver.store(at, low)
    number = driver.store(at + 8, high)
    driver.flush()
    return number


@mistake("present-set-early", wide=True)
def a_pasid_entry_is_present_before_its_tables(driver: Driver) -> int:
    driver.start(1)
    at, entry = driver.pasid_entry()
    driver.store(at + 8, entry[1])
    driver.store(at, entry[0])
    number = driver.store(at + 16, entry[2])
    driver.flush(1)
    return number


@mistake("present-cleared-late")
def a_context_entry_loses_its_domain_first(driver: Driver) -> int:
    driver.start()
    at = driver.attach()
    number = driver.store(at + 8, 0)
    driver.store(at, 0)
    driver.flush()
    driver.alive = False
    return number


@mistake("present-cleared-late")
def a_context_entry_gets_another_domain_first(driver: Driver) -> int:
    driver.start()
    at = driver.attach()
    number = driver.store(at + 8, quadword(ContextEntry, 1, aw=LEVELS - 2, did=DOMAIN + 1))
    driver.store(at, 0)
    driver.flush()
    driver.alive = False
    return number
