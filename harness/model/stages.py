"""What the two stages ask of an entry, and the paging root that says how a request is walked.

VT-d specification 3.6 (first stage), 3.7 (second stage) and 3.8 (nested). Order of checks: second
stage per level permission, reserved, leaf; first stage per level present, reserved, and at the leaf
what all levels together allow: user, write, execute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from decoders.events import AccessKind, Role
from decoders.layout import layout
from decoders.vtd.faults import Reason
from decoders.vtd.paging import (
    INDEX_BITS,
    LARGEST_LEAF,
    PAGE_BITS,
    RESERVED_FIRST_STAGE,
    RESERVED_SECOND_STAGE,
    SNP_MASK,
    TM_MASK,
    FirstStageEntry,
    SecondStageEntry,
)
from harness.model.config import UnitConfig, Updates
from harness.model.dialects import SecondStageReasons

_FS = layout(FirstStageEntry).fields
_SS = layout(SecondStageEntry).fields
PS_MASK = _SS["ps"].mask
DIRTY = _SS["d"].mask
"""What a write sets in a second-stage leaf."""

IGNORED_WHEN_COMPARING = {
    Role.FIRST_STAGE: _FS["a"].mask | _FS["d"].mask | _FS["ea"].mask,
    Role.SECOND_STAGE: _SS["a"].mask | _SS["d"].mask,
}
"""Bits the unit itself may set in an entry: no change of the table by software."""

PRESENT = {Role.FIRST_STAGE: _FS["p"].mask, Role.SECOND_STAGE: _SS["r"].mask | _SS["w"].mask}
"""Bits of which one must be set for an entry to lead anywhere."""
ADDRESS_MASK = _SS["addr"].mask
"""The address field both stages share."""
NESTED_STAGE = 8
"""Stands behind the roles of the stages for both together, in the tag of cached entries."""
NO_PASID = -1


class Rights(NamedTuple):
    """What the levels so far allow; host_* is what the second stage under a first one does."""

    read: bool
    write: bool
    execute: bool
    user: bool = True
    host_read: bool = True
    host_write: bool = True
    host_execute: bool = True


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
    privileged: bool = False
    """The request is one of a supervisor."""
    write_protect: bool = False
    """WPE: R/W binds supervisors, too."""
    execute_prevention: bool = False
    """SMEP: supervisors do not execute from pages of users."""
    updates: Updates = Updates.DONE
    host: Host | None = None
    """The second stage under a nested first one."""

    @property
    def width(self) -> int:
        """Return the input address width in bits."""
        return PAGE_BITS + INDEX_BITS * self.levels

    @property
    def tag(self) -> tuple[int, int, int]:
        """Return what IOTLB and paging-structure entries are tagged with."""
        stage = NESTED_STAGE if self.host is not None else int(self.stage or 0)
        return (self.domain, self.pasid, stage)


class Host(NamedTuple):
    """One second stage three times, with the fault reasons of what it translates for a first.

    That is the first-stage root table, its other tables, and what the leaf says.
    """

    top: PagingRoot
    table: PagingRoot
    data: PagingRoot


class Stage(Protocol):
    """Check entries of one stage for one paging root; a reason is 0 where nothing is wrong."""

    root_read: int
    entry_read: int
    interrupt_range: int
    update_refused: dict[Updates, int]

    def input_fault(self, iova: int) -> int:
        """Test the width of an input address."""
        ...

    def check(self, entry: int, level: int, leaf: bool, kind: AccessKind) -> int:
        """Test one entry on the way."""
        ...

    def refuse(self, rights: Rights, kind: AccessKind) -> int:
        """Test at the leaf what all levels together allow."""
        ...

    def allows(self, rights: Rights, kind: AccessKind) -> bool:
        """Say whether a kept entry answers a request: one without the right is walked again."""
        ...

    def narrow(self, rights: Rights, entry: int) -> Rights:
        """Return the rights that are left behind an entry."""
        ...

    def update(self, entry: int, leaf: bool, kind: AccessKind) -> int:
        """Return the bits the unit has to set in an entry."""
        ...


class _SecondStage:
    update_refused = {
        Updates.NOT_SNOOPED: int(Reason.SM_SS_NOT_SNOOPED),
        Updates.FAILING: int(Reason.SM_SS_UPDATE_FAILED),
    }

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

    def allows(self, rights: Rights, kind: AccessKind) -> bool:
        match kind:
            case AccessKind.WRITE:
                return rights.write
            case AccessKind.EXECUTE:
                return rights.read and rights.execute
            case _:
                return rights.read

    def _reserved(self, level: int, leaf: bool) -> int:
        mask = RESERVED_SECOND_STAGE[level, leaf] | self._config.beyond_host | TM_MASK
        if not leaf or self._snoop_reserved:
            mask |= SNP_MASK
        if leaf and level > 1 and not self._large >> (level - 2) & 1:
            mask |= PS_MASK
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
            bits |= DIRTY
        return bits & ~entry


class _FirstStage:
    root_read = int(Reason.FS_ROOT_ACCESS)
    entry_read = int(Reason.FS_ACCESS)
    interrupt_range = int(Reason.SM_INTERRUPT_RANGE)
    update_refused = {
        Updates.NOT_SNOOPED: int(Reason.FS_NOT_SNOOPED),
        Updates.FAILING: int(Reason.FS_UPDATE_FAILED),
    }

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
            if reason := self._lacking(self.narrow(ALL_RIGHTS, entry), kind):
                return reason
        return Reason.FS_RESERVED if entry & self._reserved(level, leaf) else 0

    def refuse(self, rights: Rights, kind: AccessKind) -> int:
        if reason := self._lacking(rights, kind):
            return reason
        # A page is one of users when every level says so.
        prevented = self._root.privileged and self._root.execute_prevention and rights.user
        return Reason.SM_NO_EXECUTE if kind == AccessKind.EXECUTE and prevented else 0

    def _lacking(self, rights: Rights, kind: AccessKind) -> int:
        root = self._root
        if not root.privileged and not rights.user:
            return Reason.FS_USER
        bound = not root.privileged or root.write_protect
        if kind == AccessKind.WRITE and bound and not rights.write:
            return Reason.SM_NO_WRITE
        if kind == AccessKind.EXECUTE and not rights.execute:
            return Reason.SM_NO_EXECUTE
        return 0

    def allows(self, rights: Rights, kind: AccessKind) -> bool:
        if self.refuse(rights, kind):
            return False
        match kind:
            case AccessKind.WRITE:
                return rights.host_write
            case AccessKind.EXECUTE:
                return rights.host_read and rights.host_execute
            case _:
                return rights.host_read

    def _reserved(self, level: int, leaf: bool) -> int:
        mask = RESERVED_FIRST_STAGE[level, leaf] | self._config.beyond_host
        if self._execute_disable_reserved:
            mask |= _FS["xd"].mask
        if leaf and level == LARGEST_LEAF and not self._config.cap("fs1gp"):
            mask |= PS_MASK
        return mask

    def narrow(self, rights: Rights, entry: int) -> Rights:
        execute = not (self._root.no_execute_enable and entry & _FS["xd"].mask)
        return rights._replace(
            write=rights.write and bool(entry & _FS["rw"].mask),
            execute=rights.execute and execute,
            user=rights.user and bool(entry & _FS["us"].mask),
        )

    def update(self, entry: int, leaf: bool, kind: AccessKind) -> int:
        bits = _FS["a"].mask
        if self._root.extended_accessed:
            bits |= _FS["ea"].mask
        if leaf and kind == AccessKind.WRITE:
            bits |= _FS["d"].mask
        return bits & ~entry


def stage_of(config: UnitConfig, root: PagingRoot) -> Stage:
    """Return the checks of the stage that a paging root starts with."""
    return (
        _FirstStage(config, root) if root.stage == Role.FIRST_STAGE else _SecondStage(config, root)
    )
