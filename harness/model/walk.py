"""The page walk: one loop over geometry, with the checks of either stage as a rule object.

VT-d specification 3.7 (second stage) and 3.6 (first stage). Order of checks: second stage per
level permission, reserved, leaf; first stage per level present, reserved, and at the leaf what all
levels together allow: user, write, execute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from decoders.events import AccessKind, Fault, Outcome, Role, Translation
from decoders.layout import layout
from decoders.vtd.faults import Reason
from decoders.vtd.paging import (
    ENTRY_SIZE,
    INDEX_BITS,
    LARGEST_LEAF,
    PAGE_BITS,
    RESERVED_FIRST_STAGE,
    RESERVED_SECOND_STAGE,
    SNP_MASK,
    TM_MASK,
    FirstStageEntry,
    SecondStageEntry,
    entry_index,
    page_mask,
)
from harness.memory import Memory
from harness.model.config import UnitConfig
from harness.model.dialects import SecondStageReasons

_FS = layout(FirstStageEntry).fields
_SS = layout(SecondStageEntry).fields
_ADDRESS = _SS["addr"].mask
_PS = _SS["ps"].mask
INTERRUPT_FIRST, INTERRUPT_LAST = 0xFEE00000, 0xFEEFFFFF

IGNORED_WHEN_COMPARING = {
    Role.FIRST_STAGE: _FS["a"].mask | _FS["d"].mask | _FS["ea"].mask,
    Role.SECOND_STAGE: _SS["a"].mask | _SS["d"].mask,
}
"""Bits the unit itself may set in an entry: no change of the table by software."""


PRESENT = {Role.FIRST_STAGE: _FS["p"].mask, Role.SECOND_STAGE: _SS["r"].mask | _SS["w"].mask}
"""Bits of which one must be set for an entry to lead anywhere."""
ALL_ONES = (1 << 64) - 1
ADDRESS_MASK = _ADDRESS
"""The address field both stages share."""


class Step(NamedTuple):
    """One entry (or one quadword of an entry) that was read on the way."""

    role: Role
    level: int
    address: int
    value: int


class Rights(NamedTuple):
    """What the levels so far allow."""

    read: bool
    write: bool
    execute: bool
    user: bool = True


ALL_RIGHTS = Rights(True, True, True)


@dataclass(frozen=True, slots=True)
class PagingRoot:
    """Where and how to walk for one request, as the context or PASID entry says."""

    domain: int
    pasid: int
    """The PASID the IOTLB tags with; -1 where it does not."""
    stage: Role | None
    """None is pass-through."""
    pointer: int
    levels: int
    fault_disable: bool
    reasons: SecondStageReasons
    execute_enable: bool = False
    accessed_dirty: bool = False
    extended_accessed: bool = False
    no_execute_enable: bool = False

    @property
    def width(self) -> int:
        """Return the input address width in bits."""
        return PAGE_BITS + INDEX_BITS * self.levels

    @property
    def tag(self) -> tuple[int, int, int]:
        """Return what IOTLB and paging-structure entries are tagged with."""
        return (self.domain, self.pasid, int(self.stage or 0))


class NonLeaf(NamedTuple):
    """One table entry that led on: what a paging-structure cache may keep."""

    step: Step
    child: int
    rights: Rights


@dataclass(frozen=True, slots=True)
class WalkResult:
    """The outcome of one walk and what it saw; updates are A/D stores still to be made."""

    outcome: Outcome
    rights: Rights
    steps: tuple[Step, ...]
    nonleaf: tuple[NonLeaf, ...]
    updates: tuple[tuple[int, int], ...]


class _Rules(Protocol):
    root_read: int
    entry_read: int
    interrupt_range: int

    def input_fault(self, iova: int) -> int: ...
    def check(self, entry: int, level: int, leaf: bool, kind: AccessKind) -> int: ...
    def refuse(self, rights: Rights, kind: AccessKind) -> int: ...
    def narrow(self, rights: Rights, entry: int) -> Rights: ...
    def update(self, entry: int, leaf: bool, kind: AccessKind) -> int: ...


class _SecondStage:
    def __init__(self, config: UnitConfig, root: PagingRoot):
        self._config = config
        self._root = root
        self._reasons = root.reasons
        self.root_read = root.reasons.root_read
        self.entry_read = root.reasons.entry_read
        self.interrupt_range = root.reasons.interrupt_range
        self._snoop_reserved = not config.ecap("sc") and not (
            config.dialect.snoop_bit_in_scalable and config.ecap("smts")
        )
        self._large = config.cap("sslps")

    def input_fault(self, iova: int) -> int:
        limit = min(self._config.guest_address_width, self._root.width)
        return self._reasons.beyond_width if iova >> limit else 0

    def check(self, entry: int, level: int, leaf: bool, kind: AccessKind) -> int:
        reasons = self._reasons
        write = kind == AccessKind.WRITE
        present = _SS["r"].mask | _SS["w"].mask
        if self._root.execute_enable:
            present |= _SS["x"].mask
        if not entry & present:
            return reasons.not_present_write if write else reasons.not_present_read
        if write and not entry & _SS["w"].mask:
            return reasons.no_write
        if not write and not entry & _SS["r"].mask:
            return reasons.no_read
        if kind == AccessKind.EXECUTE and self._root.execute_enable and not entry & _SS["x"].mask:
            return Reason.SM_NO_EXECUTE
        return reasons.reserved if entry & self._reserved(level, leaf) else 0

    def refuse(self, rights: Rights, kind: AccessKind) -> int:
        return 0  # every level has been asked

    def _reserved(self, level: int, leaf: bool) -> int:
        mask = RESERVED_SECOND_STAGE[level, leaf] | self._config.beyond_host
        if leaf:
            mask |= TM_MASK
        if not leaf or self._snoop_reserved:
            mask |= SNP_MASK
        if leaf and level > 1 and not self._large >> (level - 2) & 1:
            mask |= _PS
        return mask

    def narrow(self, rights: Rights, entry: int) -> Rights:
        execute = not self._root.execute_enable or bool(entry & _SS["x"].mask)
        return Rights(
            rights.read and bool(entry & _SS["r"].mask),
            rights.write and bool(entry & _SS["w"].mask),
            rights.execute and execute,
        )

    def update(self, entry: int, leaf: bool, kind: AccessKind) -> int:
        if not self._root.accessed_dirty:
            return 0
        bits = _SS["a"].mask
        if leaf and kind == AccessKind.WRITE:
            bits |= _SS["d"].mask
        return bits & ~entry


class _FirstStage:
    root_read = int(Reason.FS_ROOT_ACCESS)
    entry_read = int(Reason.FS_ACCESS)
    interrupt_range = int(Reason.SM_INTERRUPT_RANGE)

    def __init__(self, config: UnitConfig, root: PagingRoot):
        self._config = config
        self._root = root
        self._execute_disable_reserved = (
            config.dialect.execute_disable_reserved and not root.no_execute_enable
        )

    def input_fault(self, iova: int) -> int:
        # Canonical: every bit from width-1 up is the same.
        top = iova >> (self._root.width - 1)
        everything = (1 << (64 - self._root.width + 1)) - 1
        return 0 if top in (0, everything) else int(Reason.FS_NOT_CANONICAL)

    def check(self, entry: int, level: int, leaf: bool, kind: AccessKind) -> int:
        if not entry & _FS["p"].mask:
            return Reason.FS_NOT_PRESENT
        if self._config.dialect.first_stage_rights_by_level:
            if reason := self.refuse(self.narrow(ALL_RIGHTS, entry), kind):
                return reason
        return Reason.FS_RESERVED if entry & self._reserved(level, leaf) else 0

    def refuse(self, rights: Rights, kind: AccessKind) -> int:
        if not rights.user:
            return Reason.FS_USER
        if kind == AccessKind.WRITE and not rights.write:
            return Reason.SM_NO_WRITE
        if kind == AccessKind.EXECUTE and not rights.execute:
            return Reason.SM_NO_EXECUTE
        return 0

    def _reserved(self, level: int, leaf: bool) -> int:
        mask = RESERVED_FIRST_STAGE[level, leaf] | self._config.beyond_host
        if self._execute_disable_reserved:
            mask |= _FS["xd"].mask
        if leaf and level == LARGEST_LEAF and not self._config.cap("fs1gp"):
            mask |= _PS
        return mask

    def narrow(self, rights: Rights, entry: int) -> Rights:
        execute = not (self._root.no_execute_enable and entry & _FS["xd"].mask)
        return Rights(
            rights.read,
            rights.write and bool(entry & _FS["rw"].mask),
            rights.execute and execute,
            rights.user and bool(entry & _FS["us"].mask),
        )

    def update(self, entry: int, leaf: bool, kind: AccessKind) -> int:
        bits = _FS["a"].mask
        if self._root.extended_accessed:
            bits |= _FS["ea"].mask
        if leaf and kind == AccessKind.WRITE:
            bits |= _FS["d"].mask
        return bits & ~entry


def walk(
    memory: Memory,
    config: UnitConfig,
    root: PagingRoot,
    iova: int,
    kind: AccessKind,
    resume: tuple[int, int, Rights] | None = None,
) -> WalkResult:
    """Walk the tables of root for iova; kind is READ, WRITE or EXECUTE.

    resume gives (level, table address, rights so far) to continue from a cached entry.
    """
    rules: _Rules = (
        _FirstStage(config, root) if root.stage == Role.FIRST_STAGE else _SecondStage(config, root)
    )
    assert root.stage is not None
    steps: list[Step] = []
    nonleaf: list[NonLeaf] = []
    updates: list[tuple[int, int]] = []
    level, table, rights = resume or (root.levels, root.pointer, ALL_RIGHTS)

    def blocked(reason: int) -> WalkResult:
        return WalkResult(Fault(int(reason)), rights, tuple(steps), tuple(nonleaf), ())

    if resume is None and (reason := rules.input_fault(iova)):
        return blocked(reason)
    while True:
        address = table + ENTRY_SIZE * entry_index(iova, level)
        entry = memory.quadword(address)
        if entry is None or (entry == ALL_ONES and config.dialect.all_ones_unreadable):
            return blocked(rules.root_read if level == root.levels else rules.entry_read)
        step = Step(root.stage, level, address, entry)
        steps.append(step)
        leaf = level == 1 or (level <= LARGEST_LEAF and bool(entry & _PS))
        if reason := rules.check(entry, level, leaf, kind):
            return blocked(reason)
        rights = rules.narrow(rights, entry)
        if leaf and (reason := rules.refuse(rights, kind)):
            return blocked(reason)
        if bits := rules.update(entry, leaf, kind):
            updates.append((address, entry | bits))
        if leaf:
            break
        table = entry & _ADDRESS
        nonleaf.append(NonLeaf(step, table, rights))
        level -= 1
    mask = page_mask(level)
    page = entry & _ADDRESS & ~mask
    if _hits_interrupt_range(config, page, mask, iova):
        return blocked(rules.interrupt_range)
    return WalkResult(Translation(page, mask), rights, tuple(steps), tuple(nonleaf), tuple(updates))


def _hits_interrupt_range(config: UnitConfig, page: int, mask: int, iova: int) -> bool:
    if config.dialect.interrupt_range_by_page:
        return page <= INTERRUPT_LAST and (page | mask) >= INTERRUPT_FIRST
    return INTERRUPT_FIRST <= (page | iova & mask) <= INTERRUPT_LAST
