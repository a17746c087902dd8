"""When the recorder gives a page up: never before the unit has certainly forgotten it."""

from __future__ import annotations

import pytest

from tests.tools.guest_tables import (
    CCMD,
    CONTEXT_GLOBAL,
    FSTS,
    GCMD,
    IOTLB,
    IOTLB_GLOBAL,
    IQA,
    IQT,
    PASID_GLOBAL,
    QIE,
    QUEUE,
    RTADDR,
    SCALABLE,
    SRTP,
    WIDE,
    Descriptor,
    Make,
    context_device,
    context_domain,
    iotlb_domain,
    iotlb_page,
    legacy,
    page,
    pasid_cache,
    pasid_iotlb,
    pasid_iotlb_page,
    queue,
    released,
    scalable,
    watched,
)

TWO_PASIDS = {1: (7, 8), 2: (9, 10)}
IQE = 1 << 4


# ---- tags ----


def test_a_pasid_is_forgotten_by_its_own_invalidations(make: Make) -> None:
    host = make()
    scalable(host, TWO_PASIDS)
    queue(host, wide=True)
    host.store(page(6) + 64, 0)
    others = (pasid_cache(1, 2), pasid_iotlb(1, 2), pasid_cache(2, 1), pasid_iotlb(2, 1))
    assert not released(queue(host, *others, wide=True))
    # In order: a translation may be cached for as long as the PASID entry is.
    assert not released(queue(host, pasid_iotlb(1, 1), pasid_cache(1, 1), wide=True))
    assert not released(queue(host, pasid_iotlb(1, 2), iotlb_page(1, 0, 18), wide=True))
    assert released(queue(host, pasid_iotlb(1, 1), wide=True)) == {7, 8}
    assert {9, 10} < watched(host)


@pytest.mark.parametrize(
    "how",
    [
        [pasid_cache(1), iotlb_domain(1)],
        [PASID_GLOBAL, IOTLB_GLOBAL],
        [pasid_cache(1, 1), pasid_iotlb_page(1, 1, 0, 0)],
    ],
)
def test_wider_invalidations_cover_a_pasid(make: Make, how: list[Descriptor]) -> None:
    host = make()
    scalable(host, TWO_PASIDS)
    queue(host, wide=True)
    host.store(page(6) + 64, 0)
    assert released(queue(host, *how, wide=True)) == {7, 8}


def test_a_first_stage_page_is_forgotten_by_its_pasid(make: Make) -> None:
    host = make()
    scalable(host, TWO_PASIDS)
    queue(host, wide=True)
    host.store(page(7), 0)
    harmless = (pasid_iotlb_page(1, 2, 0, 0), pasid_iotlb_page(1, 1, 1 << 39, 0))
    assert not released(queue(host, *harmless, iotlb_page(1, 0, 0), wide=True))
    assert released(queue(host, pasid_iotlb_page(1, 1, 1 << 38, 0), wide=True)) == {8}


def test_tables_that_two_pasids_share_need_both_or_all(make: Make) -> None:
    host = make()
    scalable(host, {1: (7, 8), 2: (7, 8)})
    queue(host, wide=True)
    host.store(page(7), 0)
    assert not released(queue(host, pasid_iotlb(1, 1), pasid_iotlb(1, 2), wide=True))
    assert released(queue(host, iotlb_domain(1), wide=True)) == {8}


def test_a_device_in_scalable_mode_leaves(make: Make) -> None:
    host = make()
    scalable(host, TWO_PASIDS)
    queue(host, wide=True)
    host.store(page(2), 0)
    harmless = (context_device(0, 8), context_domain(0), context_domain(1))
    assert not released(queue(host, *harmless, PASID_GLOBAL, IOTLB_GLOBAL, wide=True))
    # Nothing but entries of the PASID table can be cached after this.
    assert released(queue(host, context_device(0, 0), wide=True)) == {32, 6}
    assert released(queue(host, pasid_cache(1, 2), pasid_iotlb(1, 2), wide=True)) == {9, 10}
    assert released(queue(host, pasid_cache(1, 1), pasid_iotlb(1, 1), wide=True)) == {7, 8}


def test_a_bus_of_unknown_domains_needs_a_global_invalidation(make: Make) -> None:
    host = make()
    legacy(host)
    queue(host)
    host.store(page(1), 0)
    harmless = (context_domain(77), iotlb_domain(77), context_device(5, 0), iotlb_domain(5))
    assert not released(queue(host, *harmless))
    assert released(queue(host, CONTEXT_GLOBAL)) == {2}
    assert not released(queue(host, iotlb_domain(77)))
    assert released(queue(host, iotlb_domain(5))) == {3, 4, 5}


@pytest.mark.parametrize(
    ("command", "gone"),
    [
        (context_device(5, 1), False),
        (context_device(6, 0), False),
        (context_domain(6), False),
        (context_device(5, 4), False),
        (context_device(5, 4, 1), True),
        (context_device(5, 0), True),
        (context_domain(5), True),
    ],
)
def test_a_context_entry_is_of_a_device_and_a_domain(
    make: Make, command: Descriptor, gone: bool
) -> None:
    host = make()
    legacy(host)
    queue(host)
    host.store(page(2), 0)
    assert bool(released(queue(host, command, iotlb_domain(5)))) == gone


def test_tables_of_two_domains_need_a_global_invalidation(make: Make) -> None:
    host = make()
    legacy(host)
    host.store(page(2) + 16 + 8, 6 << 8 | 1)
    host.store(page(2) + 16, page(3) | 1)
    queue(host)
    host.store(page(4), 0)
    assert not released(queue(host, iotlb_domain(5), iotlb_domain(6), iotlb_page(5, 0, 0)))
    assert released(queue(host, IOTLB_GLOBAL)) == {5}


def test_each_table_needs_the_addresses_it_serves(make: Make) -> None:
    host = make()
    legacy(host)
    host.store(page(4) + 8, page(6) | 3)
    queue(host)
    host.store(page(3), 0)
    # The second entry of the level 2 table may still be cached.
    assert released(queue(host, iotlb_page(5, 0, 0))) == {4, 5}
    assert released(queue(host, iotlb_page(5, 1 << 21, 0))) == {6}


# ---- what the unit did not execute ----


@pytest.mark.parametrize(
    "bad",
    [
        (0xF, 0),
        (0, 0),
        (0x205, 0),  # an upper bit of the type
        (0x12 | 1 << 40, 0),  # reserved
        (0x11, 1),  # reserved
        (0x02, 0),  # no granularity
        (0x01, 0),
        iotlb_page(5, 0, 19),
        pasid_iotlb(5, 0),  # of 256 bits
    ],
)
def test_nothing_behind_a_bad_descriptor_counts(make: Make, bad: Descriptor) -> None:
    host = make()
    legacy(host)
    queue(host)
    host.store(page(4), 0)
    assert not released(queue(host, bad, IOTLB_GLOBAL))
    # The guest mends it and clears the error; the unit goes on when the tail moves.
    host.store(page(QUEUE), 0x5)
    host.store(page(QUEUE) + 8, 0)
    host.register(FSTS, 0xEF)
    assert not released(host.register(IQT, 32))
    host.register(FSTS, IQE)
    assert released(host.register(IQT, 32)) == {5}


def test_a_256_bit_descriptor_has_an_empty_upper_half(make: Make) -> None:
    host = make()
    legacy(host)
    queue(host, wide=True)
    host.store(page(4), 0)
    host.store(page(QUEUE) + 24, 1)
    assert not released(queue(host, IOTLB_GLOBAL, IOTLB_GLOBAL, wide=True))


@pytest.mark.parametrize(("wide", "tail"), [(False, 4096), (True, 48)])
def test_a_tail_that_is_not_in_the_queue_stops_it(make: Make, wide: bool, tail: int) -> None:
    host = make()
    legacy(host)
    queue(host, wide=wide)
    host.store(page(4), 0)
    for slot in range(4):
        host.store(page(QUEUE) + slot * 16, IOTLB_GLOBAL[0])
    assert not released(host.register(IQT, tail))
    assert not released(host.register(IQT, 32))


def test_the_queue_stays_where_it_was_enabled(make: Make) -> None:
    host = make()
    legacy(host)
    queue(host)
    queue(host, (0x5, 0))
    host.store(page(21), IOTLB_GLOBAL[0])
    host.store(page(21) + 16, IOTLB_GLOBAL[0])
    host.store(page(4), 0)
    assert not host.register(IQA, page(21), 8)[1:]
    assert watched(host) >= {QUEUE} and 21 not in watched(host)
    assert released(queue(host, IOTLB_GLOBAL)) == {5}
    host.register(GCMD, 0)
    host.register(IQT, 0)
    host.register(GCMD, QIE)
    assert watched(host) >= {21} and QUEUE not in watched(host)


def test_a_queue_whose_width_may_have_changed_is_not_followed(make: Make) -> None:
    host = make()
    legacy(host)
    queue(host)
    host.store(page(4), 0)
    host.register(IQA, page(QUEUE) | WIDE, 8)
    assert not released(queue(host, IOTLB_GLOBAL))


def test_the_registers_do_nothing_while_there_is_a_queue(make: Make) -> None:
    host = make()
    legacy(host)
    queue(host)
    host.store(page(2), 0)
    host.register(CCMD, 1 << 63 | 1 << 61, 8)
    assert not released(host.register(IOTLB, 1 << 63 | 1 << 60, 8))
    host.register(GCMD, 0)
    host.register(CCMD, 1 << 63 | 1 << 61, 8)
    assert released(host.register(IOTLB, 1 << 63 | 1 << 60, 8)) == {3, 4, 5}


# ---- how much is remembered ----


def test_equal_drops_are_one(make: Make) -> None:
    host = make()
    legacy(host)
    for _ in range(10_000):  # more than there is room for
        host.store(page(4), 0)
        host.store(page(4), page(5) | 3)
    host.store(page(4), 0)
    queue(host)
    assert not released(queue(host, iotlb_domain(6)))
    assert released(queue(host, iotlb_domain(5))) == {5}


def test_drops_beyond_the_limit_wait_for_a_global_invalidation(make: Make) -> None:
    host = make(8192)
    count = 6000  # the list has 4096
    host.store(page(1), page(2) | 1)
    host.store(page(2) + 8, 5 << 8 | 2)
    host.store(page(2), page(3) | 1)
    host.register(RTADDR, page(1), 8)
    host.register(GCMD, SRTP)
    for table in range(count):
        level3, level2 = page(30 + table // 512), page(50 + table // 512)
        if table % 512 == 0:
            host.store(page(3) + table // 512 * 8, level3 | 3)
            host.store(level3, level2 | 3)
        host.store(level2 + table % 512 * 8, page(100 + table) | 3)
    for table in range(count):
        host.store(page(50 + table // 512) + table % 512 * 8, 0)
    queue(host)
    assert len(released(queue(host, iotlb_domain(5)))) == 4096
    assert released(queue(host, IOTLB_GLOBAL)) == set(range(100 + 4096, 100 + count))
    host.store(page(3), 0)
    assert released(queue(host, iotlb_domain(5))) == {30, 50}


def test_held_pages_of_a_device_in_scalable_mode(make: Make) -> None:
    host = make(8192)
    scalable(host, {})
    for number in range(5000):  # as many PASIDs, each with a table of one page
        host.store(page(32) + number // 64 * 8, page(40 + number // 64) | 1)
        entry = page(40 + number // 64) + number % 64 * 64
        host.store(entry + 16, page(200 + number))
        host.store(entry, 1 << 6 | 1)
    host.register(RTADDR, page(1) | SCALABLE, 8)
    queue(host, wide=True)
    host.store(page(2), 0)
    assert released(queue(host, context_device(0, 0), wide=True)) >= {32, 40, 118}
    assert 4000 < len(released(queue(host, PASID_GLOBAL, iotlb_domain(0), wide=True))) <= 4096
    assert not released(queue(host, iotlb_domain(0), wide=True))
    queue(host, IOTLB_GLOBAL, wide=True)
    assert watched(host) == {1, 2, QUEUE}
