"""The recorder plugin by itself: what it reports for a store, and what it goes on watching."""

from __future__ import annotations

import random

import pytest

from decoders.events import Role
from tests.tools.guest_tables import (
    CONTEXT_GLOBAL,
    GCMD,
    IOTLB,
    IOTLB_GLOBAL,
    IQA,
    IQT,
    IRTA,
    IVA,
    PASID_GLOBAL,
    QIE,
    RTADDR,
    SCALABLE,
    SIRTP,
    SRTP,
    Make,
    iotlb_domain,
    iotlb_page,
    legacy,
    page,
    pasid_iotlb,
    queue,
    reachable,
)


def test_begins_with_the_grammar(make: Make) -> None:
    assert make().lines == ["dmr begin 1"]


def test_tables_are_shown_deepest_first(make: Make) -> None:
    host = make()
    legacy(host)
    shown = [line.split()[2:5] for line in host.lines if line.startswith("dmr snap")]
    assert shown == [
        ["5000", "5", "1"],
        ["4000", "5", "2"],
        ["3000", "5", "3"],
        ["2000", "1", "0"],
        ["1000", "0", "0"],
    ]


def test_nothing_is_watched_before_the_root_is_latched(make: Make) -> None:
    host = make()
    host.register(RTADDR, page(1), 8)
    host.store(page(1), page(2) | 1)
    assert host.lines[1:] == ["dmr reg 20 8 1000"]


def test_a_leaf_page_is_not_a_table(make: Make) -> None:
    host = make()
    legacy(host)
    assert page(9) not in host.watched
    host.store(page(4) + 8, page(10) | 0x83)  # 2 MiB leaf
    assert page(10) not in host.watched
    host.store(page(4) + 8, page(10) | 3)
    assert host.roles[page(10)] == {(Role.SECOND_STAGE, 1)}


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_store_is_told_as_its_quadword(make: Make, size: int) -> None:
    host = make()
    legacy(host)
    host.store(page(5) + 16, 0x1122_3344_5566_7788)
    assert host.store(page(5) + 16, 0xAB, size) == [
        f"dmr st 5010 8 {(0x1122334455667788 >> 8 * size << 8 * size) | 0xAB:x}"
    ]


def test_a_store_over_two_quadwords_is_told_as_both(make: Make) -> None:
    host = make()
    legacy(host)
    assert host.store(page(5) + 12, 0x1111_2222_3333_4444) == [
        "dmr st 5008 8 3333444400000000",
        "dmr st 5010 8 11112222",
    ]
    assert host.store(page(5) + 32, 7 | 9 << 64, 16) == ["dmr st 5020 8 7", "dmr st 5028 8 9"]


def test_a_store_over_two_pages_is_told_where_each_is_watched(make: Make) -> None:
    host = make()
    legacy(host)
    lines = host.store(page(5) + 4092, 0x1111_2222_3333_4444, 8, other_page=page(30))
    assert lines == ["dmr st 5ff8 8 3333444400000000"]
    lines = host.store(page(30) + 4092, 0x1111_2222_3333_4444, 8, other_page=page(5))
    assert lines == ["dmr st 5000 8 11112222"]
    lines = host.store(page(4) + 4092, 0x1111_2222_3333_4444, 8, other_page=page(5))
    assert lines == ["dmr st 4ff8 8 3333444400000000", "dmr st 5000 8 11112222"]


def test_an_unlinked_table_is_watched_until_an_invalidation_covers_it(make: Make) -> None:
    host = make()
    legacy(host)
    queue(host)
    host.store(page(4), 0)
    assert host.store(page(5), 0) == ["dmr st 5000 8 0"]
    for harmless in (
        CONTEXT_GLOBAL,
        iotlb_domain(6),
        iotlb_page(5, 1 << 21, 9),
        iotlb_page(5, 0, 9, leaf_only=True),
        (0x25 | 1 << 32, page(40)),  # wait
    ):
        assert not any("rel" in line for line in queue(host, harmless))
    assert "dmr rel 5000" in queue(host, iotlb_page(5, 0, 0))
    assert host.store(page(5), 3) == []


@pytest.mark.parametrize("how", [iotlb_domain(5), IOTLB_GLOBAL, iotlb_page(5, 0, 18)])
def test_each_invalidation_that_covers_releases(make: Make, how: tuple[int, int]) -> None:
    host = make()
    legacy(host)
    queue(host)
    host.store(page(3), 0)
    assert {"dmr rel 4000", "dmr rel 5000"} <= set(queue(host, how))


def test_register_based_invalidation_releases(make: Make) -> None:
    host = make()
    legacy(host)
    host.store(page(4), 0)
    host.register(IVA, 0, 8)
    assert "dmr rel 5000" in host.register(IOTLB, 1 << 63 | 3 << 60 | 5 << 32, 8)


def test_a_context_entry_needs_two_invalidations_in_order(make: Make) -> None:
    host = make()
    legacy(host)
    queue(host)
    host.store(page(2), 0)
    queue(host, iotlb_domain(5))
    assert page(3) in host.watched
    queue(host, (0x31 | 5 << 16, 0))
    assert page(3) in host.watched
    queue(host, iotlb_domain(5))
    assert page(3) not in host.watched and page(5) not in host.watched
    assert page(2) in host.watched


def test_a_table_linked_again_is_shown_again_and_stays(make: Make) -> None:
    host = make()
    legacy(host)
    queue(host)
    host.store(page(4), 0)
    host.store(page(5), page(12) | 3)
    lines = host.store(page(4) + 8, page(5) | 3)
    assert [line.split()[1] for line in lines] == ["snap", "st"]
    queue(host, IOTLB_GLOBAL)
    assert page(5) in host.watched
    host.store(page(4) + 8, 0)
    queue(host, iotlb_page(5, 0, 0))
    assert page(5) in host.watched
    queue(host, iotlb_page(5, 1 << 21, 0))  # where the entry was that is gone
    assert page(5) not in host.watched


def test_what_a_stale_table_points_to_is_watched(make: Make) -> None:
    host = make()
    legacy(host)
    queue(host)
    host.store(page(3), 0)  # cuts off 4, which the unit may have cached
    host.store(page(4) + 16, page(11) | 3)
    assert page(11) in host.watched
    queue(host, IOTLB_GLOBAL)
    assert page(11) not in host.watched


def test_a_page_may_be_its_own_table(make: Make) -> None:
    host = make()
    legacy(host)
    host.store(page(3) + 8, page(3) | 3)
    # Entry 1 of the level 2 table, which the page now is too, makes it a level 1 table as well.
    assert host.roles[page(3)] == {(5, 3), (5, 2), (5, 1)}
    host.store(page(2), 0)
    queue(host, CONTEXT_GLOBAL, IOTLB_GLOBAL)
    assert set(host.watched) == {page(1), page(2), page(20)}


def test_shared_tables_are_released_once(make: Make) -> None:
    host = make()
    legacy(host)
    host.store(page(2) + 16 + 8, 6 << 8 | 1)
    host.store(page(2) + 16, page(3) | 1)
    host.store(page(2), 0)
    queue(host, CONTEXT_GLOBAL, IOTLB_GLOBAL)
    assert page(5) in host.watched
    host.store(page(2) + 16, 0)
    queue(host, CONTEXT_GLOBAL, IOTLB_GLOBAL)
    assert page(3) not in host.watched and page(5) not in host.watched


def test_scalable_mode(make: Make) -> None:
    host = make()
    # Upper half of the bus: device 0x10.0, 4 pages of directory (PDTS 4), PASID 0x18041.
    host.store(page(1) + 8, page(2) | 1)
    host.store(page(2), page(32) | 4 << 9 | 1)
    host.store(page(35) + 8, page(6) | 1)
    entry = page(6) + 64
    host.store(entry + 8, 7)
    host.store(entry + 16, page(7) | 1 << 2)  # 5 levels
    host.store(entry, page(8) | 2 << 2 | 3 << 6 | 1)  # nested, second stage of 4 levels
    host.register(RTADDR, page(1) | SCALABLE, 8)
    host.register(GCMD, SRTP)
    assert {address: next(iter(roles)) for address, roles in host.roles.items()} == {
        page(1): (Role.ROOT, 0),
        page(2): (Role.SCALABLE_CONTEXT, 0),
        page(32): (Role.PASID_DIRECTORY, 0),
        page(33): (Role.PASID_DIRECTORY, 0),
        page(34): (Role.PASID_DIRECTORY, 0),
        page(35): (Role.PASID_DIRECTORY, 0),
        page(6): (Role.PASID_TABLE, 0),
        page(7): (Role.FIRST_STAGE, 5),
        page(8): (Role.SECOND_STAGE, 4),
    }
    host.store(entry, 0)
    queue(host, IOTLB_GLOBAL, PASID_GLOBAL, wide=True)
    assert page(7) in host.watched
    queue(host, pasid_iotlb(7, 0x1_8041), wide=True)
    assert page(7) not in host.watched and page(8) in host.watched
    queue(host, iotlb_domain(7), wide=True)
    assert page(7) not in host.watched and page(8) not in host.watched


def test_the_queue_is_watched_while_it_is_enabled(make: Make) -> None:
    host = make()
    host.register(IQA, page(20) | 1, 8)
    host.register(GCMD, QIE)
    assert host.roles == {page(20): {(Role.QUEUE, 0)}, page(21): {(Role.QUEUE, 0)}}
    assert host.store(page(21) + 8, 5) == ["dmr st 15008 8 5"]
    assert host.store(page(21) + 8, 5) == []  # Linux copies descriptors with overlapping stores
    host.register(GCMD, 0)
    assert host.watched == {}


@pytest.mark.parametrize(("size", "count"), [(0, 1), (7, 1), (8, 2), (9, 4)])
def test_the_interrupt_table_is_watched_once_it_is_latched(
    make: Make, size: int, count: int
) -> None:
    host = make()
    host.store(page(24), 1)
    host.register(IRTA, page(24) | size, 8)
    assert host.watched == {}
    host.register(GCMD, SIRTP)
    table = {page(24 + number): {(Role.INTERRUPT_TABLE, 0)} for number in range(count)}
    assert host.roles == table
    assert host.store(page(24) + 8, 5) == ["dmr st 18008 8 5"]
    host.register(IRTA, page(30), 8)
    assert host.roles == table
    host.register(GCMD, SIRTP)
    assert host.roles == {page(30): {(Role.INTERRUPT_TABLE, 0)}}


def test_a_reset_forgets_everything(make: Make) -> None:
    host = make()
    legacy(host)
    queue(host)
    host.execute(0x1000)
    assert host.watched
    host.execute(0xFFFF_FFF0)
    assert host.watched == {}
    assert host.store(page(1), 1) == []
    legacy(host)
    assert page(5) in host.watched


def test_registers_are_seen_below_the_end_of_ram(make: Make) -> None:
    host = make(1, at=1 << 32)
    assert host.register(GCMD, 5) == ["dmr reg 18 4 5"]


def test_loads_of_registers_are_told_when_asked(make: Make) -> None:
    assert make(4).load(0xFED9_001C, 0x8000_0000, 4) == []
    host = make(4, "reads=on")
    assert host.load(0xFED9_001C, 0x8000_0000, 4) == ["dmr rd 1c 4 80000000"]
    assert host.load(0x1000, 5, 4) == []


def test_a_wrong_ram_map_is_noticed(make: Make) -> None:
    host = make(1024)
    lines: list[str] = []
    for step in range(4096):
        address = 0x100000 + step * 8
        lines += host.store(address, step + 1)
        if step == 100:
            host.at = 1 << 40  # from here on stores do not arrive in the file
    assert [line for line in lines if "lost" in line] == [
        "dmr lost ram map does not match what the guest stores; check ram= and map="
    ]


def test_too_many_tables_are_given_up(make: Make) -> None:
    host = make(64, "pages=3")
    legacy(host)
    assert sum("dmr lost" in line for line in host.lines) == 1


@pytest.mark.parametrize(
    "argument", ["map=0", "map=1:2:3", "map=", "base=", "haw=99", "reads=maybe", "pages=0", "x"]
)
def test_arguments_that_make_no_sense_are_refused(
    make: Make, argument: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert make(4, argument).status != 0
    assert argument in capfd.readouterr().err


# ---- the graph against a walk from scratch ----

ARENA = 24


@pytest.mark.parametrize("seed", range(12))
def test_random_stores_keep_exactly_what_is_reachable(make: Make, seed: int) -> None:
    chance = random.Random(seed)
    scalable = bool(seed % 2)
    host = make(64)
    queue(host, wide=True, at=50)
    root: int | None = None

    def pointer() -> int:
        target = page(chance.randrange(ARENA))
        flags = chance.choice((1, 3, 3, 1 | 1 << 2, 1 | 2 << 6 | 1 << 2, 1 | 1 << 6, 3 << 6 | 9))
        return chance.choice((0, 0, target | flags, target | flags, target | flags | 0x80))

    for step in range(300):
        for _ in range(chance.randrange(1, 4)):
            index = chance.choice((0, 1, 2, 3, 8, 9, 10, 16, 511))
            size = chance.choice((8, 8, 8, 4, 16 if index % 2 == 0 else 8))
            value = pointer() | (pointer() | chance.randrange(4) << 8) << 64
            address = page(chance.randrange(ARENA)) + 8 * index
            host.store(address, value & (1 << 8 * size) - 1, size)
        if chance.random() < 0.05 or root is None:
            root = page(chance.randrange(ARENA))
            host.register(RTADDR, root | (SCALABLE if scalable else 0), 8)
            host.register(GCMD, SRTP | QIE)
        seen = reachable(host, [(root, "root", 0)], scalable, ARENA)
        assert {address for address, _, _ in seen} <= set(host.watched), (seed, step)
        for address, content in host.watched.items():
            assert content == host.ram[address : address + 4096], (seed, step, hex(address))
        if chance.random() < 0.1:
            # A queue begins at its first descriptor whenever it is enabled. The PASID cache has no
            # register.
            host.register(GCMD, 0)
            host.register(IQT, 0)
            host.register(GCMD, QIE)
            for index, (low, high) in enumerate((CONTEXT_GLOBAL, PASID_GLOBAL, IOTLB_GLOBAL)):
                host.store(page(50) + 32 * index, low)
                host.store(page(50) + 32 * index + 8, high)
            host.register(IQT, 96)
            wanted = {address for address, _, _ in seen} | {page(50)}
            assert set(host.watched) == wanted, (seed, step)
