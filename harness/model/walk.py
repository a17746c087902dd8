"""The page walk: one loop over geometry, with the checks of either stage as a rule object.

A nested walk (VT-d specification 3.8) is the same loop: each first-stage table address, and what
the leaf says, is put through the second stage before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from decoders.events import AccessKind, Fault, Outcome, Role, Translation
from decoders.vtd.faults import Reason
from decoders.vtd.interrupt import INTERRUPT_FIRST, INTERRUPT_LAST
from decoders.vtd.paging import ENTRY_SIZE, LARGEST_LEAF, entry_index, page_mask
from harness.memory import Memory
from harness.model.config import UnitConfig
from harness.model.stages import (
    ADDRESS_MASK,
    ALL_RIGHTS,
    DIRTY,
    PS_MASK,
    PagingRoot,
    Rights,
    stage_of,
)

ALL_ONES = (1 << 64) - 1


class Step(NamedTuple):
    """One entry (or one quadword of an entry) that was read on the way."""

    role: Role
    level: int
    address: int
    value: int


class NonLeaf(NamedTuple):
    """One table entry that led on: what a paging-structure cache may keep.

    child is where the table lies: behind the second stage in a nested walk.
    """

    step: Step
    child: int
    rights: Rights


class Update(NamedTuple):
    """Bits that the unit sets in a quadword."""

    address: int
    bits: int


@dataclass(frozen=True, slots=True)
class WalkResult:
    """The outcome of one walk and what it saw; updates are A/D bits still to be set.

    below are the second-stage walks of a nested one, in their order.
    """

    outcome: Outcome
    rights: Rights
    steps: tuple[Step, ...]
    nonleaf: tuple[NonLeaf, ...] = ()
    updates: tuple[Update, ...] = ()
    below: tuple[Below, ...] = ()

    @property
    def leaf_steps(self) -> tuple[Step, ...]:
        """Return the steps without those second-stage ones that only led to tables."""
        if not self.below:
            return self.steps
        own = tuple(step for step in self.steps if step.role == Role.FIRST_STAGE)
        return own + self.below[-1].result.steps


class Below(NamedTuple):
    """One walk of the second stage for an address of the first."""

    root: PagingRoot
    address: int
    kind: AccessKind
    result: WalkResult


Translate = Callable[[int, PagingRoot, int, AccessKind], WalkResult]
"""Stands in for the second-stage walks: their number, root, address and kind."""


def walk(
    memory: Memory,
    config: UnitConfig,
    root: PagingRoot,
    iova: int,
    kind: AccessKind,
    resume: tuple[int, int, Rights] | None = None,
    translate: Translate | None = None,
) -> WalkResult:
    """Walk the tables of root for iova; kind is READ, WRITE or EXECUTE.

    resume gives (level, table address, rights so far) to continue from a cached entry.
    """
    stage = stage_of(config, root)
    assert root.stage is not None
    steps: list[Step] = []
    nonleaf: list[NonLeaf] = []
    updates: list[Update] = []
    below: list[Below] = []
    level, table, rights = resume or (root.levels, root.pointer, ALL_RIGHTS)

    def blocked(reason: int) -> WalkResult:
        fault = Fault(int(reason))
        return WalkResult(fault, rights, tuple(steps), tuple(nonleaf), (), tuple(below))

    def lowered(host: PagingRoot, address: int, wanted: AccessKind) -> WalkResult:
        if translate is None:
            found = walk(memory, config, host, address, wanted)
        else:
            found = translate(len(below), host, address, wanted)
        below.append(Below(host, address, wanted, found))
        steps.extend(found.steps)
        updates.extend(found.updates)
        return found

    if resume is None and (reason := stage.input_fault(iova)):
        return blocked(reason)
    link: Step | None = None
    while True:
        address = table + ENTRY_SIZE * entry_index(iova, level)
        under: WalkResult | None = None
        if root.host is not None and (link is not None or resume is None):
            under = lowered(
                root.host.top if level == root.levels else root.host.table,
                address,
                AccessKind.READ,
            )
            if isinstance(under.outcome, Fault):
                return blocked(under.outcome.reason)
            address = under.outcome.address | address & under.outcome.mask
        if link is not None:
            nonleaf.append(NonLeaf(link, address & ~page_mask(1), rights))
        entry = memory.quadword(address)
        if entry is None or (entry == ALL_ONES and config.dialect.all_ones_unreadable):
            return blocked(stage.root_read if level == root.levels else stage.entry_read)
        link = Step(root.stage, level, address, entry)
        steps.append(link)
        leaf = level == 1 or (level <= LARGEST_LEAF and bool(entry & PS_MASK))
        if reason := stage.check(entry, level, leaf, kind):
            return blocked(reason)
        rights = stage.narrow(rights, entry)
        if leaf and (reason := stage.refuse(rights, kind)):
            return blocked(reason)
        if bits := stage.update(entry, leaf, kind):
            if under is not None and not under.rights.write:
                return blocked(Reason.FS_TABLE_NO_WRITE)
            if reason := stage.update_refused.get(root.updates, 0):
                return blocked(reason)
            updates.append(Update(address, bits))
            if under is not None and root.host is not None and root.host.data.accessed_dirty:
                updates.append(Update(under.steps[-1].address, DIRTY))
        if leaf:
            break
        table = entry & ADDRESS_MASK
        level -= 1
    mask = page_mask(level)
    page = entry & ADDRESS_MASK & ~mask
    if root.host is not None:
        address = page | iova & mask
        under = lowered(root.host.data, address, kind)
        if isinstance(under.outcome, Fault):
            return blocked(under.outcome.reason)
        address = under.outcome.address | address & under.outcome.mask
        mask &= under.outcome.mask
        page = address & ~mask
        rights = rights._replace(
            host_read=under.rights.read,
            host_write=under.rights.write,
            host_execute=under.rights.execute,
        )
    elif _hits_interrupt_range(config, page, mask, iova):
        return blocked(stage.interrupt_range)
    outcome = Translation(page, mask)
    return WalkResult(outcome, rights, tuple(steps), tuple(nonleaf), tuple(updates), tuple(below))


def _hits_interrupt_range(config: UnitConfig, page: int, mask: int, iova: int) -> bool:
    if config.dialect.interrupt_range_by_page:
        return page <= INTERRUPT_LAST and (page | mask) >= INTERRUPT_FIRST
    return INTERRUPT_FIRST <= (page | iova & mask) <= INTERRUPT_LAST
