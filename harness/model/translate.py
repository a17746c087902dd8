"""The permitted set of a request: the fresh outcome, and what stale cache entries would give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from decoders.events import NO_ATTRIBUTES, AccessKind, Attribute, Fault, Outcome, Role, Translation
from decoders.vtd.faults import Reason
from decoders.vtd.interrupt import INTERRUPT_FIRST, INTERRUPT_LAST
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
    PASID,
    REFUSED_BY_CONTEXT,
    TTM_LEGACY,
    Blocked,
    Entry,
    Lookup,
)
from harness.model.stages import (
    ALL_RIGHTS,
    IGNORED_WHEN_COMPARING,
    NO_PASID,
    PRESENT,
    PagingRoot,
    Rights,
    stage_of,
)
from harness.model.walk import (
    Below,
    NonLeaf,
    Step,
    WalkResult,
    walk,
)

ABORTED = Fault(0)
"""Answers a request in abort mode: there is no reason, and nothing is recorded (VirtualBox)."""


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
    attributes: Attribute = NO_ATTRIBUTES


@dataclass(frozen=True, slots=True)
class Candidate:
    """One permitted outcome and where it comes from.

    cache is "" for the fresh one, else the cache whose stale entry gives it; filled_by is the
    event that put that entry there and changed_by the store that made it differ from memory.
    rights are those that its paging entries leave.
    """

    outcome: Outcome
    steps: tuple[Step, ...]
    fault_disable: bool = False
    cache: str = ""
    domain: int = -1
    filled_by: int = -1
    changed_by: int = -1
    rights: Rights = field(default=ALL_RIGHTS, compare=False)


@dataclass(slots=True)
class Fresh:
    """What the fresh path saw, for filling the caches once its outcome is adopted."""

    context: Entry | None = None
    context_blocked: Blocked | None = None
    context_domain: int = -1
    pasid: Entry | None = None
    pasid_blocked: Blocked | None = None
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
        as_read = replace(request, kind=AccessKind.READ, any_right=True)
        found = self._permitted(as_read)
        if isinstance(found[0][0].outcome, Fault):
            as_write = replace(as_read, kind=AccessKind.WRITE)
            written = self._permitted(as_write)
            if isinstance(written[0][0].outcome, Translation):
                return written
        return found

    def candidates(self, request: Request) -> list[Candidate]:
        """Return all ways to an outcome, the fresh one first: several may have the same outcome."""
        return list(self._candidates(request, Fresh()))

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
        unchecked = self.config.dialect.device_requests_unchecked
        if unchecked and request.attributes & Attribute.TRANSLATED:
            yield Candidate(self._identity(), ())
            return
        if self.lookup.aborting:
            yield Candidate(ABORTED, ())
            return
        if self.lookup.mode == TTM_LEGACY and request.pasid is not None:
            yield Candidate(Fault(int(Reason.LEGACY_MODE_PASID)), ())
            return
        context = self.lookup.context(request.sid)
        if isinstance(context, Blocked):
            fresh.context_blocked = context
            yield self._blocked(context)
        else:
            fresh.context = context
            yield from self._through_context(request, context, fresh, None)
        words = self.lookup.context_words()
        for way in self.caches.contexts.get(request.sid, ()):
            # An entry of the other mode (software switched it without invalidating) means nothing.
            if len(way.words) != words or way.is_of(context):
                continue
            if way.blocked is not None:
                yield self._stamp(self._blocked(way.blocked), "context", way)
            else:
                stale = Entry(way.words, way.steps)
                yield from self._through_context(request, stale, None, way)

    @staticmethod
    def _blocked(found: Blocked) -> Candidate:
        return Candidate(Fault(int(found.reason)), found.steps, found.fault_disable)

    def _identity(self) -> Translation:
        return Translation(0, (1 << self.config.host_address_width) - 1)

    def _through_context(
        self, request: Request, context: Entry, fresh: Fresh | None, stale: CachedWords | None
    ) -> Iterator[Candidate]:
        legacy = self.lookup.mode == TTM_LEGACY
        if fresh and legacy:
            fresh.context_domain = self.lookup.legacy_root(context.words).domain
        if reason := self.lookup.type_fault(context.words, request.attributes):
            disable = self.lookup.context_disables(context.words)
            yield self._stamp(
                self._blocked(Blocked(reason, disable, context.steps)), "context", stale
            )
            return
        if request.attributes & Attribute.TRANSLATED:
            yield self._stamp(Candidate(self._identity(), context.steps), "context", stale)
            return
        if legacy:
            root = self.lookup.legacy_root(context.words)
            yield from self._through_root(request, root, context.steps, fresh, "context", stale)
            return
        number = self.lookup.effective_pasid(context.words, request.pasid)
        entry = self.lookup.pasid(context, request.pasid)
        if fresh:
            fresh.pasid_number = number
        if isinstance(entry, Blocked):
            if fresh:
                fresh.pasid_blocked = entry
            yield self._stamp(self._blocked(entry), "context", stale)
            if entry.reason in REFUSED_BY_CONTEXT:
                return  # whatever is kept of the PASID
        else:
            if fresh:
                fresh.pasid = entry
            yield from self._through_pasid(request, context, entry, fresh, "context", stale)
        for way in self.caches.pasids.get((request.sid, number), ()):
            if way.is_of(entry):
                continue
            if way.blocked is not None:
                yield self._stamp(self._blocked(way.blocked), "pasid", way)
            else:
                kept = Entry(way.words, way.steps)
                yield from self._through_pasid(request, context, kept, None, "pasid", way)

    def _through_pasid(
        self,
        request: Request,
        context: Entry,
        entry: Entry,
        fresh: Fresh | None,
        cache: str,
        stale: CachedWords | None,
    ) -> Iterator[Candidate]:
        """Yield what a valid PASID entry gives."""
        number = self.lookup.effective_pasid(context.words, request.pasid)
        privileged = self.lookup.privileged(context.words, request.pasid, request.attributes)
        root = self.lookup.scalable_root(context.words, entry, number, privileged)
        if reason := self.lookup.pasid_refuses(entry.words, request.kind, privileged):
            refused = Blocked(reason, root.fault_disable, entry.steps)
            yield self._stamp(self._blocked(refused), cache, stale)
        else:
            yield from self._through_root(request, root, entry.steps, fresh, cache, stale)

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
        way = Candidate(
            result.outcome,
            steps + result.steps,
            root.fault_disable,
            domain=root.domain,
            rights=result.rights,
        )
        yield self._stamp(way, cache, stale)
        wanted = (AccessKind.READ, AccessKind.WRITE) if request.any_right else (request.kind,)
        for structure in self._stale_structures(root, request.iova, wanted, result):
            kept = structure.nonleaf
            resume = (kept.step.level - 1, kept.child, kept.rights)
            went = walk(self.memory, self.config, root, request.iova, request.kind, resume)
            trail = (*steps, kept.step, *went.steps)
            yield self._kept(root, steps, structure, went.outcome, trail, went.rights)
        for leaf in self._stale_leaves(root, request.iova, request.kind, wanted, result.outcome):
            outcome = self._outcome(leaf, root, request.kind)
            yield self._kept(root, steps, leaf, outcome, leaf.steps, leaf.rights)
        for number, below in enumerate(result.below):
            yield from self._through_host(request, root, steps, number, below)

    def _through_host(
        self,
        request: Request,
        root: PagingRoot,
        steps: tuple[Step, ...],
        number: int,
        below: Below,
    ) -> Iterator[Candidate]:
        """Yield what a nested walk gives when a kept entry answers one second-stage walk of it."""
        host, address, kind, result = below
        guess = request.any_right and root.host is not None and host is root.host.data
        wanted = (AccessKind.READ, AccessKind.WRITE) if guess else (kind,)

        def instead(answer: WalkResult) -> WalkResult:
            def translate(at: int, under: PagingRoot, where: int, how: AccessKind) -> WalkResult:
                if at == number:
                    return answer
                return walk(self.memory, self.config, under, where, how)

            return walk(self.memory, self.config, root, request.iova, request.kind, None, translate)

        for structure in self._stale_structures(host, address, wanted, result):
            kept = structure.nonleaf
            resume = (kept.step.level - 1, kept.child, kept.rights)
            went = walk(self.memory, self.config, host, address, kind, resume)
            went = instead(replace(went, steps=(kept.step, *went.steps)))
            trail = steps + went.steps
            yield self._kept(root, steps, structure, went.outcome, trail, went.rights)
        for leaf in self._stale_leaves(host, address, kind, wanted, result.outcome):
            outcome = self._outcome(leaf, host, kind)
            went = instead(WalkResult(outcome, leaf.rights, leaf.steps))
            trail = steps + went.steps
            yield self._kept(root, steps, leaf, went.outcome, trail, went.rights)

    def _kept(
        self,
        root: PagingRoot,
        steps: tuple[Step, ...],
        entry: CachedStructure | CachedTranslation,
        outcome: Outcome,
        trail: tuple[Step, ...],
        rights: Rights,
    ) -> Candidate:
        """Return what a kept entry gives; steps are those to the paging root."""
        leaf = isinstance(entry, CachedTranslation)
        own = entry.steps if isinstance(entry, CachedTranslation) else (entry.nonleaf.step,)
        return Candidate(
            outcome,
            trail,
            root.fault_disable,
            "iotlb" if leaf else "paging-structure",
            root.domain,
            entry.filled_by,
            self._changed_below(steps, own, entry.filled_by),
            rights,
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
        self,
        root: PagingRoot,
        address: int,
        wanted: tuple[AccessKind, ...],
        result: WalkResult,
    ) -> Iterator[CachedStructure]:
        """Yield kept non-leaf entries that lead elsewhere than the fresh walk went.

        One without the right is not used: what it forbids is walked again.
        """
        for level in range(root.levels, 1, -1):
            went = next((n for n in result.nonleaf if n.step.level == level), None)
            for way in self.caches.structure(root.tag, level, address):
                if went is None or not self._same_way(way.nonleaf, went):
                    if self._allows(root, way.nonleaf.rights, wanted):
                        yield way

    @staticmethod
    def _same_way(one: NonLeaf, other: NonLeaf) -> bool:
        return (one.child, one.rights) == (other.child, other.rights)

    def _stale_leaves(
        self,
        root: PagingRoot,
        address: int,
        kind: AccessKind,
        wanted: tuple[AccessKind, ...],
        fresh: Outcome,
    ) -> Iterator[CachedTranslation]:
        """Yield kept leaves that answer otherwise than the fresh walk did."""
        for leaf in self.caches.translations(root.tag, address):
            if self._outcome(leaf, root, kind) == fresh:
                continue
            if isinstance(leaf.outcome, Fault) or self._allows(root, leaf.rights, wanted):
                yield leaf

    def _allows(self, root: PagingRoot, rights: Rights, wanted: tuple[AccessKind, ...]) -> bool:
        stage = stage_of(self.config, root)
        return any(stage.allows(rights, kind) for kind in wanted)

    def _outcome(self, leaf: CachedTranslation, root: PagingRoot, kind: AccessKind) -> Outcome:
        return self._absent(root, kind) if isinstance(leaf.outcome, Fault) else leaf.outcome

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
            self.changed_by(stale.steps),
            candidate.rights,
        )

    def changed_by(self, steps: tuple[Step, ...]) -> int:
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
        changed = self.changed_by(steps)
        if changed >= 0:
            return changed
        writers = (self.memory.last_writer(step.address) for step in above)
        newest = max((writer for writer in writers if writer is not None), default=-1)
        return newest if newest > filled_by else -1

    def adopt(self, request: Request, fresh: Fresh, event: int) -> None:
        """Fill the caches with what the fresh path used and make its A/D updates."""
        if context := fresh.context or fresh.context_blocked:
            kept = self._words(context, event, fresh.context_domain)
            if kept is not None:
                self.caches.add_context(request.sid, kept)
        if pasid := fresh.pasid or fresh.pasid_blocked:
            domain = PASID.fields["did"].get(pasid.words) if isinstance(pasid, Entry) else 0
            kept = self._words(pasid, event, domain)
            if kept is not None:
                self.caches.add_pasid(request.sid, fresh.pasid_number, kept)
        result = fresh.result
        if fresh.root is None or result is None:
            return
        for address, bits in result.updates:
            now = self.memory.quadword(address) or 0
            if bits & ~now:
                self.memory.write(address, (now | bits).to_bytes(8, "little"))
        for below in result.below:
            self._fill(below.root, below.address, below.result, event)
        self._fill(fresh.root, request.iova, result, event)

    def _words(self, found: Entry | Blocked, event: int, domain: int) -> CachedWords | None:
        """Return what is kept of an entry: one that blocks only in caching mode, with domain 0."""
        if isinstance(found, Entry):
            return CachedWords(found.words, found.steps, event, domain)
        if not found.kept or not self.config.cap("cm"):
            return None
        return CachedWords((0,) * self.lookup.context_words(), found.steps, event, 0, found)

    def _fill(self, root: PagingRoot, address: int, result: WalkResult, event: int) -> None:
        """Keep the entries of one walk that ended in a translation, or not at all."""
        tag: Tag = root.tag
        outcome = result.outcome
        if isinstance(outcome, Translation):
            for nonleaf in result.nonleaf:
                self.caches.add_structure(tag, address, CachedStructure(nonleaf, event))
            shift = outcome.mask.bit_length()
        elif self.config.cap("cm") and self._not_present(root, result):
            shift = PAGE_SHIFT[1]
            outcome = self._absent(root, AccessKind.READ)
        else:
            return
        leaf = CachedTranslation(outcome, result.rights, result.leaf_steps, event)
        self.caches.add_translation(tag, shift, address, leaf)

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
