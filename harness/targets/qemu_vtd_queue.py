"""What an intel-iommu shows of its invalidation queue: where the head went, what waits wrote."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from decoders.events import Descriptor, StatusWrite
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import descriptor_type
from decoders.vtd.registers import InvalidationQueueAddress
from harness.memory import PAGE_SIZE
from harness.model.latitude import LOOKING_AGAIN
from harness.model.unit import VtdUnit
from harness.qemu.vtd_copy import VtdCopy
from harness.targets.qemu_tally import Tally

_IQA: Final = layout(InvalidationQueueAddress)
_STATUS_BYTES: Final = 4


@dataclass(slots=True)
class _Awaited:
    """Hold a status write that the model expects: whether it came (None: that does not show)."""

    write: StatusWrite
    came: bool | None


class QueueJudge:
    """Compare descriptors and status writes with what was recorded behind a register write.

    untraced are types of descriptors that the recording lacks.
    """

    def __init__(
        self, copy: VtdCopy, guide: VtdUnit, tally: Tally, untraced: frozenset[int]
    ) -> None:
        self._copy, self._guide, self._tally, self._untraced = copy, guide, tally, untraced
        self._taken: deque[Descriptor] = deque()
        self._awaited: list[_Awaited] = []
        self._pages: set[int] = set()
        """Pages that hold status words and nothing else."""
        self._spoilt: dict[int, StatusWrite] = {}
        self._cause = 0
        self._told = False
        """The recording tells of descriptors: not all do."""

    def clear(self) -> None:
        """Expect nothing more."""
        self._taken.clear()
        self._awaited.clear()

    def stored(self, address: int) -> None:
        """Take note that software stored to a page that is held."""
        self._pages.discard(address & -PAGE_SIZE)

    def before(self, expected: Sequence[StatusWrite]) -> None:
        """Put something else where the unit is going to write statuses, so that it shows."""
        self._cause = self._tally.counters.events
        self._awaited = [_Awaited(write, None) for write in expected]
        # Of several at one address the last one shows.
        self._spoilt = {write.address: write for write in expected}
        for write in [*self._spoilt.values()]:
            page = write.address & -PAGE_SIZE
            if page not in self._pages and not self._copy.free(page):
                del self._spoilt[write.address]  # it would harm what is there
                continue
            self._pages.add(page)
            other = ~write.value & 0xFFFF_FFFF
            self._copy.store(write.address, other.to_bytes(_STATUS_BYTES, "little"))

    def after(self, head: int, now: int) -> None:
        """Look at what was written, and at what lies between two places of the queue's head."""
        for awaited in self._awaited:
            write = awaited.write
            if self._spoilt.get(write.address) is write:
                found = self._copy.load(write.address, _STATUS_BYTES)
                awaited.came = int.from_bytes(found, "little") == write.value
        iqa = (self._guide.registers.load(vtd.IQA),)
        size = 32 if _IQA["dw"].get(iqa) else 16
        start, length = _IQA["iqa"].address(iqa), PAGE_SIZE << _IQA["qs"].get(iqa)
        while head != now and head < length and now < length and now % size == head % size:
            data = self._guide.load(start + head, size)
            words = (int.from_bytes(data[at : at + 8], "little") for at in range(0, size, 8))
            self._taken.append(Descriptor(tuple(words)))
            head = (head + size) % length

    def looks_again(self) -> bool:
        """Say whether what was taken made the unit look at context or PASID entries again."""
        return any(descriptor_type(taken.words[0]) in LOOKING_AGAIN for taken in self._taken)

    def descriptor(self, event: Descriptor) -> None:
        """Compare a recorded descriptor with the next one that was taken."""
        self._told = True
        if self._tally.lost:
            self._tally.unjudged()
            return
        while self._taken:
            taken = self._taken.popleft()
            if taken.words[: len(event.words)] == event.words:
                self._tally.agreed()
                return
            if descriptor_type(taken.words[0]) not in self._untraced:
                self._tally.found("descriptor", event, taken)
                return
        self._tally.found("descriptor", event)

    def status_write(self, event: StatusWrite) -> None:
        """Compare a recorded status write with those that came."""
        if self._tally.lost:
            self._tally.unjudged()
            return
        same = next((one for one in self._awaited if one.write == event), None)
        if same is not None:
            self._awaited.remove(same)
            if same.came is None:
                self._tally.unjudged()
            elif same.came:
                self._tally.agreed()
            else:
                self._tally.found("status-write", event)
            return
        instead = next((one for one in self._awaited if one.came), None)
        if instead is None:
            self._tally.found("status-write", event)
        else:
            self._awaited.remove(instead)
            self._tally.found("status-write", event, instead.write)

    def settle(self) -> None:
        """Report what the unit did and the recording lacks, as the last register write's."""
        for taken in self._taken if self._told else ():
            if descriptor_type(taken.words[0]) not in self._untraced:
                self._tally.found("descriptor", None, taken, event=self._cause)
        for awaited in self._awaited:
            if awaited.came:
                self._tally.found("status-write", None, awaited.write, event=self._cause)
            elif awaited.came is False:
                self._tally.found("status-write", awaited.write, event=self._cause)
        self.clear()
