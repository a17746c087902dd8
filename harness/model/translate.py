"""The permitted set of a request: the fresh outcome, and what stale cache entries would give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from decoders.events import AccessKind, Fault, Outcome, Role, Translation
from decoders.vtd.faults import Reason
from decoders.vtd.paging import PAGE_SHIFT
from harness.memory import Memory
from harness.model.caches import (
    CachedStructure,
    CachedTranslation,
    CachedWords,
    Caches,
    Tag,
)
from harness.model.config import UnitConfig
from harness.model.lookup import (
    CONTEXT,
    NO_PASID,
    SCALABLE_CONTEXT,
    TTM_LEGACY,
    Blocked,
    Entry,
    Lookup,
)
from harness.model.walk import (
    IGNORED_WHEN_COMPARING,
    INTERRUPT_FIRST,
    INTERRUPT_LAST,
    PRESENT,
    PagingRoot,
    Rights,
    Step,
    WalkResult,
    walk,
)


@dataclass(frozen=True, slots=True)
class Request:
    """One DMA request as it arrives at the unit.

    any_right is set where the kind is a guess: a cached entry answers it with either right.
    """

    sid: int
    pasid: int | None
    iova: int
    kind: AccessKind
    any_right: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """One permitted outcome and where it comes from.

    cache is "" for the fresh one, else the cache whose stale entry gives it; filled_by is the
    event that put that entry there and changed_by the store that made it differ from memory.
    """

    outcome: Outcome
    steps: tuple[Step, ...]
    fault_disable: bool = False
    cache: str = ""
    domain: int = -1
    filled_by: int = -1
    changed_by: int = -1


@dataclass(slots=True)
class Fresh:
    """What the fresh path saw, for filling the caches once its outcome is adopted."""

    context: Entry | None = None
    context_domain: int = -1
    pasid: Entry | None = None
    pasid_number: int = NO_PASID
    root: PagingRoot | None = None
    result: WalkResult | None = None


class Translator:
    """Compute permitted sets over tables, caches and the translation enable state."""

    def __init__(self, config: UnitConfig, memory: Memory):
        self.config = config
        self.memory = memory
        self.lookup = Lookup(config, memory)
        self.caches = Caches()
        self.enabled = False

    def permitted(self, request: Request) -> tuple[list[Candidate], Fresh]:
        """Return the permitted outcomes, the fresh one first, none twice.

        A request of unknown kind is a read if a read may succeed, else a write.
        """
        if request.kind != AccessKind.UNKNOWN:
            return self._permitted(request)
        as_read = Request(request.sid, request.pasid, request.iova, AccessKind.READ, True)
        found = self._permitted(as_read)
        if isinstance(found[0][0].outcome, Fault):
            as_write = Request(request.sid, request.pasid, request.iova, AccessKind.WRITE, True)
            written = self._permitted(as_write)
            if isinstance(written[0][0].outcome, Translation):
                return written
        return found

    def _permitted(self, request: Request) -> tuple[list[Candidate], Fresh]:
        fresh = Fresh()
        unique: list[Candidate] = []
        for candidate in self._candidates(request, fresh):
            if all(candidate.outcome != other.outcome for other in unique):
                unique.append(candidate)
        return unique, fresh

    def _candidates(self, request: Request, fresh: Fresh) -> Iterator[Candidate]:
        """Yield every outcome, the fresh one first; fill in what the fresh path saw."""
        if not self.enabled or INTERRUPT_FIRST <= request.iova <= INTERRUPT_LAST:
            # Untranslated; a write to the interrupt range is an interrupt message, not DMA.
            yield Candidate(self._identity(), ())
            return
        if self.lookup.mode == TTM_LEGACY and request.pasid is not None:
            yield Candidate(Fault(int(Reason.LEGACY_MODE_PASID)), ())
            return
        context = self.lookup.context(request.sid)
        if isinstance(context, Blocked):
            yield Candidate(Fault(int(context.reason)), context.steps, context.fault_disable)
        else:
            fresh.context = context
            yield from self._through_context(request, context, fresh, None)
        # An entry of the other mode (software switched it without invalidating) means nothing here.
        shape = CONTEXT if self.lookup.mode == TTM_LEGACY else SCALABLE_CONTEXT
        for way in self.caches.contexts.get(request.sid, ()):
            if len(way.words) != shape.words:
                continue
            if isinstance(context, Blocked) or way.words != context.words:
                stale = Entry(way.words, way.steps)
                yield from self._through_context(request, stale, None, way)

    def _identity(self) -> Translation:
        return Translation(0, (1 << self.config.host_address_width) - 1)

    def _through_context(
        self, request: Request, context: Entry, fresh: Fresh | None, stale: CachedWords | None
    ) -> Iterator[Candidate]:
        if self.lookup.mode == TTM_LEGACY:
            root = self.lookup.legacy_root(context.words)
            if fresh:
                fresh.context_domain = root.domain
            yield from self._through_root(request, root, context.steps, fresh, "context", stale)
            return
        number = self.lookup.effective_pasid(context.words, request.pasid)
        entry = self.lookup.pasid(context, request.pasid, request.kind)
        if fresh:
            fresh.pasid_number = number
        if isinstance(entry, Blocked):
            blocked = Candidate(Fault(int(entry.reason)), entry.steps, entry.fault_disable)
            yield self._stamp(blocked, "context", stale)
        else:
            root = self.lookup.scalable_root(context.words, entry, number)
            if fresh:
                fresh.pasid = entry
            yield from self._through_root(request, root, entry.steps, fresh, "context", stale)
        for way in self.caches.pasids.get((request.sid, number), ()):
            if isinstance(entry, Blocked) or way.words != entry.words:
                kept = Entry(way.words, way.steps)
                root = self.lookup.scalable_root(context.words, kept, number)
                yield from self._through_root(request, root, way.steps, None, "pasid", way)

    def _through_root(
        self,
        request: Request,
        root: PagingRoot,
        steps: tuple[Step, ...],
        fresh: Fresh | None,
        cache: str,
        stale: CachedWords | None,
    ) -> Iterator[Candidate]:
        """Yield what a paging root gives; cache and stale say why it is not the fresh root."""
        if fresh:
            fresh.root = root
        if root.stage is None:
            yield self._stamp(self._pass_through(request, root, steps), cache, stale)
            return
        result = walk(self.memory, self.config, root, request.iova, request.kind)
        if fresh:
            fresh.result = result
        yield self._stamp(
            Candidate(result.outcome, steps + result.steps, root.fault_disable, "", root.domain),
            cache,
            stale,
        )
        for structure in self._stale_structures(root, request, result):
            yield self._through_structure(request, root, steps, structure)
        for leaf in self.caches.translations(root.tag, request.iova):
            outcome = leaf.outcome
            if isinstance(outcome, Fault):
                outcome = self._absent(root, request.kind)
            kept = isinstance(leaf.outcome, Fault) or self._allows(leaf.rights, request)
            if outcome != result.outcome and kept:
                yield Candidate(
                    outcome,
                    leaf.steps,
                    root.fault_disable,
                    "iotlb",
                    root.domain,
                    leaf.filled_by,
                    self._changed_below(steps, leaf.steps, leaf.filled_by),
                )

    def _pass_through(
        self, request: Request, root: PagingRoot, steps: tuple[Step, ...]
    ) -> Candidate:
        outcome: Outcome = self._identity()
        if request.iova >> self.config.host_address_width:
            legacy = self.lookup.mode == TTM_LEGACY
            outcome = Fault(
                int(Reason.ADDRESS_BEYOND_WIDTH if legacy else Reason.PASS_THROUGH_BEYOND_WIDTH)
            )
        return Candidate(outcome, steps, root.fault_disable, "", root.domain)

    def _stale_structures(
        self, root: PagingRoot, request: Request, result: WalkResult
    ) -> Iterator[CachedStructure]:
        """Yield kept non-leaf entries that lead elsewhere than the fresh walk went.

        One without the right is not used: what it forbids is walked again.
        """
        for level in range(root.levels, 1, -1):
            went = next((n for n in result.nonleaf if n.step.level == level), None)
            for way in self.caches.structure(root.tag, level, request.iova):
                kept = (way.nonleaf.child, way.nonleaf.rights)
                if went is None or kept != (went.child, went.rights):
                    if self._allows(way.nonleaf.rights, request):
                        yield way

    def _through_structure(
        self,
        request: Request,
        root: PagingRoot,
        steps: tuple[Step, ...],
        structure: CachedStructure,
    ) -> Candidate:
        step, child, rights = structure.nonleaf
        resume = (step.level - 1, child, rights)
        result = walk(self.memory, self.config, root, request.iova, request.kind, resume)
        return Candidate(
            result.outcome,
            (*steps, step, *result.steps),
            root.fault_disable,
            "paging-structure",
            root.domain,
            structure.filled_by,
            self._changed_below(steps, (step,), structure.filled_by),
        )

    def _stamp(self, candidate: Candidate, cache: str, stale: CachedWords | None) -> Candidate:
        if stale is None:
            return candidate
        return Candidate(
            candidate.outcome,
            candidate.steps,
            candidate.fault_disable,
            cache,
            candidate.domain,
            stale.filled_by,
            self._changed_by(stale.steps),
        )

    @staticmethod
    def _allows(rights: Rights, request: Request) -> bool:
        """Say whether a kept entry answers a request: one without the right is walked again."""
        if request.any_right:
            return rights.read or rights.write
        match request.kind:
            case AccessKind.WRITE:
                return rights.write
            case AccessKind.EXECUTE:
                return rights.read and rights.execute
            case _:
                return rights.read

    def _changed_by(self, steps: tuple[Step, ...]) -> int:
        """Return the store that first made one of the entries differ, -1 when none is known."""
        for step in steps:
            now = self.memory.quadword(step.address)
            ignored = IGNORED_WHEN_COMPARING.get(step.role, 0)
            if now is None or (now ^ step.value) & ~ignored:
                writer = self.memory.last_writer(step.address)
                return -1 if writer is None else writer
        return -1

    def _changed_below(
        self, above: tuple[Step, ...], steps: tuple[Step, ...], filled_by: int
    ) -> int:
        """Return the store that made a kept entry differ from what is walked now.

        Where its own quadwords are as they were, the root above it has been changed since.
        """
        changed = self._changed_by(steps)
        if changed >= 0:
            return changed
        writers = (self.memory.last_writer(step.address) for step in above)
        newest = max((writer for writer in writers if writer is not None), default=-1)
        return newest if newest > filled_by else -1

    def adopt(self, request: Request, fresh: Fresh, event: int) -> None:
        """Fill the caches with what the fresh path used and make its A/D updates."""
        if fresh.context is None:
            return
        entry = CachedWords(fresh.context.words, fresh.context.steps, event, fresh.context_domain)
        self.caches.add_context(request.sid, entry)
        root, result = fresh.root, fresh.result
        if fresh.pasid is not None and root is not None:
            kept = CachedWords(fresh.pasid.words, fresh.pasid.steps, event, root.domain)
            self.caches.add_pasid(request.sid, fresh.pasid_number, kept)
        if root is None or result is None:
            return
        for address, value in result.updates:
            self.memory.write(address, value.to_bytes(8, "little"))
        tag: Tag = root.tag
        if isinstance(result.outcome, Translation):
            for nonleaf in result.nonleaf:
                self.caches.add_structure(tag, request.iova, CachedStructure(nonleaf, event))
            shift = result.outcome.mask.bit_length()
        elif self.config.cap("cm") and self._not_present(root, result):
            shift = PAGE_SHIFT[1]
        else:
            return
        outcome = result.outcome
        if isinstance(outcome, Fault):
            outcome = self._absent(root, AccessKind.READ)
        leaf = CachedTranslation(outcome, result.rights, result.steps, event)
        self.caches.add_translation(tag, shift, request.iova, leaf)

    @staticmethod
    def _absent(root: PagingRoot, kind: AccessKind) -> Fault:
        """Return the fault a kept not-present entry gives: it depends on who asks."""
        reasons = root.reasons
        write = kind == AccessKind.WRITE
        return Fault(int(reasons.not_present_write if write else reasons.not_present_read))

    @staticmethod
    def _not_present(root: PagingRoot, result: WalkResult) -> bool:
        """Say whether a second-stage walk ended at an entry that is not present at all."""
        if root.stage != Role.SECOND_STAGE or not result.steps:
            return False
        return result.steps[-1].value & PRESENT[root.stage] == 0
