"""Mistakes with registers."""

from __future__ import annotations

from decoders.vtd import registers as vtd
from decoders.vtd.registers import (
    ContextCommand,
    InvalidationQueueAddress,
    IotlbRegister,
    Iva,
    RootTableAddress,
    fault_record_offset,
    iotlb_offset,
    iva_offset,
)
from tests.harness.check.driver import ROOT, Driver, contexts, interrupts, iotlb, pasids
from tests.harness.check.mistakes import mistake
from tests.writers.platform import quadword


@mistake("two-commands")
def two_levels_at_once(driver: Driver) -> int:
    driver.start(translate=False)
    return driver.command(te=1, ire=1)


@mistake("two-commands", ir=1)
def two_roots_at_once(driver: Driver) -> int:
    driver.start(translate=False)
    number = driver.command(srtp=1, sirtp=1)
    driver.flush()
    driver.submit(interrupts())
    driver.command(te=1)
    driver.attach()
    return number


@mistake("level-bit-dropped")
def translation_is_dropped_with_another_command(driver: Driver) -> int:
    driver.start()
    driver.attach()
    driver.levels &= ~quadword(vtd.GlobalCommand, te=1)
    number = driver.command(sirtp=1)
    driver.command(te=1)
    return number


@mistake("command-not-awaited", ir=1)
def nobody_looks_at_the_status(driver: Driver) -> int:
    driver.start()
    driver.attach()
    driver.command(awaited=False, sirtp=1)
    driver.submit(interrupts())
    return driver.command(ire=1)


@mistake("queue-enabled-with-tail")
def the_tail_is_left_from_before(driver: Driver) -> int:
    driver.alive = False
    driver.read(vtd.CAP)
    driver.write(vtd.IQT, 0x40)
    driver.write(vtd.IQA, quadword(InvalidationQueueAddress, iqa=driver.ring >> 12))
    return driver.command(qie=1)


@mistake("queue-moved-while-enabled")
def the_queue_moves_under_way(driver: Driver) -> int:
    driver.start()
    driver.attach()
    return driver.write(vtd.IQA, quadword(InvalidationQueueAddress, qs=1, iqa=driver.ring >> 12))


@mistake("queue-width-for-mode")
def short_descriptors_in_scalable_mode(driver: Driver) -> int:
    driver.alive = False
    driver.start_queue()
    return driver.set_root(1)


@mistake("queue-width-for-mode", wide=True, smts=0)
def long_descriptors_without_scalable_mode(driver: Driver) -> int:
    driver.alive = False
    driver.start_queue()
    return driver.last - 1


@mistake("root-not-latched")
def the_root_is_written_and_not_set(driver: Driver) -> int:
    driver.start_queue()
    driver.write(vtd.RTADDR, ROOT)
    driver.flush()
    return driver.command(te=1)


@mistake("root-not-latched")
def the_root_is_changed_and_not_set(driver: Driver) -> int:
    driver.start(translate=False)
    driver.write(vtd.RTADDR, ROOT + 0x8_0000)
    return driver.command(te=1)


@mistake("root-mode-unsupported")
def a_reserved_mode(driver: Driver) -> int:
    driver.start_queue()
    return driver.set_root(2)


@mistake("root-mode-unsupported", smts=0)
def scalable_mode_is_not_there(driver: Driver) -> int:
    driver.start_queue()
    return driver.set_root(1)


@mistake("root-mode-unsupported")
def reserved_bits_of_the_root(driver: Driver) -> int:
    driver.start_queue()
    number = driver.write(vtd.RTADDR, quadword(RootTableAddress, rta=ROOT >> 12) | 1)
    driver.command(srtp=1)
    return number


@mistake("root-not-flushed")
def the_iotlb_is_forgotten_after_a_new_root(driver: Driver) -> int:
    driver.start_queue()
    driver.set_root()
    driver.submit(contexts())
    return driver.command(te=1)


@mistake("root-not-flushed")
def a_second_root_is_not_flushed(driver: Driver) -> int:
    driver.start(translate=False)
    driver.set_root()
    return driver.command(te=1)


@mistake("root-not-flushed", wide=True)
def the_pasid_cache_is_forgotten_after_a_new_root(driver: Driver) -> int:
    driver.start_queue()
    driver.set_root(1)
    driver.submit(contexts())
    driver.submit(iotlb())
    return driver.command(te=1)


@mistake("root-flush-order")
def the_iotlb_is_flushed_first(driver: Driver) -> int:
    driver.start_queue()
    driver.set_root()
    driver.submit(iotlb())
    driver.submit(contexts())
    return driver.command(te=1)


@mistake("root-flush-order", wide=True)
def the_pasid_cache_is_flushed_last(driver: Driver) -> int:
    driver.start_queue()
    driver.set_root(1)
    driver.submit(contexts(), iotlb(), pasids(3))
    return driver.command(te=1)


@mistake("interrupt-root-not-flushed", ir=1)
def interrupt_entries_are_not_flushed(driver: Driver) -> int:
    driver.start()
    driver.attach()
    driver.command(sirtp=1)
    return driver.command(ire=1)


@mistake("register-invalidation-with-queue")
def contexts_by_register_beside_the_queue(driver: Driver) -> int:
    driver.start()
    driver.attach()
    return driver.write(vtd.CCMD, quadword(ContextCommand, icc=1, cirg=1))


@mistake("register-invalidation-with-queue")
def pages_by_register_beside_the_queue(driver: Driver) -> int:
    driver.start()
    driver.attach()
    place = iotlb_offset(driver.config.extended_capability)
    return driver.write(vtd.IOTLB, quadword(IotlbRegister, ivt=1, iirg=1), place)


@mistake("register-invalidation-not-awaited")
def two_commands_to_a_register(driver: Driver) -> int:
    driver.read(vtd.CAP)
    driver.write(vtd.CCMD, quadword(ContextCommand, icc=1, cirg=1))
    return driver.write(vtd.CCMD, quadword(ContextCommand, icc=1, cirg=2, did=3))


@mistake("register-page-invalidation")
def a_page_by_register_that_is_not_aligned(driver: Driver) -> int:
    ecap = driver.config.extended_capability
    driver.write(vtd.IVA, quadword(Iva, am=2, addr=0x1001), iva_offset(ecap))
    command = quadword(IotlbRegister, ivt=1, iirg=3)
    return driver.write(vtd.IOTLB, command, iotlb_offset(ecap))


@mistake("fault-not-read")
def a_fault_is_cleared_unread(driver: Driver) -> int:
    driver.start()
    driver.attach()
    driver.fault()
    place = fault_record_offset(driver.config.capability, 0) + 8
    return driver.write(vtd.FRCD_HIGH, 1 << 63, place)
