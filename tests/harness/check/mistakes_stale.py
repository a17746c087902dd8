"""Mistakes with invalidations: missing, too small, not awaited, in the wrong order."""

from __future__ import annotations

from decoders.events import Release, Role
from tests.harness.check.driver import (
    IOVA,
    OTHER,
    Driver,
    contexts,
    device_tlb,
    iotlb,
    page,
    pasid_domain,
    pasid_page,
    pasids,
)
from tests.harness.check.mistakes import mistake
from tests.writers.platform import DEVICE, DOMAIN


def used(driver: Driver, **fields: int) -> int:
    """Map a page and let the device use it; return where the context entry lies."""
    driver.start()
    driver.ats = fields.get("tt") == 1
    at = driver.attach(**fields)
    driver.map()
    driver.use()
    return at


def used_pasid(driver: Driver, stage: Role = Role.FIRST_STAGE) -> int:
    """Map a page and let the device use it; return where the PASID entry lies."""
    driver.start(1)
    at = driver.attach_pasid(stage)
    driver.map()
    driver.use()
    return at


def remap(driver: Driver, address: int = OTHER) -> None:
    """Let the page lead elsewhere, and invalidate nothing."""
    driver.store(driver.entry(), driver.space.value(address))


def moved(driver: Driver, at: int, *descriptors: tuple[int, ...], **fields: int) -> int:
    """Give the device new tables, with only these invalidations, and let it use a page."""
    driver.detach(at)
    if descriptors:
        driver.submit(*descriptors)
    at, entry = driver.context(**fields)
    driver.store(driver.entry(), driver.space.value(OTHER))
    driver.put(at, entry)
    return driver.use()


def moved_pasid(driver: Driver, at: int, *descriptors: tuple[int, ...], **fields: int) -> int:
    """Give the PASID new tables, with only these invalidations, and let the device use a page."""
    for offset in (0, 8, 16):
        driver.store(at + offset, 0)
    if descriptors:
        driver.submit(*descriptors)
    at, entry = driver.pasid_entry(driver.space.role, **fields)
    driver.store(driver.entry(), driver.space.value(OTHER))
    driver.put(at, entry)
    return driver.use()


@mistake("mapping-not-invalidated")
def a_page_is_mapped_elsewhere(driver: Driver) -> int:
    used(driver)
    remap(driver)
    return driver.use()


@mistake("mapping-not-invalidated")
def a_page_is_unmapped_and_still_used(driver: Driver) -> int:
    used(driver)
    driver.store(driver.entry(), 0)
    return driver.use()


@mistake("mapping-not-invalidated")
def another_page_is_invalidated(driver: Driver) -> int:
    used(driver)
    remap(driver)
    driver.submit(page(IOVA + 0x1000))
    return driver.use()


@mistake("mapping-not-invalidated")
def another_domain_is_invalidated(driver: Driver) -> int:
    used(driver)
    remap(driver)
    driver.submit(iotlb(2, did=DOMAIN + 1))
    return driver.use()


@mistake("mapping-not-invalidated", wide=True)
def a_page_of_a_pasid_is_mapped_elsewhere(driver: Driver) -> int:
    used_pasid(driver)
    remap(driver)
    return driver.use()


@mistake("mapping-not-invalidated", wide=True)
def a_page_of_another_pasid_is_invalidated(driver: Driver) -> int:
    used_pasid(driver)
    remap(driver)
    driver.submit(pasid_page(IOVA, pasid=1))
    return driver.use()


@mistake("table-not-invalidated")
def another_table_takes_the_place_of_one(driver: Driver) -> int:
    used(driver)
    leaf, above = driver.entry(), driver.entry(level=2)
    table = driver.table(Role.SECOND_STAGE, 1)
    driver.store(table + leaf % 0x1000, driver.space.value(OTHER))
    driver.store(above, driver.space.value(table))
    return driver.use()


@mistake("leaf-hint-misused")
def the_hint_hides_another_table(driver: Driver) -> int:
    used(driver)
    leaf, above = driver.entry(), driver.entry(level=2)
    table = driver.table(Role.SECOND_STAGE, 1)
    driver.store(table + leaf % 0x1000, driver.space.value(OTHER))
    driver.store(above, driver.space.value(table))
    driver.submit(page(IOVA, ih=1))
    return driver.use()


@mistake("context-not-invalidated")
def a_device_is_moved_and_nothing_invalidated(driver: Driver) -> int:
    return moved(driver, used(driver), did=DOMAIN + 1)


@mistake("context-not-invalidated")
def another_device_is_invalidated(driver: Driver) -> int:
    at = used(driver)
    return moved(driver, at, contexts(3, sid=DEVICE + 8), iotlb(2), did=DOMAIN + 1)


@mistake("context-not-invalidated")
def a_context_entry_is_cleared_and_still_used(driver: Driver) -> int:
    driver.detach(used(driver))
    driver.alive = False
    return driver.use()


@mistake("pasid-not-invalidated", wide=True)
def a_pasid_is_moved_and_nothing_invalidated(driver: Driver) -> int:
    return moved_pasid(driver, used_pasid(driver), did=DOMAIN + 1)


@mistake("pasid-not-invalidated", wide=True)
def another_pasid_is_invalidated(driver: Driver) -> int:
    at = used_pasid(driver, Role.SECOND_STAGE)
    return moved_pasid(driver, at, pasids(pasid=9), pasid_domain(), iotlb(2), did=DOMAIN + 1)


@mistake("domain-not-invalidated")
def a_domain_id_is_used_again(driver: Driver) -> int:
    return moved(driver, used(driver), contexts(3))


@mistake("domain-not-invalidated", wide=True)
def the_domain_id_of_a_pasid_is_used_again(driver: Driver) -> int:
    return moved_pasid(driver, used_pasid(driver), pasids())


@mistake("context-flush-order")
def the_domain_is_invalidated_before_the_context_entry(driver: Driver) -> int:
    return moved(driver, used(driver), iotlb(2), contexts(3), did=DOMAIN + 1)


@mistake("pasid-flush-order", wide=True)
def the_translations_are_invalidated_before_the_pasid(driver: Driver) -> int:
    at = used_pasid(driver)
    return moved_pasid(driver, at, pasid_domain(), pasids(), did=DOMAIN + 1)


@mistake("pasid-flush-order", wide=True)
def any_page_is_invalidated_before_the_pasid(driver: Driver) -> int:
    """Let a second-stage page take all first-stage translations of the domain with it."""
    return moved_pasid(driver, used_pasid(driver), page(1 << 30), pasids(), did=DOMAIN + 1)


@mistake("map-not-invalidated", cm=1)
def a_new_mapping_is_not_told(driver: Driver) -> int:
    used(driver)
    driver.store(driver.entry(IOVA + 0x1000), driver.space.value(OTHER))
    return driver.use(IOVA + 0x1000)


@mistake("map-not-invalidated", cm=1)
def a_new_mapping_is_told_after_its_refusal(driver: Driver) -> int:
    used(driver)
    driver.use(IOVA + 0x1000)
    driver.submit(page(IOVA + 0x1000))
    driver.store(driver.entry(IOVA + 0x1000), driver.space.value(OTHER))
    return driver.use(IOVA + 0x1000)


@mistake("context-present-not-invalidated", cm=1)
def a_new_context_entry_is_not_told(driver: Driver) -> int:
    driver.start()
    driver.put(*driver.context())
    driver.map()
    return driver.use()


@mistake("context-present-not-invalidated", cm=1)
def a_new_context_entry_is_told_by_its_own_domain(driver: Driver) -> int:
    """Name the domain of the new entry; what blocked is kept under domain 0."""
    driver.start()
    driver.put(*driver.context())
    driver.submit(contexts(3))
    driver.map()
    return driver.use()


@mistake("pasid-present-not-invalidated", wide=True, cm=1)
def a_new_pasid_entry_is_not_told(driver: Driver) -> int:
    driver.start(1)
    driver.put(*driver.pasid_entry())
    driver.submit(contexts())
    driver.map()
    return driver.use()


@mistake("wait-missing")
def nobody_waits_for_an_invalidation(driver: Driver) -> int:
    used(driver)
    remap(driver)
    driver.submit(page(IOVA), wait=False)
    return driver.use()


@mistake("wait-missing")
def the_wait_comes_before_the_invalidation(driver: Driver) -> int:
    used(driver)
    remap(driver)
    driver.submit()
    driver.submit(page(IOVA), wait=False)
    return driver.use()


@mistake("wait-missing", wide=True)
def nobody_waits_for_an_invalidation_by_pasid(driver: Driver) -> int:
    used_pasid(driver)
    remap(driver)
    driver.submit(pasid_page(IOVA), wait=False)
    return driver.use()


@mistake("wait-missing")
def nobody_waits_before_a_table_is_used_for_something_else(driver: Driver) -> int:
    used(driver)
    table = driver.entry() & ~0xFFF
    driver.store(driver.entry(level=2), 0)
    driver.submit(page(IOVA), wait=False)
    driver.events.append(Release(table))
    return driver.store(table + 0x800, 0x1234_5678)


@mistake("table-page-reused")
def a_table_is_given_up_too_early(driver: Driver) -> int:
    used(driver)
    table = driver.entry() & ~0xFFF
    driver.store(driver.entry(level=2), 0)
    return driver.store(table + 0x800, 0x1234_5678)


@mistake("device-tlb-not-invalidated")
def the_device_keeps_a_translation(driver: Driver) -> int:
    used(driver, tt=1)
    remap(driver)
    driver.submit(page(IOVA))
    return driver.use()


@mistake("device-tlb-not-invalidated")
def another_page_of_the_device_is_invalidated(driver: Driver) -> int:
    used(driver, tt=1)
    remap(driver)
    driver.submit(page(IOVA), device_tlb(IOVA + 0x1000))
    return driver.use()


@mistake("device-tlb-order")
def the_device_is_told_before_the_unit(driver: Driver) -> int:
    used(driver, tt=1)
    remap(driver)
    driver.submit(device_tlb(IOVA), page(IOVA))
    return driver.use()
