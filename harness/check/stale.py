"""Find invalidations that are missing, too small, not awaited, or in the wrong order.

Only what an access has shown is judged: an entry counts as cached when a request went through it,
and as missed when a later request may be answered from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from decoders.events import Fault, Role, Translation
from harness.check.coverage import NEVER, Coverage, event_of, moment
from harness.check.entries import STAGES, children, is_present
from harness.check.rules import Notebook, Rule
from harness.check.stale_rules import (
    CONTEXT_CM,
    CONTEXT_ORDER,
    CONTEXT_STALE,
    DOMAIN_STALE,
    HINT,
    MAP_CM,
    MAPPING_STALE,
    PAGE_REUSED,
    PASID_CM,
    PASID_ORDER,
    PASID_STALE,
    TABLE_STALE,
    WAIT_MISSING,
)
from harness.check.tables import Change
from harness.findings import Finding
from harness.model.stages import IGNORED_WHEN_COMPARING, PagingRoot
from harness.model.translate import Candidate, Fresh, Request
from harness.model.unit import VtdUnit
from harness.model.walk import Step
from harness.oracle import same_place

CHANGED = 64
"""Changed entries that are followed until their domain has been invalidated."""
REMEMBERED = 1 << 16
"""Entries of each kind that are followed; one more and all are forgotten."""
BLOCKED_DOMAIN = 0
"""Domain of a legacy context entry that is kept because it blocks (caching mode)."""
_BY_CACHE = {"paging-structure": TABLE_STALE, "iotlb": MAPPING_STALE}


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whom a context or PASID entry served when a request went through it."""

    sid: int
    pasid: int  # of the entry; -1 for a context entry
    domain: int
    tag: int  # the PASID its translations are tagged with, or -1


@dataclass(slots=True)
class _Unlinked:
    """A table that no entry leads to any more, and when the caches were told to forget it."""

    number: int
    dropped: int = NEVER


@dataclass(slots=True)
class _Pending:
    """A changed entry whose old domain has not been invalidated behind it."""

    owner: _Owner
    changed: int
    early: int = NEVER
    """An invalidation of the domain that came before that of the entry."""
    entry: int = NEVER
    """The first invalidation of the entry."""


class Stale:
    """Judge accesses by what may still be cached."""

    def __init__(self, unit: VtdUnit, notes: Notebook) -> None:
        self._unit = unit
        self._notes = notes
        self.reset()

    def reset(self) -> None:
        """Forget everything, as the unit does."""
        self._owners: dict[int, _Owner] = {}
        self._pending: dict[int, _Pending] = {}
        self._appeared: dict[int, int] = {}
        self._unlinked: dict[int, _Unlinked] = {}

    # -- what software does --------------------------------------------------------------------

    def changed(self, change: Change, number: int) -> None:
        """Learn of a store that changed a table entry."""
        was = is_present(change.role, change.before)
        now = is_present(change.role, change.after)
        owner = self._owners.pop(change.address, None)
        if owner is not None and was:
            if len(self._pending) >= CHANGED:
                del self._pending[next(iter(self._pending))]
            self._pending[change.address] = _Pending(owner, number)
        if now and not was and self._unit.config.cap("cm"):
            if len(self._appeared) >= REMEMBERED:
                self._appeared.clear()
            self._appeared[change.address] = number
        elif not now:
            self._appeared.pop(change.address, None)
        if change.role in STAGES and change.level > 1:
            self._relinked(change, number)

    def _relinked(self, change: Change, number: int) -> None:
        """Follow the tables that an entry no longer leads to, if a cache may."""
        before, after = (
            children(change.role, change.level, words, False) if present else []
            for words, present in (
                (change.before, is_present(change.role, change.before)),
                (change.after, is_present(change.role, change.after)),
            )
        )
        for page in after:
            self._unlinked.pop(page, None)
        for page in before:
            if page not in after and self._unit.caches.tables_at(page):
                if len(self._unlinked) >= CHANGED:
                    del self._unlinked[next(iter(self._unlinked))]
                self._unlinked[page] = _Unlinked(number)

    def written(self, page: int, number: int) -> None:
        """Learn that something other than zero was stored to a page."""
        unlinked = self._unlinked.get(page)
        if unlinked is not None and unlinked.dropped != NEVER:
            del self._unlinked[page]
            self._notes.note(
                WAIT_MISSING,
                number,
                f"The page is {page:#x}.",
                unlinked=unlinked.number,
                invalidated=event_of(unlinked.dropped),
            )

    def invalidated(self, coverage: Coverage) -> None:
        """Learn that one more invalidation, or a wait, has been recorded."""
        for page, unlinked in list(self._unlinked.items()):
            if self._unit.caches.tables_at(page):
                continue
            if coverage.unconfirmed == NEVER:
                del self._unlinked[page]
            elif unlinked.dropped == NEVER:
                unlinked.dropped = coverage.unconfirmed
        for place, pending in list(self._pending.items()):
            owner, since = pending.owner, moment(pending.changed)
            if pending.entry == NEVER:
                entry = (
                    coverage.of_context(owner.sid, owner.domain)
                    if owner.pasid < 0
                    else coverage.of_pasid(owner.domain, owner.pasid)
                )
                pending.entry = entry if entry > since else NEVER
            domain = coverage.of_domain(owner.domain, owner.tag)
            if pending.entry == NEVER:
                pending.early = domain if domain > since else NEVER
            elif domain > pending.entry:
                del self._pending[place]

    def reused(self, finding: Finding) -> None:
        """Take over that a table page is written again."""
        detail = f"The page is {int(str(finding.observed)) & -0x1000:#x}."
        self._notes.note(
            PAGE_REUSED,
            finding.event,
            detail,
            unlinked=finding.changed_by,
            used=finding.filled_by,
        )

    # -- what a request shows ------------------------------------------------------------------

    def access(
        self, request: Request, permitted: Sequence[Candidate], fresh: Fresh, coverage: Coverage
    ) -> bool:
        """Judge a request; say whether it breaks a rule. It breaks one at most."""
        others = [
            one
            for one in permitted[1:]
            if not same_place(one.outcome, permitted[0].outcome, request.iova)
        ]
        found = bool(others) and self._stale(request, others, fresh, coverage)
        found = found or self._orders(fresh)
        found = found or self._not_confirmed(request, permitted[0], fresh, coverage)
        if self._appeared:
            found = self._new_entries(request, fresh, coverage, found)
        self._learn(request, fresh)
        return found

    def _stale(
        self, request: Request, others: list[Candidate], fresh: Fresh, coverage: Coverage
    ) -> bool:
        kept = self._changed_entry(request, fresh)
        if kept is not None:
            rule, filled, changed = kept
            self._note(rule, request, changed, filled)
            return True
        order = {"paging-structure": 0, "iotlb": 1}
        others = sorted(
            (one for one in others if one.cache in order), key=lambda one: order[one.cache]
        )
        if not others or fresh.root is None:
            return False
        worst, root = others[0], fresh.root
        if worst.cache == "iotlb" and isinstance(worst.outcome, Fault):
            return False  # not present, in caching mode: _new_entries() knows more
        rule = _BY_CACHE[worst.cache]
        if not self._differs(worst.steps):
            rule = DOMAIN_STALE  # the tables are as they were, but others are in use
        elif worst.cache == "paging-structure":
            hinted = coverage.of_page(root.domain, request.iova, root.pasid)
            if coverage.hinted != NEVER and hinted > moment(worst.changed_by):
                self._note(
                    HINT, request, worst.changed_by, worst.filled_by, invalidated=event_of(hinted)
                )
                return True
        self._note(rule, request, worst.changed_by, worst.filled_by)
        return True

    def _changed_entry(self, request: Request, fresh: Fresh) -> tuple[Rule, int, int] | None:
        """Return the rule for a kept context or PASID entry that is another one in memory."""
        caches = self._unit.caches
        words = fresh.context.words if fresh.context is not None else None
        for way in caches.contexts.get(request.sid, ()):
            if way.blocked is None and way.words != words and self._differs(way.steps):
                return CONTEXT_STALE, way.filled_by, self._changed_by(way.steps)
        number = fresh.pasid_number
        words = fresh.pasid.words if fresh.pasid is not None else None
        for way in caches.pasids.get((request.sid, number), ()):
            if way.blocked is None and way.words != words and self._differs(way.steps):
                return PASID_STALE, way.filled_by, self._changed_by(way.steps)
        return None

    def _differs(self, steps: Sequence[Step]) -> bool:
        return any(self._step_differs(step) for step in steps)

    def _step_differs(self, step: Step) -> bool:
        now = self._unit.memory.quadword(step.address)
        return now is None or bool((now ^ step.value) & ~IGNORED_WHEN_COMPARING.get(step.role, 0))

    def _changed_by(self, steps: Sequence[Step]) -> int:
        writers = [self._unit.memory.last_writer(s.address) for s in steps if self._step_differs(s)]
        return max((writer for writer in writers if writer is not None), default=-1)

    def _note(self, rule: Rule, request: Request, changed: int, filled: int, **more: int) -> None:
        detail = f"The request is for {request.iova:#x}."
        cause = changed if changed >= 0 else None
        self._notes.note(
            rule, self._unit.event, detail, cause=cause, used=filled, changed=changed, **more
        )

    def _orders(self, fresh: Fresh) -> bool:
        """Judge the order of invalidations after a change of the entries used here."""
        if not self._pending:
            return False
        for entry, rule in ((fresh.context, CONTEXT_ORDER), (fresh.pasid, PASID_ORDER)):
            pending = self._pending.pop(_place(entry.steps), None) if entry is not None else None
            if pending is not None and NEVER not in (pending.early, pending.entry):
                self._notes.note(
                    rule,
                    self._unit.event,
                    f"The old domain is {pending.owner.domain:#x}.",
                    changed=pending.changed,
                    iotlb_invalidated=event_of(pending.early),
                    entry_invalidated=event_of(pending.entry),
                )
                return True
        return False

    def _not_confirmed(
        self, request: Request, now: Candidate, fresh: Fresh, coverage: Coverage
    ) -> bool:
        root, result = fresh.root, fresh.result
        unsure = coverage.unconfirmed
        if unsure == NEVER or root is None or result is None:
            return False
        if not isinstance(now.outcome, Translation):
            return False
        for dropped in self._unit.caches.dropped_at(root.tag, request.iova):
            late = moment(dropped.dropped_by + 1) > unsure
            if late and not same_place(dropped.outcome, now.outcome, request.iova):
                covered = coverage.of_page(root.domain, request.iova, root.pasid)
                if covered < unsure or not isinstance(dropped.outcome, Translation):
                    continue
                self._notes.note(
                    WAIT_MISSING,
                    self._unit.event,
                    f"The request is for {request.iova:#x}.",
                    cause=dropped.dropped_by,
                    used=dropped.filled_by,
                    invalidated=dropped.dropped_by,
                )
                return True
        return False

    def _new_entries(self, request: Request, fresh: Fresh, coverage: Coverage, found: bool) -> bool:
        """Judge entries that have become present, in caching mode, and are used for the first time.

        found says that something worse has been reported already.
        """
        root = fresh.root
        if root is None:
            return found
        for rule, place in (
            (CONTEXT_CM, _place(fresh.context.steps) if fresh.context is not None else -1),
            (PASID_CM, _place(fresh.pasid.steps) if fresh.pasid is not None else -1),
            (MAP_CM, self._leaf(root, fresh)),
        ):
            appeared = self._appeared.pop(place, None)
            if appeared is None or found:
                continue
            if rule is CONTEXT_CM:
                # What blocked is kept with domain 0 (Linux context_present_cache_flush).
                domain = BLOCKED_DOMAIN if fresh.context_domain >= 0 else -1
                when = coverage.of_context(request.sid, domain)
            elif rule is PASID_CM:
                when = coverage.of_pasid(root.domain, fresh.pasid_number)
            else:
                when = coverage.of_page(root.domain, request.iova, root.pasid)
            if when < moment(appeared):
                found = True
                detail = f"The request is for {request.iova:#x}."
                self._notes.note(rule, self._unit.event, detail, present=appeared)
        return found

    @staticmethod
    def _leaf(root: PagingRoot, fresh: Fresh) -> int:
        """Return where the entry lies that ended a translation of the second stage."""
        result = fresh.result
        if root.stage is not Role.SECOND_STAGE or result is None:
            return -1
        return result.steps[-1].address if isinstance(result.outcome, Translation) else -1

    def _learn(self, request: Request, fresh: Fresh) -> None:
        root = fresh.root
        if fresh.context is None or root is None:
            return
        if len(self._owners) >= REMEMBERED:
            self._owners.clear()
        legacy = fresh.pasid is None
        place = _place(fresh.context.steps)
        if legacy:
            self._owners[place] = _Owner(request.sid, -1, root.domain, -1)
        else:
            assert fresh.pasid is not None
            owner = _Owner(request.sid, fresh.pasid_number, root.domain, root.pasid)
            self._owners[_place(fresh.pasid.steps)] = owner


def _place(steps: Sequence[Step]) -> int:
    """Return where the last context or PASID entry among steps begins."""
    last = steps[-1]
    return min(s.address for s in steps if s.role is last.role)
