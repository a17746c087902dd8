"""Rules about the translations that devices keep themselves (ATS)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from decoders.events import Outcome, Translation
from decoders.vtd.descriptors import descriptor_type
from harness.check.coverage import DEVICE, NEVER, NO_PASID, PASID_DEVICE, Coverage, event_of, moment
from harness.check.rules import Notebook, Rule
from harness.model.lookup import CONTEXT, SCALABLE_CONTEXT, TT_DEVICE_TLB
from harness.model.stages import IGNORED_WHEN_COMPARING
from harness.model.translate import Candidate, Fresh, Request
from harness.model.unit import VtdUnit
from harness.model.walk import Step
from harness.oracle import same_place

MISSING = Rule(
    "device-tlb-not-invalidated",
    "VT-d 4, 6.5.2.5, 6.5.2.6; Linux cache_tag_flush_devtlb_psi",
    "A device whose context entry allows it (TT = 1, DTE) keeps translations itself, and this one "
    "does: software has invalidated its device TLB before. The mapping of a page was changed after "
    "the device had asked for it, and no device-TLB invalidation has covered it since.",
)
ORDER = Rule(
    "device-tlb-order",
    "VT-d 6.5.3.3; Linux cache_tag_flush_range: IOTLB, then device TLB",
    "When a mapping changes, the IOTLB is invalidated first and then the device TLB. The other way "
    "round the device may ask again, get the old translation from the IOTLB, and keep it.",
)
RULES = (MISSING, ORDER)

KEPT = 1 << 16
"""Translations of all devices together; one more and all are forgotten."""
ALL_PASIDS = -2
PAGE_BITS = 12


@dataclass(slots=True)
class _Kept:
    """A translation that a device may keep."""

    outcome: Outcome
    leaf: Step
    domain: int
    tag: int
    asked: int
    early: int = NEVER


class DeviceTlbs:
    """Follow what devices may keep, by source id and then by PASID and page."""

    def __init__(self, unit: VtdUnit, notes: Notebook) -> None:
        self._unit = unit
        self._notes = notes
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._known: dict[int, dict[int, dict[int, _Kept]]] = {}  # source id, page, PASID or -1
        self._contexts: dict[int, tuple[int, ...]] = {}
        self._count = 0

    def invalidated(self, words: Sequence[int], when: int, coverage: Coverage) -> None:
        """Learn of a descriptor that the unit took."""
        match descriptor_type(words[0]):
            case 3:
                sid, address, large = (
                    DEVICE["sid"].get(words), DEVICE["addr"].address(words), DEVICE["s"].get(words)
                )  # fmt: skip
                pasid = ALL_PASIDS
            case 8:
                sid, address, large = (
                    PASID_DEVICE["sid"].get(words),
                    PASID_DEVICE["addr"].address(words),
                    PASID_DEVICE["s"].get(words),
                )
                every = PASID_DEVICE["g"].get(words)
                pasid = ALL_PASIDS if every else PASID_DEVICE["pasid"].get(words)
            case _:
                return
        # That a device uses ATS shows in its first invalidation; what it asked for before that
        # is not known.
        known = self._known.setdefault(sid, {})
        first = address >> PAGE_BITS
        # The lowest clear bit gives the size: 2 pages for bit 12, 4 for bit 13...
        count = (first ^ (first + 1)) + 1 if large else 1
        first &= -count
        # Counted as what invalidations look at in the unit's own caches.
        self._unit.caches.looked_at += min(count, len(known))
        near = range(first, first + count)
        pages = [page for page in known if page in near] if count > len(known) else near
        for page in [page for page in pages if page in known]:
            for number in [one for one in known[page] if pasid in (ALL_PASIDS, one) or one < 0]:
                if self._covers(known[page][number], page, when, coverage):
                    del known[page][number]
                    self._count -= 1
            if not known[page]:
                del known[page]

    def _covers(self, kept: _Kept, page: int, when: int, coverage: Coverage) -> bool:
        """Say whether a device asks anew once it has been told to; the IOTLB may hold on."""
        if self._differs(kept.leaf):
            changed = self._unit.memory.last_writer(kept.leaf.address)
            covered = coverage.of_page(kept.domain, page << PAGE_BITS, kept.tag)
            if changed is not None and covered < moment(changed):
                kept.early = when
                return False
        return True

    def access(
        self, request: Request, now: Candidate, fresh: Fresh, coverage: Coverage, found: bool
    ) -> None:
        """Judge a request of a device that uses ATS; found: something worse is reported."""
        known = self._known.get(request.sid)
        if known is None or fresh.context is None:
            return
        if self._contexts.get(request.sid) != fresh.context.words:
            # ATS may have been off in between, which empties the device's TLB.
            self._count -= sum(map(len, known.values()))
            known.clear()
            self._contexts[request.sid] = fresh.context.words
        root, result = fresh.root, fresh.result
        if not _allowed(fresh) or root is None or result is None:
            return
        if not isinstance(now.outcome, Translation):
            return
        pasid = NO_PASID if request.pasid is None else request.pasid
        page = request.iova >> PAGE_BITS
        kept = known.get(page, {}).get(pasid)
        if kept is not None and not same_place(kept.outcome, now.outcome, request.iova):
            self._report(kept, request, coverage, found)
        if kept is None:
            if self._count >= KEPT:
                for pages in self._known.values():
                    pages.clear()
                self._count = 0
            self._count += 1
        leaf = result.steps[-1]
        number = self._unit.event
        known.setdefault(page, {})[pasid] = _Kept(
            now.outcome, leaf, root.domain, root.pasid, number
        )

    def _report(self, kept: _Kept, request: Request, coverage: Coverage, found: bool) -> None:
        if found:
            return
        number, detail = self._unit.event, f"The request is for {request.iova:#x}."
        changed = self._unit.memory.last_writer(kept.leaf.address)
        cause = changed if changed is not None else -1
        if kept.early == NEVER:
            self._notes.note(MISSING, number, detail, cause=cause, asked=kept.asked, changed=cause)
            return
        covered = coverage.of_page(kept.domain, request.iova, kept.tag)
        self._notes.note(
            ORDER,
            number,
            detail,
            cause=cause,
            asked=kept.asked,
            device_invalidated=event_of(kept.early),
            iotlb_invalidated=event_of(covered),
        )

    def _differs(self, step: Step) -> bool:
        now = self._unit.memory.quadword(step.address)
        return now is None or bool((now ^ step.value) & ~IGNORED_WHEN_COMPARING.get(step.role, 0))


def _allowed(fresh: Fresh) -> bool:
    """Say whether the context entry of a request lets its device keep translations."""
    assert fresh.context is not None
    words = fresh.context.words
    if len(words) == CONTEXT.words:
        return CONTEXT["tt"].get(words) == TT_DEVICE_TLB
    return bool(SCALABLE_CONTEXT["dte"].get(words))
