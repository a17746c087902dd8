"""Every fault reason has a request that gets it, and the few that have none are named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from decoders.events import NO_ATTRIBUTES, AccessKind, Attribute, Outcome
from decoders.vtd.faults import Reason
from harness.model.config import Updates
from tests.harness.unit.conftest import MakePlatform
from tests.writers.nested import GUEST, nested
from tests.writers.platform import EXECUTE, OUTSIDE, READ, WRITE, Platform, fault

HOST = 0x20_0000
INTERRUPTS = {reason for reason in Reason if 0x20 <= reason <= 0x28}
"""Reasons of interrupt requests: tests/harness/unit/test_interrupts.py."""
PAGE_REQUESTS = {Reason.LEGACY_MODE_PAGE_REQUEST, Reason.SM_PAGE_REQUEST_DISABLED}
"""Reasons of page requests: tests/harness/unit/test_page_requests.py."""
UNREACHABLE = {
    Reason.INTERRUPT_RANGE_REQUEST: "the condition is not known",
    Reason.SM_CONTEXT_INVALID: "the condition is not known: other codes check every field",
    Reason.ROOT_TABLE_ADDRESS_4: "the condition is not known",
    Reason.SM_GENERAL_9: "the condition is not known",
    Reason.SM_GENERAL_10: "the condition is not known",
}

Prepare = Callable[[Platform], None]


def legacy(levels: int = 4, leaf: int = HOST, **fields: int) -> Prepare:
    """Map a page in legacy mode; fields are of its context entry, or r and w of the page."""
    rights = {name: fields.pop(name) for name in ("r", "w") if name in fields}
    return lambda p: void(p.legacy(levels=levels, **fields).map(0x1000, leaf, **rights))


def first(leaf: int = HOST, **fields: int) -> Prepare:
    """Map a page of PASID 1 in a first stage; us and rw are of the page."""
    rights = {name: fields.pop(name) for name in ("us", "rw") if name in fields}
    return lambda p: void(p.first_stage(1, **fields).map(0x1000, leaf, **rights))


def second(leaf: int = HOST, **fields: int) -> Prepare:
    """Map a page of PASID 1 in a second stage; r and w are of the page."""
    rights = {name: fields.pop(name) for name in ("r", "w") if name in fields}
    return lambda p: void(p.second_stage(1, **fields).map(0x1000, leaf, **rights))


def two_stages(level: int = 0, **change: int) -> Prepare:
    """Map a page of PASID 1 in both, then change what the second says of a table, or the page."""

    def prepare(platform: Platform) -> None:
        space = nested(platform)
        space.map(0x1000, HOST)
        where = space.tables(0x1000)[4 - level] if level else GUEST + 0x1000
        space.second.change(where, **change)

    return prepare


def void(_: object) -> None:
    """Take no notice of where an entry lies."""


def bit(number: int, at: Callable[[Platform], int]) -> Prepare:
    """Set a bit of the quadword at a place."""
    return lambda p: p.store(at(p), p.load(at(p)) | 1 << number)


def both(*steps: Prepare) -> Prepare:
    """Do one after the other."""

    def prepare(platform: Platform) -> None:
        for step in steps:
            step(platform)

    return prepare


def root_at(address: int, mode: int) -> Prepare:
    """Put the root table somewhere."""

    def prepare(platform: Platform) -> None:
        platform.set_root(address, mode)
        platform.command(te=1)

    return prepare


def contexts_outside(mode: int) -> Prepare:
    """Let the root entry lead out of the RAM."""

    def prepare(platform: Platform) -> None:
        platform.start(mode)
        platform.store(platform.root, OUTSIDE | 1)

    return prepare


ATS = Attribute.TRANSLATION_REQUEST
Case = tuple[Prepare, int | None, AccessKind, Attribute, int, dict[str, int]]


def case(
    prepare: Prepare,
    kind: AccessKind = READ,
    *,
    pasid: int | None = None,
    attributes: Attribute = NO_ATTRIBUTES,
    iova: int = 0x1000,
    **options: int,
) -> Case:
    """Say what to prepare, what to ask for, and what of the unit is not as usual."""
    return prepare, pasid, kind, attributes, iova, options


CASES: dict[Reason, Case] = {
    Reason.ROOT_NOT_PRESENT: case(lambda p: p.start(0)),
    Reason.CONTEXT_NOT_PRESENT: case(lambda p: void(p.context(p=0))),
    Reason.CONTEXT_INVALID: case(lambda p: void(p.context(aw=0))),
    Reason.ADDRESS_BEYOND_WIDTH: case(legacy(levels=3), iova=1 << 39),
    Reason.NO_WRITE: case(legacy(w=0), WRITE),
    Reason.NO_READ: case(legacy(r=0)),
    Reason.SECOND_STAGE_ACCESS: case(lambda p: void(p.context(ssptptr=OUTSIDE >> 12)), ram=1),
    Reason.ROOT_ACCESS: case(root_at(OUTSIDE, 0), ram=1),
    Reason.CONTEXT_ACCESS: case(contexts_outside(0), ram=1),
    Reason.ROOT_RESERVED: case(both(legacy(), bit(1, lambda p: p.root))),
    Reason.CONTEXT_RESERVED: case(both(legacy(), bit(4, lambda p: p.context_of()))),
    Reason.SECOND_STAGE_RESERVED: case(legacy(leaf=1 << 51)),
    Reason.REQUEST_TYPE_BLOCKED: case(legacy(tt=0), attributes=ATS),
    Reason.INTERRUPT_RANGE: case(legacy(leaf=0xFEE0_0000)),
    Reason.ROOT_TABLE_ADDRESS: case(root_at(0x1000, 2)),
    Reason.LEGACY_MODE_PASID: case(legacy(), pasid=1),
    Reason.SM_ROOT_ACCESS: case(root_at(OUTSIDE, 1), ram=1),
    Reason.SM_ROOT_NOT_PRESENT: case(lambda p: p.start(1)),
    Reason.SM_ROOT_RESERVED: case(both(first(), bit(1, lambda p: p.root)), pasid=1),
    Reason.SM_CONTEXT_ACCESS: case(contexts_outside(1), ram=1),
    Reason.SM_CONTEXT_NOT_PRESENT: case(lambda p: void(p.scalable_context(p=0))),
    Reason.SM_CONTEXT_RESERVED: case(both(first(), bit(5, lambda p: p.contexts[0] + 32 * 0x18))),
    Reason.SM_DEVICE_TLB_DISABLED: case(first(), pasid=1, attributes=ATS),
    Reason.SM_PASID_DISABLED: case(lambda p: void(p.scalable_context(paside=0)), pasid=1),
    Reason.SM_PASID_BEYOND_DIRECTORY: case(
        lambda p: void(p.scalable_context(pdts=0)), pasid=1 << 13
    ),
    Reason.SM_RID_PASID_BEYOND_DIRECTORY: case(
        lambda p: void(p.scalable_context(pdts=0, rid_pasid=1 << 13))
    ),
    Reason.PASID_DIRECTORY_ACCESS: case(
        lambda p: void(p.scalable_context(pasiddirptr=OUTSIDE >> 12)), ram=1
    ),
    Reason.PASID_DIRECTORY_NOT_PRESENT: case(lambda p: void(p.scalable_context())),
    Reason.PASID_DIRECTORY_RESERVED: case(
        both(first(), bit(2, lambda p: p.directories[0x18])), pasid=1
    ),
    Reason.PASID_ACCESS: case(lambda p: void(p.directory_entry(smptblptr=OUTSIDE >> 12)), ram=1),
    Reason.PASID_NOT_PRESENT: case(lambda p: void(p.pasid_entry(p=0))),
    Reason.PASID_RESERVED: case(lambda p: bit(10, lambda _: p.pasid_entry(pgtt=4))(p)),
    Reason.PASID_INVALID: case(lambda p: void(p.pasid_entry(pgtt=0))),
    Reason.PASID_EXECUTE_DISABLED: case(first(), EXECUTE, pasid=1),
    Reason.PASID_SUPERVISOR_DISABLED: case(first(), pasid=1, attributes=Attribute.PRIVILEGED),
    Reason.FS_ACCESS: case(
        lambda p: p.store(p.first_stage(1).entry(0x1000, 4), OUTSIDE | 7), pasid=1, ram=1
    ),
    Reason.FS_NOT_PRESENT: case(first(), pasid=1, iova=0x2000),
    Reason.FS_RESERVED: case(first(leaf=1 << 51), pasid=1),
    Reason.FS_ROOT_ACCESS: case(
        lambda p: void(p.pasid_entry(1, pgtt=1, fsptptr=OUTSIDE >> 12)), pasid=1, ram=1
    ),
    Reason.FS_TABLE_BEYOND_SECOND_STAGE: case(
        lambda p: void(nested(p, host_levels=3, fsptptr=1 << 27)), pasid=1
    ),
    Reason.FS_ROOT_NO_READ: case(two_stages(4, r=0), pasid=1),
    Reason.FS_TABLE_NO_READ: case(two_stages(1, r=0), pasid=1),
    Reason.FS_TABLE_NO_WRITE: case(two_stages(1, w=0), pasid=1),
    Reason.SM_SS_ACCESS: case(
        lambda p: p.store(p.second_stage(1).entry(0x1000, 4), OUTSIDE | 3), pasid=1, ram=1
    ),
    Reason.SM_SS_NOT_PRESENT: case(two_stages(r=0, w=0), pasid=1),
    Reason.SM_SS_RESERVED: case(second(leaf=1 << 51), pasid=1),
    Reason.SM_SS_ROOT_ACCESS: case(
        lambda p: void(p.pasid_entry(1, pgtt=2, aw=2, ssptptr=OUTSIDE >> 12)), pasid=1, ram=1
    ),
    Reason.SM_SS_NOT_SNOOPED: case(second(ssade=1), pasid=1, updates=Updates.NOT_SNOOPED),
    Reason.SM_SS_UPDATE_FAILED: case(second(ssade=1), pasid=1, updates=Updates.FAILING),
    Reason.FS_NOT_CANONICAL: case(first(), pasid=1, iova=1 << 47),
    Reason.FS_USER: case(first(us=0), pasid=1),
    Reason.SM_NO_EXECUTE: case(second(ere=1, ssee=1), EXECUTE, pasid=1),
    Reason.PASS_THROUGH_BEYOND_WIDTH: case(
        lambda p: void(p.pasid_entry(1, pgtt=4)), pasid=1, iova=1 << 46
    ),
    Reason.SM_SS_BEYOND_WIDTH: case(second(levels=3), pasid=1, iova=1 << 39),
    Reason.SM_NO_WRITE: case(two_stages(w=0), WRITE, pasid=1),
    Reason.SM_NO_READ: case(two_stages(r=0), pasid=1),
    Reason.SM_INTERRUPT_RANGE: case(first(leaf=0xFEE0_0000), pasid=1),
    Reason.FS_NOT_SNOOPED: case(first(), pasid=1, updates=Updates.NOT_SNOOPED),
    Reason.FS_UPDATE_FAILED: case(first(), pasid=1, updates=Updates.FAILING),
}


def test_every_reason_is_here() -> None:
    assert set(Reason) - set(CASES) - INTERRUPTS - PAGE_REQUESTS == set(UNREACHABLE)


@pytest.mark.parametrize("reason", CASES, ids=lambda reason: f"{reason:#04x}")
def test_reason(make_platform: MakePlatform, reason: Reason) -> None:
    prepare, pasid, kind, attributes, iova, options = CASES[reason]
    platform = make_platform(**({"nest": 1, "srs": 1, "mgaw": 56} | options))
    prepare(platform)
    answer: Outcome = platform.request(iova, kind, pasid=pasid, attributes=attributes).taken
    assert answer == fault(reason)
