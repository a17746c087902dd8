"""Let the units of running QEMUs read memory images: the scaffolds of a target on real ground."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from decoders.events import Access, Event, RegRead, RegWrite, Reset, Snapshot, StatusWrite, Store
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import DescriptorType, InvalidationWait, descriptor_type
from fuzzers.machines import STATUS, Ground
from fuzzers.real import BareVtdJudge, VtdJudge
from fuzzers.scaffold import Scaffold
from harness.differential.given_vtd import descriptor_bytes, steps_of
from harness.generate.vtd_tables import NOWHERE
from harness.qemu.pc import RAM_SIZE, is_ram
from harness.qemu.vtd import POOL_START

LEGACY, FIRST_STAGE, SECOND_STAGE = "legacy", "first-stage", "second-stage"
"""Machines of harness.qemu.vtd, which have devices that can do DMA on the root bus."""

_LARGE: Final = 0x20_0000
_WORD: Final = 8
_PAGES: Final = (1 << 52) - (1 << 12)
"""Where an entry has its address."""

_NOBODY: Final = range(RAM_SIZE, NOWHERE + 1)
"""Where neither RAM nor a device answers; from 4 GiB on nothing does, either."""

_DEVICES_END: Final = 1 << 32
_WAIT: Final = layout(InvalidationWait)

Places = Sequence[tuple[str, Callable[[Ground], Scaffold]]]
"""Machines that one of a target's scaffolds can be on, and what makes it there."""

OnQemu = Sequence[Places]
"""For each scaffold, by its number."""


class RealMemory:
    """Run inputs between scaffolds; the first byte chooses one, and the machine if there are two.

    passed_over counts inputs that no machine can run, or whose outcome nobody would know.
    """

    def __init__(self, scaffolds: OnQemu, *, deviations: bool) -> None:
        kind = VtdJudge if deviations else BareVtdJudge
        names = sorted({name for places in scaffolds for name, _ in places})
        self.judges = {name: kind(0, name) for name in names}
        grounds = {name: _ground(judge) for name, judge in self.judges.items()}
        # A queue that has stopped cannot be moved: nothing can invalidate everything then.
        self._choices = [
            [(self.judges[name], replace(make(grounds[name]), fresh=())) for name, make in places]
            for places in scaffolds
        ]
        self.passed_over = 0

    def run(self, data: bytes) -> None:
        """Run one input; raise Found."""
        rest, chosen = divmod(data[0] if data else 0, len(self._choices))
        places = self._choices[chosen]
        if not places:
            self.passed_over += 1
            return
        judge, scaffold = places[rest % len(places)]
        if _strays(scaffold, data[1:]):
            self.passed_over += 1
            return
        events = [Reset(), *_possible(scaffold, data[1:], judge)]
        steps = steps_of(events, judge.qemu, judge.scene)
        judge.judge(steps, descriptor_bytes(events))

    def close(self) -> None:
        """End the QEMUs."""
        for judge in self.judges.values():
            judge.close()


def _ground(judge: VtdJudge | BareVtdJudge) -> Ground:
    """Return devices of the root bus, then functions that nobody has, and the pool."""
    sids = sorted({device.sid for device in judge.scene.devices if device.sid < 1 << 8})
    absent = [sid for sid in range(sids[0], 1 << 7) if sid not in sids]
    return Ground(judge.header, (*sids, *absent)[:4], POOL_START, _LARGE)


def _possible(scaffold: Scaffold, data: bytes, judge: VtdJudge | BareVtdJudge) -> Iterator[Event]:
    """Yield what the machine can do: content as stores, and requests of devices that it has."""
    sids = {device.sid for device in judge.scene.devices}
    for event in scaffold.events(data):
        if isinstance(event, Snapshot):
            yield from _stores(event)
        elif isinstance(event, RegWrite) and event.offset == vtd.IQT.offset:
            waits = _waits(data, scaffold)
            # What is there before is something else.
            yield from (Store(one.address, 4, ~one.value & 0xFFFF_FFFF) for one in waits)
            yield event
            yield from waits
            yield RegRead(vtd.IQH.offset, vtd.IQH.size, None)
        elif not isinstance(event, Access) or (
            event.sid in sids and event.pasid is None and not event.attributes
        ):
            yield event


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + _WORD], "little") for at in range(0, len(data), _WORD)]


def _stores(event: Snapshot) -> Iterator[Store]:
    for number, value in enumerate(_words(event.data)):
        if value:
            yield Store(event.address + _WORD * number, _WORD, value)


def _waits(data: bytes, scaffold: Scaffold) -> list[StatusWrite]:
    """Return the status writes that a queue asks for, if the unit gets there."""
    assert scaffold.tail is not None
    queue, step = data[: scaffold.size], scaffold.tail.step
    made = []
    for at in range(0, len(queue) - step + 1, step):
        words = _words(queue[at : at + step])
        if descriptor_type(words[0]) == DescriptorType.WAIT and _WAIT["sw"].get(words):
            made.append(StatusWrite(_WAIT["staddr"].address(words), _WAIT["stdata"].get(words)))
    return made


def _strays(scaffold: Scaffold, data: bytes) -> bool:
    """Say whether an input leads to what nobody knows the content of, or cannot be seen.

    That are addresses that other devices answer at, and status writes to tables, to nowhere, or of
    two to one place.
    """
    if scaffold.tail is None:
        pages = (word & _PAGES for word in _words(data))
        return any(
            page < _DEVICES_END and page not in _NOBODY and not is_ram(page) for page in pages
        )
    places = [one.address for one in _waits(data, scaffold)]
    apart = {place // 4 for place in places}
    return len(apart) < len(places) or not all(STATUS <= place < POOL_START for place in places)
