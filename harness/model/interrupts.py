"""Interrupt remapping: what becomes of a message that a device writes (VT-d specification 5.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from decoders.events import Delivery, Fault, Interrupt, Message, Posted, Role
from decoders.layout import layout
from decoders.vtd.faults import Reason
from decoders.vtd.interrupt import (
    INTERRUPT_FIRST,
    SUBHANDLE_MASK,
    InterruptRemapEntry,
    PostedInterruptDescriptor,
    PostedInterruptEntry,
    RemappableAddress,
    message_index,
)
from decoders.vtd.register_fields import Irta
from harness.memory import Memory
from harness.model.caches import WAYS
from harness.model.config import UnitConfig
from harness.model.walk import Step

ENTRY = layout(InterruptRemapEntry)
POSTED = layout(PostedInterruptEntry)
DESCRIPTOR = layout(PostedInterruptDescriptor)
ADDRESS = layout(RemappableAddress)
IRTA = layout(Irta)

INTERRUPT_PAGE = INTERRUPT_FIRST >> 20
"""What bits 63:20 of the address of an interrupt are."""
IGNORED_FUNCTION = (0, 0b100, 0b110, 0b111)
"""Bits of the source id that do not count, by SQ."""
NO_SOURCE = 0xFFFF
"""What a fault record names where a request came without a source id (QEMU's too)."""
INDEX_MASK = 0xFFFF
"""The bits of an index that a fault record has room for."""
LEVEL_ASSERT = 1 << 14  # of a message's data, as QEMU sets it


@dataclass(frozen=True, slots=True)
class InterruptMessage:
    """One interrupt request as it arrives; sid is None where its source is not checked."""

    sid: int | None
    address: int
    data: int


@dataclass(frozen=True, slots=True)
class Remapping:
    """One permitted outcome and where it comes from, as a Candidate is for an access.

    index is what a fault record names.
    """

    outcome: Delivery
    steps: tuple[Step, ...] = ()
    fault_disable: bool = False
    index: int = 0
    cache: str = ""
    filled_by: int = -1
    changed_by: int = -1


@dataclass(frozen=True, slots=True)
class KeptEntry:
    """An entry as it was when a request used it; dropped_by is the event that invalidated it."""

    words: tuple[int, ...]
    address: int
    filled_by: int
    dropped_by: int = -1


@dataclass(frozen=True, slots=True)
class FreshEntry:
    """What a request read from the table, for filling the cache."""

    index: int
    address: int
    words: tuple[int, ...]


class EntryCache:
    """Hold the entries that a unit may have kept; up to WAYS different ones for each index."""

    def __init__(self) -> None:
        self._kept: dict[int, list[KeptEntry]] = {}
        self._dropped: dict[int, list[KeptEntry]] = {}
        self.looked_at = 0
        """Keys that invalidations of less than everything have looked at so far."""

    def at(self, index: int) -> tuple[KeptEntry, ...]:
        """Return what may be kept of an entry."""
        return tuple(self._kept.get(index, ()))

    def dropped_at(self, index: int) -> tuple[KeptEntry, ...]:
        """Return what was kept of an entry before it was invalidated, the newest first."""
        return tuple(reversed(self._dropped.get(index, ())))

    def add(self, fresh: FreshEntry, event: int) -> None:
        """Keep an entry, unless it is kept already."""
        ways = self._kept.setdefault(fresh.index, [])
        if all(way.words != fresh.words for way in ways):
            ways.append(KeptEntry(fresh.words, fresh.address, event))
            del ways[:-WAYS]

    def drop(self, event: int) -> None:
        """Drop all entries."""
        self._drop(event, list(self._kept))

    def drop_range(self, event: int, index: int, order: int) -> None:
        """Drop 2^order entries, those whose index differs from the given one in low bits only."""
        first, count = index >> order << order, 1 << order
        self.looked_at += min(count, len(self._kept))
        if count < len(self._kept):
            found = [key for key in range(first, first + count) if key in self._kept]
        else:
            found = [key for key in self._kept if key >> order == index >> order]
        self._drop(event, found)

    def _drop(self, event: int, keys: Iterable[int]) -> None:
        for key in keys:
            dropped = self._dropped.setdefault(key, [])
            for way in self._kept.pop(key):
                dropped.append(KeptEntry(way.words, way.address, way.filled_by, event))
            del dropped[:-WAYS]


class Remapper:
    """Compute permitted outcomes over the table, the cache and the state of interrupt remapping."""

    def __init__(self, config: UnitConfig, memory: Memory):
        self._config = config
        self._memory = memory
        self.cache = EntryCache()
        self.enabled = False
        self.compatibility = False
        """Messages of the compatibility format pass (GSTS.CFIS)."""
        self._table = self._entries = 0
        self._extended = False

    def reset(self, event: int) -> None:
        """Return to power-on state."""
        self.enabled = self.compatibility = self._extended = False
        self._table = self._entries = 0
        self.cache.drop(event)

    def latch(self, value: int, event: int) -> None:
        """Follow GCMD.SIRTP: take over IRTA."""
        words = (value,)
        self._table = IRTA["irta"].address(words)
        self._entries = 2 << IRTA["s"].get(words)
        self._extended = bool(IRTA["eime"].get(words))
        if self._config.cap("esirtps"):
            self.cache.drop(event)

    def permitted(
        self, request: InterruptMessage
    ) -> tuple[list[Remapping], FreshEntry | None, list[tuple[KeptEntry, Delivery]]]:
        """Return the permitted outcomes, the fresh one first, what was read, what was dropped.

        None of the outcomes is there twice.
        """
        index = self._admit(request)
        if isinstance(index, Remapping):
            return [index], None, []
        fresh, first = self._fetch(index, request)
        unique = [first]
        for way in self.cache.at(index):
            if fresh is not None and way.words == fresh.words:
                continue
            outcome, disable = self._outcome(way.words, request)
            if all(outcome != other.outcome for other in unique):
                unique.append(
                    Remapping(
                        outcome,
                        tuple(self._steps(way.address, way.words)),
                        disable,
                        self._named(index, outcome),
                        "interrupt-entry",
                        way.filled_by,
                        self._changed_by(way, index),
                    )
                )
        gone = [(way, self._outcome(way.words, request)[0]) for way in self.cache.dropped_at(index)]
        return unique, fresh, gone

    def adopt(self, fresh: FreshEntry | None, event: int) -> None:
        """Fill the cache with the entry that the fresh path used."""
        if fresh is None:
            return
        fault = self._check(fresh.words)
        # In caching mode what is not present may be cached, too.
        if fault is None or (fault == Reason.REMAP_NOT_PRESENT and self._config.cap("cm")):
            self.cache.add(fresh, event)

    def post(self, posting: Posted) -> Interrupt | None:
        """Set a vector in a posted descriptor; return the notification that this sends, if any."""
        memory = self._memory
        at = posting.descriptor + posting.vector // 64 * 8
        pending = memory.quadword(at)
        control_at = posting.descriptor + 8 * DESCRIPTOR["on"].word
        control = memory.quadword(control_at)
        if pending is None or control is None:
            return None
        memory.write(at, (pending | 1 << posting.vector % 64).to_bytes(8, "little"))
        words = [0] * DESCRIPTOR["on"].word + [control]
        silent = DESCRIPTOR["sn"].get(words) and not posting.urgent
        if silent or DESCRIPTOR["on"].get(words):
            return None
        DESCRIPTOR["on"].put(words, 1)
        memory.write(control_at, words[-1].to_bytes(8, "little"))
        target = self._destination(DESCRIPTOR["ndst"].get(words))
        sent = _message(target, DESCRIPTOR["nv"].get(words))
        return Interrupt(sent.address, sent.data)

    # -- the way of a request ----------------------------------------------------------------

    def _admit(self, request: InterruptMessage) -> int | Remapping:
        """Return the index of the entry, or the outcome of a request that does not get that far."""
        dialect = self._config.dialect
        unchanged = Remapping(Message(request.address, request.data))
        if not self.enabled:
            return unchanged
        if request.address >> 20 != INTERRUPT_PAGE:
            return Remapping(Fault(int(Reason.REMAP_REQUEST_RESERVED)))
        index = message_index(request.address, request.data)
        if index is None:
            passes = self.compatibility and not self._extended
            if passes or dialect.compatibility_format_passes:
                return unchanged
            return Remapping(Fault(int(Reason.REMAP_COMPATIBILITY_BLOCKED)))
        if dialect.interrupt_index_wraps:
            index &= INDEX_MASK
        if self._reserved_data(request) and not dialect.request_data_checked_last:
            return Remapping(Fault(int(Reason.REMAP_REQUEST_RESERVED)), index=index)
        beyond = dialect.root_pointer_checked and self._table & self._config.beyond_host_pointer
        if beyond or index >= self._entries:
            return Remapping(Fault(int(Reason.REMAP_INDEX)), index=index)
        return index

    @staticmethod
    def _reserved_data(request: InterruptMessage) -> bool:
        return bool(ADDRESS["shv"].get((request.address,)) and request.data & ~SUBHANDLE_MASK)

    def _fetch(self, index: int, request: InterruptMessage) -> tuple[FreshEntry | None, Remapping]:
        address = self._place(index)
        words = [self._memory.quadword(address + 8 * n) for n in range(ENTRY.words)]
        known = tuple(word for word in words if word is not None)
        if len(known) < len(words):
            return None, Remapping(Fault(int(Reason.REMAP_ACCESS)), index=index)
        outcome, disable = self._outcome(known, request)
        steps = tuple(self._steps(address, known))
        named = self._named(index, outcome)
        return FreshEntry(index, address, known), Remapping(outcome, steps, disable, named)

    def _place(self, index: int) -> int:
        return (self._table & ~self._config.beyond_host_pointer) + ENTRY.size * index

    def _named(self, index: int, outcome: Delivery) -> int:
        """Return the index that a fault record gives for an outcome behind the table."""
        late = outcome == Fault(int(Reason.REMAP_REQUEST_RESERVED))
        return 0 if late else index

    # -- the entry ---------------------------------------------------------------------------

    def _outcome(self, words: tuple[int, ...], request: InterruptMessage) -> tuple[Delivery, bool]:
        """Return what an entry makes of a request, and its FPD."""
        disable = bool(ENTRY["fpd"].get(words))
        reason = self._check(words)
        if reason is None and not self._source_matches(words, request.sid):
            reason = Reason.REMAP_SOURCE
        if reason is None and self._reserved_data(request):
            reason = Reason.REMAP_REQUEST_RESERVED
        if reason is not None:
            return Fault(int(reason)), disable
        if self._posts(words):
            return self._posting(words), disable
        target = self._destination(ENTRY["dst"].get(words))
        mode = ENTRY["dm"].get(words) << 2 | ENTRY["rh"].get(words) << 3 | request.address & 0b11
        kind = ENTRY["dlm"].get(words) << 8 | ENTRY["tm"].get(words) << 15
        return _message(target, ENTRY["vector"].get(words), mode, kind), disable

    def _check(self, words: tuple[int, ...]) -> Reason | None:
        """Return why an entry cannot be used by anyone."""
        if not ENTRY["p"].get(words):
            return Reason.REMAP_NOT_PRESENT
        if self._posts(words):
            reserved = list(POSTED.reserved)
        else:
            reserved = list(ENTRY.reserved)
            if not self._config.dialect.posted_taken_for_remapped:
                reserved[0] |= ENTRY["im"].mask
            if self._config.dialect.interrupt_destination_checked and not self._extended:
                reserved[0] |= ENTRY["dst"].mask & ~(0xFF00 << ENTRY["dst"].low)
        if any(word & mask for word, mask in zip(words, reserved, strict=True)):
            return Reason.REMAP_RESERVED
        return None

    def _posts(self, words: tuple[int, ...]) -> bool:
        return bool(ENTRY["im"].get(words) and self._config.cap("pi"))

    @staticmethod
    def _source_matches(words: tuple[int, ...], sid: int | None) -> bool:
        if sid is None:
            return True
        wanted = ENTRY["sid"].get(words)
        match ENTRY["svt"].get(words):
            case 0:
                return True
            case 1:
                return not (wanted ^ sid) & ~IGNORED_FUNCTION[ENTRY["sq"].get(words)]
            case 2:
                return wanted >> 8 >= sid >> 8 >= wanted & 0xFF
            case _:  # reserved: QEMU takes it for a failure
                return False

    def _destination(self, field: int) -> int:
        return field if self._extended else field >> 8 & 0xFF

    def _posting(self, words: tuple[int, ...]) -> Delivery:
        low = POSTED["pda_low"].address(words)
        place = POSTED["pda_high"].get(words) << 32 | low >> 32
        descriptor = [self._memory.quadword(place + 8 * n) for n in range(DESCRIPTOR.words)]
        if any(word is None for word in descriptor):
            return Fault(int(Reason.POSTED_ACCESS))
        pairs = zip(descriptor, DESCRIPTOR.reserved, strict=True)
        if any((word or 0) & mask for word, mask in pairs):
            return Fault(int(Reason.POSTED_RESERVED))
        return Posted(place, POSTED["vector"].get(words), bool(POSTED["urg"].get(words)))

    @staticmethod
    def _steps(address: int, words: tuple[int, ...]) -> Iterator[Step]:
        for number, word in enumerate(words):
            yield Step(Role.INTERRUPT_TABLE, 0, address + 8 * number, word)

    def _changed_by(self, way: KeptEntry, index: int) -> int:
        """Return the store that made a kept entry differ from the table, -1 when none is known."""
        address = self._place(index)
        for number, word in enumerate(way.words):
            now = self._memory.quadword(address + 8 * number)
            if now != word:
                writer = self._memory.last_writer(address + 8 * number)
                return -1 if writer is None else writer
        return -1


def _message(target: int, vector: int, mode: int = 0, kind: int = 0) -> Message:
    """Compose a message to a local APIC (Intel SDM 11.11; QEMU x86_iommu_irq_to_msi_message)."""
    address = (target & ~0xFF) << 32 | INTERRUPT_PAGE << 20 | (target & 0xFF) << 12 | mode
    return Message(address, LEVEL_ASSERT | kind | vector)
