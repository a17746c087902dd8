"""Tell models what a real unit did, and let them fetch what it may have fetched."""

from __future__ import annotations

from collections.abc import Sequence

from decoders.events import (
    Access,
    Event,
    Interrupt,
    RegWrite,
    StatusWrite,
    Store,
    Translation,
)
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import descriptor_type
from harness.differential.device_tlb import DeviceMessages
from harness.differential.queued import base, descriptors, head, taken
from harness.differential.situation import LOST, History
from harness.differential.table_use import TableUse
from harness.findings import Finding
from harness.model.latitude import LOOKING_AGAIN, fetch, keep
from harness.model.translate import Candidate, Request
from harness.targets.model import ModelReplay


class Teller:
    """Tell models what happened, and let them fetch what a unit may have fetched.

    A unit may read context and PASID entries before anything needs them (VT-d specification 6.1).
    QEMU does so when an invalidation or GCMD makes it look at them again.
    """

    def __init__(
        self,
        models: list[ModelReplay],
        sids: Sequence[int],
        slot: int,
        messages: DeviceMessages | None = None,
    ) -> None:
        self.models, self._sids, self._slot = models, list(dict.fromkeys(sids)), slot
        self.history = History(sids)
        self.events: list[Event] = []
        self.ways: dict[int, list[Candidate]] = {}
        """What each access of a step could have been, by the number of its event."""
        self.pending: list[StatusWrite | Interrupt] = []
        """What the unit was seen doing in a step, but not when."""
        self.use = TableUse()
        self.noticed: list[Finding] = []
        """What is not as it should be, and no event says."""
        self._stores: Sequence[Store] = ()
        self._messages = messages

    def access(self, access: Access) -> None:
        """Take note of an access that is about to be told of."""
        self.history.accessed(self.models[0], access.sid)
        request = Request(access.sid, None, access.iova, access.kind, attributes=access.attributes)
        ways = self.models[0].unit.translator.candidates(request)
        self.ways[len(self.events)] = ways
        self.use.ways(access, ways)

    def tell(self, *events: Event) -> None:
        """Apply events."""
        for event in events:
            self.events.append(event)
            if isinstance(event, Store):
                self.use.stored(event)
            for model in self.models:
                model.apply(event)
            self._seen()
            if isinstance(event, Access) and isinstance(event.outcome, Translation):
                if event.outcome.address != LOST:
                    place = event.outcome.address | event.iova & event.outcome.mask
                    self._cached(event, place)

    def _seen(self) -> None:
        """Tell of what is pending where the first model expects it."""
        messages = self._messages
        while (due := self.models[0].due()) is not None:
            if isinstance(due, StatusWrite | Interrupt) and due in self.pending:
                self.pending.remove(due)
            elif messages is None or not messages.has(due):
                return
            self.tell(due)

    def rest(self, kind: type[StatusWrite] | type[Interrupt]) -> None:
        """Tell of what is pending of a kind, though nothing expects it."""
        for seen in [one for one in self.pending if isinstance(one, kind)]:
            self.pending.remove(seen)
            self.tell(seen)

    def guess(self, access: Access) -> None:
        """Apply an access that left nothing: whatever it may have used may be cached now."""
        ways = self.ways.get(len(self.events), ())
        if self.history.may_pass(access.sid):
            self.use.doubt(ways)
        self.use.unseen(access.outcome)
        self.tell(access)
        self._cached(access, None)

    def _cached(self, access: Access, place: int | None) -> None:
        """Let models keep what a stale entry gave, if it led to a place (or at all)."""
        for way in self.ways.get(len(self.events) - 1, ()):
            given = way.outcome
            if not isinstance(given, Translation) or not way.cache or way.domain < 0:
                continue
            if way.steps and place in (None, given.address | access.iova & given.mask):
                for model in self.models:
                    keep(model.unit, access.sid, access.iova, way)

    def stores(self, stores: Sequence[Store]) -> None:
        """Take note of stores, which may be descriptors."""
        self._stores = stores

    def write(self, write: RegWrite) -> None:
        """Apply a register write and what comes with it."""
        guide = self.models[0]
        before = head(guide)
        self.tell(write)
        if self._messages is not None:
            self._messages.miss(guide.expected())
        # Other writes can set the head back.
        moved = write.offset == vtd.IQT.offset
        done = taken(guide, before, self._slot) if moved else []
        queued = descriptors(self._stores, base(guide), self._slot)
        self.history.written(guide, write, queued, done)
        if self._fetches(write, done):
            for model in self.models:
                for sid in self._sids:
                    fetch(model.unit, sid)

    @staticmethod
    def _fetches(write: RegWrite, done: Sequence[tuple[int, ...]]) -> bool:
        if write.offset == vtd.IQT.offset:
            return any(descriptor_type(words[0]) in LOOKING_AGAIN for words in done)
        return write.offset in (vtd.CCMD.offset, vtd.GCMD.offset)
