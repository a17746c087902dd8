"""Mistakes in the invalidation queue."""

from __future__ import annotations

from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import InvalidationWait
from tests.harness.check.driver import (
    Driver,
    contexts,
    device_tlb,
    interrupts,
    iotlb,
    page,
    pasid_page,
    pasids,
)
from tests.harness.check.mistakes import mistake
from tests.writers.platform import OUTSIDE, descriptor


def stopped(driver: Driver, *content: int) -> int:
    """Submit a descriptor at which the queue stops."""
    driver.start()
    driver.alive = False
    return driver.submit(content)


def passed(driver: Driver, *content: int) -> int:
    """Submit a descriptor that the unit takes."""
    driver.start()
    driver.attach()
    return driver.submit(content)


@mistake("tail-outside-ring")
def the_tail_leaves_the_ring(driver: Driver) -> int:
    driver.start()
    driver.alive = False
    return driver.write(vtd.IQT, 0x1000)


@mistake("tail-misaligned", wide=True)
def the_tail_is_half_a_descriptor_too_far(driver: Driver) -> int:
    driver.start(1)
    driver.alive = False
    return driver.write(vtd.IQT, driver.tail + 16)


@mistake("tail-misaligned")
def the_tail_counts_quadwords(driver: Driver) -> int:
    driver.start()
    return driver.write(vtd.IQT, driver.tail + 8)


@mistake("descriptor-type")
def an_unknown_descriptor(driver: Driver) -> int:
    return stopped(driver, 0xF, 0)


@mistake("descriptor-type")
def a_slot_that_was_never_filled(driver: Driver) -> int:
    driver.start()
    driver.alive = False
    return driver.write(vtd.IQT, driver.tail + 16)


@mistake("descriptor-type")
def a_descriptor_by_pasid_in_a_short_queue(driver: Driver) -> int:
    return stopped(driver, *pasids())


@mistake("descriptor-reserved")
def reserved_bits_of_a_descriptor(driver: Driver) -> int:
    low, high = iotlb()
    return stopped(driver, low | 1 << 40, high)


@mistake("descriptor-reserved", wide=True)
def reserved_quadwords_of_a_descriptor(driver: Driver) -> int:
    driver.start(1)
    driver.alive = False
    return driver.submit((*iotlb(), 0, 1))


@mistake("descriptor-reserved")
def a_drain_that_the_unit_does_not_have(driver: Driver) -> int:
    return stopped(driver, *descriptor(InvalidationWait, sw=1, pd=1, staddr=0x1000))


@mistake("descriptor-granularity")
def a_reserved_granularity(driver: Driver) -> int:
    return stopped(driver, *contexts(0))


@mistake("descriptor-granularity", wide=True)
def a_reserved_granularity_of_pasids(driver: Driver) -> int:
    driver.start(1)
    driver.alive = False
    return driver.submit(pasids(2))


@mistake("page-invalidation")
def pages_that_are_not_aligned(driver: Driver) -> int:
    return passed(driver, *page(0x7000, am=1))


@mistake("page-invalidation", wide=True)
def pages_of_a_pasid_that_are_not_aligned(driver: Driver) -> int:
    driver.start(1)
    driver.attach_pasid()
    return driver.submit(pasid_page(0x7000, am=3))


@mistake("page-invalidation", mamv=4)
def more_pages_than_the_unit_can_take(driver: Driver) -> int:
    return stopped(driver, *page(0, am=5))


@mistake("page-invalidation", psi=0)
def pages_where_only_domains_are_possible(driver: Driver) -> int:
    driver.alive = False
    return passed(driver, *page(0x7000))


@mistake("descriptor-domain", nd=0)
def a_domain_id_that_is_too_large(driver: Driver) -> int:
    return passed(driver, *iotlb(2, did=16))


@mistake("descriptor-unsupported", dt=0)
def a_device_tlb_is_not_there(driver: Driver) -> int:
    return passed(driver, *device_tlb(0x7000))


@mistake("descriptor-unsupported", ir=1, mhmv=3)
def more_interrupts_than_the_unit_can_take(driver: Driver) -> int:
    return passed(driver, *interrupts(g=1, im=4))


@mistake("descriptor-unreadable", ring=OUTSIDE, ram=True)
def the_queue_lies_outside_memory(driver: Driver) -> int:
    driver.start_queue()
    driver.alive = False
    return driver.submit(contexts())
