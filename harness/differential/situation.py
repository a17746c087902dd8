"""Put a finding about a VT-d unit into facts, which the table of deviations knows it by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from decoders.events import (
    Access,
    AccessKind,
    Event,
    Fault,
    FaultRecord,
    InterruptRequest,
    RegRead,
    RegWrite,
    Role,
    Translation,
)
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    DESCRIPTOR_SIZES,
    IGNORED_FUNCTION_BITS,
    ContextCacheInvalidation,
    DescriptorType,
    descriptor_type,
)
from decoders.vtd.faults import FaultRecordRegister
from harness.differential.deviation import NO_RECORD, Situation
from harness.differential.device_tlb import device_notes
from harness.differential.queued import descriptor, oddity, refused
from harness.differential.table_use import ACCESSED, DIRTY, TableUse
from harness.findings import Finding, FindingKind
from harness.model.caches import CachedTranslation
from harness.model.interrupts import NO_SOURCE
from harness.model.lookup import (
    CONTEXT,
    PASID,
    PGTT_FIRST,
    PGTT_PASS_THROUGH,
    TT_PASS_THROUGH,
    TTM_LEGACY,
    Blocked,
)
from harness.model.stages import Rights
from harness.model.translate import Candidate
from harness.model.walk import Step
from harness.targets.model import ModelReplay

LOST: Final = (1 << 64) - 4096
"""Where an access is said to have led that landed nowhere and left no fault record."""

_NAMES: Final = {
    register.offset: name
    for name, register in (
        ("FSTS", vtd.FSTS), ("IQH", vtd.IQH), ("GSTS", vtd.GSTS), ("ICS", vtd.ICS),
        ("FECTL", vtd.FECTL), ("FEDATA", vtd.FEDATA), ("FEADDR", vtd.FEADDR),
        ("IECTL", vtd.IECTL), ("IEDATA", vtd.IEDATA), ("IEADDR", vtd.IEADDR),
        ("RTADDR", vtd.RTADDR), ("IQERCD", vtd.IQERCD), ("CCMD", vtd.CCMD), ("IOTLB", vtd.IOTLB),
    )
}  # fmt: skip
_RECORD: Final = layout(FaultRecordRegister)
_CFIS: Final = layout(vtd.GlobalStatus)["cfis"].mask
_FPD: Final = CONTEXT["fpd"].mask
_ABOVE_PASID: Final = (Role.SCALABLE_CONTEXT, Role.PASID_DIRECTORY)
_CONTEXT_INVALIDATION: Final = layout(ContextCacheInvalidation)
_CCMD: Final = layout(vtd.ContextCommand)
_BY_DEVICE: Final = 3
_SRTP: Final = layout(vtd.GlobalCommand)["srtp"].mask


def passing(guide: ModelReplay, sid: int) -> bool:
    """Say whether the tables let a source pass through, as they are now."""
    translator = guide.unit.translator
    context = translator.lookup.context(sid)
    if not translator.enabled or isinstance(context, Blocked):
        return False
    if translator.lookup.mode == TTM_LEGACY:
        return CONTEXT["tt"].get(context.words) == TT_PASS_THROUGH
    entry = translator.lookup.pasid(context, None)
    return not isinstance(entry, Blocked) and PASID["pgtt"].get(entry.words) == PGTT_PASS_THROUGH


def _same(sid: int, other: int, mask: int) -> bool:
    """Say whether a device-selective invalidation of another id is about a source, too."""
    return not (sid ^ other) & ~IGNORED_FUNCTION_BITS[mask]


class History:
    """Remember what the facts of a finding depend on, and a model does not keep."""

    def __init__(self, sids: Sequence[int]) -> None:
        self._sids = tuple(dict.fromkeys(sids))
        self._passed: set[int] = set()
        self._flushed: set[int] = set()
        self._enabled = False
        self.queued: list[tuple[int, ...]] = []
        self.slot = DESCRIPTOR_SIZES[0]
        """Bytes of a descriptor."""
        self.written_by_dma: set[int] = set()
        """Numbers of the interrupt requests that were."""

    def written(
        self,
        guide: ModelReplay,
        write: RegWrite,
        queued: list[tuple[int, ...]],
        done: list[tuple[int, ...]],
    ) -> None:
        """Take note of a register write that was applied, and of the descriptors it set off.

        queued are those that were stored for it, done those that the queue did not stop at.
        """
        kinds = {descriptor_type(words[0]) for words in done}
        if write.offset == vtd.IQT.offset:
            self.queued = queued
            self.slot = 8 * len(queued[0]) if queued else self.slot
        before, self._enabled = self._enabled, guide.unit.translator.enabled
        switched = self._enabled != before
        for sid in self._sids:
            if switched or self._looked_at(sid, write, done):
                self._flushed.discard(sid)
                self._passed.discard(sid)
                if passing(guide, sid):
                    self._passed.add(sid)
        if DescriptorType.PASID_CACHE in kinds:
            self._flushed |= self._passed
            # QEMU 11.1 looks at all of them then.
            self._passed |= {sid for sid in self._sids if passing(guide, sid)}

    @staticmethod
    def _looked_at(sid: int, write: RegWrite, done: list[tuple[int, ...]]) -> bool:
        """Say whether a write makes the unit look at the context entry of a source anew."""
        if write.offset == vtd.GCMD.offset:
            return bool(write.value & _SRTP)
        if write.offset == vtd.CCMD.offset:
            value = (write.value,)
            device = _CCMD["cirg"].get(value) == _BY_DEVICE
            return not device or _same(sid, _CCMD["sid"].get(value), _CCMD["fm"].get(value))
        for words in done:
            if descriptor_type(words[0]) == DescriptorType.CONTEXT_CACHE:
                device = _CONTEXT_INVALIDATION["g"].get(words) == _BY_DEVICE
                function = _CONTEXT_INVALIDATION["sid"].get(words)
                mask = _CONTEXT_INVALIDATION["fm"].get(words)
                if not device or _same(sid, function, mask):
                    return True
        return False

    def accessed(self, guide: ModelReplay, sid: int) -> None:
        """Take note of an access that is about to be judged."""
        if passing(guide, sid):
            self._passed.add(sid)
            self._flushed.discard(sid)

    def may_pass(self, sid: int) -> bool:
        """Say whether QEMU may let a source pass through that it did not look at again."""
        return sid in self._flushed

    def untranslated(self, guide: ModelReplay) -> frozenset[int]:
        """Return the sources that pass through, or did when the unit last looked at them."""
        return frozenset(sid for sid in self._sids if sid in self._passed or passing(guide, sid))

    def notes(self, guide: ModelReplay, access: Access | None) -> set[str]:
        """Return the facts that hold now."""
        found: set[str] = set()
        stopped = refused(guide, self.slot)
        if stopped and descriptor_type(stopped[0]) == DescriptorType.PASID_CACHE:
            found.add("PASID-cache descriptor is wrong")
        if access is None:
            return found
        if access.sid in self._passed:
            found.add("passed through")
        if access.sid in self._flushed:
            found.add("passed through before a PASID-cache invalidation")
        return found


def situation(
    finding: Finding,
    events: Sequence[Event],
    guide: ModelReplay,
    history: History,
    ways: Mapping[int, Sequence[Candidate]],
    use: TableUse | None = None,
) -> Situation:
    """Return the facts of a finding.

    ways are those to the outcomes of accesses; use is there for a finding about tables.
    """
    event = events[finding.event] if 0 <= finding.event < len(events) else None
    # A fault record, and FSTS behind DMA, are about the access before them.
    at = finding.event
    before = events[at - 1]
    if isinstance(event, FaultRecord | RegRead) and isinstance(before, Access | InterruptRequest):
        at -= 1
    access = event if isinstance(event, Access) else None
    subject = finding.subject
    if isinstance(event, RegRead) and subject == "register":
        subject = _NAMES.get(event.offset, "register")
    by_queue = isinstance(event, RegWrite) and event.offset == vtd.IQT.offset
    by_dma = {"message written by DMA"} if at in history.written_by_dma else set()
    if isinstance(event, FaultRecord) and _RECORD["sid"].get((event.low, event.high)) == NO_SOURCE:
        by_dma.add("record without a source")
    notes = (
        history.notes(guide, access)
        | by_dma
        | device_notes(
            finding, guide, history.queued, history.untranslated(guide), access, ways.get(at, ())
        )
    )
    if by_queue:
        notes.add("tail written")
    notes |= set(_compared(finding, subject, guide, history, use))
    if access is not None:
        if guide.unit.caches.contexts.get(access.sid):
            notes.add("context entry is cached")
        if _left(guide, access) or (
            finding.kind == FindingKind.STALE_AFTER_INVALIDATION and finding.covered_by < 0
        ):
            notes.add("tag left")
        if subject == "permission" and _lacks_other_right(guide, access, finding.observed):
            notes.add("page has one right only")
        if _cached_without_right(guide, access):
            notes.add("cached without the right")
    notes |= _fault_disable(ways.get(at, ()), events[at])
    notes |= _entries(ways.get(at, ()))
    if access is not None and any(_beyond(way, access.iova) for way in ways.get(at, ())):
        notes.add("beyond AW of a first stage")
    permitted = frozenset(_word(one, access) for one in finding.permitted)
    return Situation(subject, _word(finding.observed, access), permitted, frozenset(notes))


def _compared(
    finding: Finding,
    subject: str,
    guide: ModelReplay,
    history: History,
    use: TableUse | None,
) -> Iterator[str]:
    """Say what is remarkable about what was seen beside what was permitted."""
    seen = finding.observed
    for right in finding.permitted:
        if subject == "IQH" and isinstance(seen, int):
            requests = bool(guide.unit.config.ecap("prs"))
            odd = oddity(descriptor(guide, seen, history.slot), page_requests=requests)
            if odd:
                yield f"stopped at a {odd}"
        if isinstance(seen, int) and isinstance(right, int) and seen ^ right == _CFIS:
            yield "CFIS alone"
        # An entry is its address and its content.
        if use is not None and isinstance(seen, bytes) and isinstance(right, bytes):
            place = int.from_bytes(seen[:8], "big")
            differ = int.from_bytes(seen, "big") ^ int.from_bytes(right, "big")
            flags = seen[-1] & (ACCESSED | DIRTY)
            if differ & ~ACCESSED == DIRTY and not flags & DIRTY and place in use.read:
                yield "D clear of what a read has cached"
            if differ & ~ACCESSED == DIRTY and flags & DIRTY and place in use.blocked:
                yield "D set on the way to the interrupt range"
            if differ in (ACCESSED, DIRTY) and not differ & flags and place in use.half:
                yield "D clear where A was set" if differ == DIRTY else "A clear where D was set"


def cached(guide: ModelReplay, access: Access) -> list[CachedTranslation]:
    """Return the translations kept for an access, those with the right first, of all domains."""
    unit = guide.unit
    found = [
        way for tag in unit.tags(access.sid) for way in unit.caches.translations(tag, access.iova)
    ]
    return sorted(found, key=lambda way: not allows(way.rights, access))


def _left(guide: ModelReplay, access: Access) -> bool:
    """Say whether an access led where a translation does that is kept for the source."""
    seen = access.outcome
    if not isinstance(seen, Translation):
        return False
    place = seen.address | access.iova & seen.mask
    return any(
        isinstance(way.outcome, Translation)
        and way.outcome.address | access.iova & way.outcome.mask == place
        and allows(way.rights, access)
        for way in cached(guide, access)
    )


def _entries(ways: Sequence[Candidate]) -> set[str]:
    """Return what the context and PASID entries of an access are remarkable for."""
    found = set()
    for step in (step for way in ways for step in way.steps):
        if step.role in _ABOVE_PASID and step.value & _FPD and step.value & 1:
            found.add("FPD above the PASID entry")
        # Tables may say something else by now than an entry that is cached.
        if _passes(step):
            found.add("passed through")
    return found


def _beyond(way: Candidate, iova: int) -> bool:
    """Say whether an address is not canonical for AW of a PASID entry with a first stage."""
    for step in way.steps:
        words = (step.value,)
        if step.role == Role.PASID_TABLE and not step.address % 64:
            upper = iova >> 29 + 9 * PASID["aw"].get(words)
            same = upper in (0, (1 << 64) - 1 >> 29 + 9 * PASID["aw"].get(words))
            if PASID["pgtt"].get(words) == PGTT_FIRST and not same:
                return True
    return False


def _passes(step: Step) -> bool:
    """Say whether an entry that was used lets its source pass through."""
    if step.role == Role.PASID_TABLE and not step.address % 64:
        return PASID["pgtt"].get((step.value,)) == PGTT_PASS_THROUGH
    return (
        step.role == Role.CONTEXT
        and not step.address % 16
        and CONTEXT["tt"].get((step.value,)) == TT_PASS_THROUGH
    )


def _fault_disable(ways: Sequence[Candidate], event: Event) -> set[str]:
    """Say where FPD of an access comes from that faults whatever entries are used."""
    if not isinstance(event, Access) or not isinstance(event.outcome, Fault):
        return set()
    same = [way for way in ways if way.outcome == event.outcome]
    if len({way.fault_disable for way in same}) > 1:
        return {"FPD of an entry that is cached"}
    for way in same[:1]:
        context = [s.value for s in way.steps if s.role in (Role.CONTEXT, Role.SCALABLE_CONTEXT)]
        if way.fault_disable and context and not context[0] & _FPD:
            return {"FPD of a PASID structure"}
    return set()


def _cached_without_right(guide: ModelReplay, access: Access) -> bool:
    """Say whether a cached translation of an access lacks the right that it needs."""
    ways = cached(guide, access)
    return bool(ways) and not allows(ways[-1].rights, access)


def _lacks_other_right(guide: ModelReplay, access: Access, given: object) -> bool:
    """Say whether what a device was given lacks, where it is kept, the right not asked for."""
    kind = AccessKind.READ if access.kind is AccessKind.WRITE else AccessKind.WRITE
    other = replace(access, kind=kind)
    return any(
        isinstance(given, Translation)
        and isinstance(way.outcome, Translation)
        and way.outcome.address | access.iova & way.outcome.mask
        == given.address | access.iova & given.mask
        and not allows(way.rights, other)
        for way in cached(guide, access)
    )


def allows(rights: Rights, access: Access) -> bool:
    """Say whether rights that are kept suffice for an access."""
    return rights.user and (rights.write if access.kind is AccessKind.WRITE else rights.read)


def _word(seen: object, access: Access | None) -> str:
    match seen:
        case Fault(reason):
            return f"fault {reason:#04x}"
        case Translation(address, mask):
            if address == LOST:
                return NO_RECORD
            if access is not None and address | access.iova & mask == access.iova:
                return "identity"
            return "translation"
        case bytes():
            return "entry"
        case int():
            return f"{seen:#x}"
        case None:
            return "nothing"
        case _:
            return type(seen).__name__
