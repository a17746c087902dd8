"""Translations that devices keep themselves (ATS), and what makes them forget (VT-d 4.2, 6.5.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from decoders.events import Attribute, DeviceTlbMessage, Fault, Observation, Outcome
from decoders.layout import layout
from decoders.vtd.descriptors import DeviceTlbInvalidation, PasidDeviceTlbInvalidation
from decoders.vtd.paging import PAGE_BITS
from harness.findings import Finding, FindingKind
from harness.model.caches import WAYS
from harness.model.config import UnitConfig
from harness.model.translate import Candidate, Request, Translator
from harness.model.walk import Step

DEVICE = layout(DeviceTlbInvalidation)
PASID_DEVICE = layout(PasidDeviceTlbInvalidation)
EVERYTHING = (1 << 64) - 1

HELD_LIMIT = 1 << 15
"""Translations of all devices together; one more and all are forgotten."""
GONE_LIMIT = 1 << 15
"""Pages of devices that translations once led to; one more and all are forgotten."""
USERS = 16
"""Translations to one page that are followed; a device with more may use that page freely."""

PageKey = tuple[int, int, int]
"""PASID or -1, page shift, page number."""
OutputKey = tuple[int, int]
"""Page shift, number of the page that a translation leads to."""


@dataclass(frozen=True, slots=True)
class Held:
    """A translation that a device asked for, with what was read to answer it."""

    request: Request
    shift: int
    output: int
    steps: tuple[Step, ...]
    filled_by: int

    @property
    def page(self) -> PageKey:
        """Return what an invalidation finds it by."""
        pasid = -1 if self.request.pasid is None else self.request.pasid
        return pasid, self.shift, self.request.iova >> self.shift


@dataclass(frozen=True, slots=True)
class Gone:
    """A translation that a device was told to forget.

    It answers that it has when software next waits; moment is the number of waits before that.
    """

    held: Held
    dropped_by: int
    moment: int


class _Device:
    def __init__(self) -> None:
        self.pages: dict[PageKey, list[int]] = {}
        self.outputs: dict[OutputKey, dict[int, Held]] = {}  # by serial number
        self.shifts: set[int] = set()


_NOTHING = _Device()


class DeviceTlbs:
    """Hold what devices may use still, and judge requests that they say are translated."""

    def __init__(
        self, config: UnitConfig, translator: Translator, emit: Callable[[Observation], None]
    ):
        self._traced = config.dialect.device_messages_traced
        self._translator = translator
        self._emit = emit
        self._waits = 0
        self.looked_at = 0
        """Keys that invalidations have looked at so far."""
        self.reset()

    def reset(self) -> None:
        """Forget everything: devices are reset, too."""
        self._devices: dict[int, _Device] = {}
        self._held: dict[int, Held] = {}
        self._serial = 0
        self._gone: dict[tuple[int, OutputKey], list[Gone]] = {}

    # -- what is kept ------------------------------------------------------------------------

    def keep(self, request: Request, answer: Outcome, source: Candidate, event: int) -> None:
        """Keep the answer to a translation request; source is what it came from."""
        if isinstance(answer, Fault):
            return
        size = answer.mask + 1
        shift = size.bit_length() - 1
        # A device keeps pages; what is no page was recorded by something that said less.
        if size != 1 << shift or not PAGE_BITS <= shift < 64:
            return
        held = Held(request, shift, answer.address >> shift, source.steps, event)
        device = self._devices.setdefault(request.sid, _Device())
        ways = device.pages.get(held.page, [])
        if any(_same(self._held[way], held) for way in ways):
            return
        # A translation that is not followed any more may be in use: its page is not judged.
        if len(ways) == WAYS:
            lost = self._remove(request.sid, ways[0])
            self._gone.pop((request.sid, (lost.shift, lost.output)), None)
        elif len(self._held) == HELD_LIMIT:
            self._devices.clear()
            self._held.clear()
            self._gone.clear()
            device = self._devices.setdefault(request.sid, _Device())
        self._serial += 1
        self._held[self._serial] = held
        device.pages.setdefault(held.page, []).append(self._serial)
        device.outputs.setdefault((shift, held.output), {})[self._serial] = held
        device.shifts.add(shift)

    def _remove(self, sid: int, serial: int) -> Held:
        held = self._held.pop(serial)
        device = self._devices[sid]
        ways, users = device.pages[held.page], device.outputs[held.shift, held.output]
        ways.remove(serial)
        del users[serial]
        if not ways:
            del device.pages[held.page]
        if not users:
            del device.outputs[held.shift, held.output]
        return held

    # -- what is forgotten -------------------------------------------------------------------

    def invalidate(self, message: DeviceTlbMessage, event: int) -> None:
        """Send a device an invalidation."""
        if self._traced:
            self._emit(message)
        self.drop(message, event)

    def waited(self) -> None:
        """Know that devices have done what they were told: software waited for it."""
        self._waits += 1

    def drop(self, message: DeviceTlbMessage, event: int) -> None:
        """Drop what a message covers."""
        device = self._devices.get(message.sid)
        if device is None:
            return
        for key in list(self._covered(device, message)):
            for serial in list(device.pages[key]):
                self._forget(message.sid, self._remove(message.sid, serial), event)

    def _covered(self, device: _Device, message: DeviceTlbMessage) -> Iterator[PageKey]:
        """Yield the keys of pages that a message covers, or covers a part of."""
        spans = [
            (shift, message.address >> shift, (message.address + message.mask) >> shift)
            for shift in sorted(device.shifts)
        ]
        count = sum(last - first + 1 for _, first, last in spans)
        if message.every_pasid or count > len(device.pages):
            self.looked_at += len(device.pages)
            limits = {shift: (first, last) for shift, first, last in spans}
            for pasid, shift, page in sorted(device.pages):
                first, last = limits[shift]
                if first <= page <= last and self._means(message, pasid):
                    yield pasid, shift, page
            return
        self.looked_at += count
        number = -1 if message.pasid is None else message.pasid
        for shift, first, last in spans:
            for page in range(first, last + 1):
                if (number, shift, page) in device.pages:
                    yield number, shift, page

    @staticmethod
    def _means(message: DeviceTlbMessage, pasid: int) -> bool:
        if message.every_pasid:
            return pasid >= 0
        return pasid == (-1 if message.pasid is None else message.pasid)

    def _forget(self, sid: int, held: Held, event: int) -> None:
        key = sid, (held.shift, held.output)
        if key not in self._gone and len(self._gone) >= GONE_LIMIT:
            self._gone.clear()
        gone = self._gone.setdefault(key, [])
        gone.append(Gone(held, event, self._waits))
        del gone[:-WAYS]

    # -- what is used ------------------------------------------------------------------------

    def judge(self, request: Request, recorded: Outcome, event: int) -> Finding | None:
        """Return what is wrong with a translated request that was let through, None if nothing.

        Its address is where a translation has led. One that a device holds has to lead there
        still; where it holds none, it must not have been told to forget one.
        """
        device = self._devices.get(request.sid, _NOTHING)
        stale: list[tuple[Held, Candidate]] = []
        for shift in sorted(device.shifts):
            users = device.outputs.get((shift, request.iova >> shift), {})
            if len(users) > USERS:
                return None
            for held in users.values():
                now = self._now(held, request.iova)
                if _leads_to(now.outcome, held, request.iova):
                    return None
                stale.append((held, now))
        if stale:
            held, now = stale[0]
            changed = self._translator.changed_by(held.steps)
            return _finding(event, FindingKind.STALE_USE, recorded, now, held, changed)
        gone = self._newest_gone(request)
        if gone is None:
            return None
        now = self._now(gone.held, request.iova)
        kind = FindingKind.STALE_AFTER_INVALIDATION
        return _finding(event, kind, recorded, now, gone.held, -1, gone.dropped_by)

    def _newest_gone(self, request: Request) -> Gone | None:
        """Return what was forgotten last of what led to an address; None if it is being still."""
        found: list[Gone] = []
        for shift in range(PAGE_BITS, 64):
            found += self._gone.get((request.sid, (shift, request.iova >> shift)), ())
        if not found or any(gone.moment == self._waits for gone in found):
            return None
        return max(found, key=lambda gone: gone.dropped_by)

    def _now(self, held: Held, address: int) -> Candidate:
        """Return what the translation request would be answered now, for the same byte."""
        asked, inside = held.request, (1 << held.shift) - 1
        iova = asked.iova & ~inside | address & inside
        again = Request(asked.sid, asked.pasid, iova, asked.kind, attributes=asked.attributes)
        return self._translator.permitted(again)[0][0]


def invalidation(words: Sequence[int]) -> DeviceTlbMessage:
    """Return the message that a descriptor of type 3 makes the unit send."""
    base, mask = _range(DEVICE["addr"].address(words), DEVICE["s"].get(words))
    return DeviceTlbMessage(DEVICE["sid"].get(words), None, base, mask)


def pasid_invalidation(words: Sequence[int]) -> DeviceTlbMessage:
    """Return the message that a descriptor of type 8 makes the unit send."""
    base, mask = _range(PASID_DEVICE["addr"].address(words), PASID_DEVICE["s"].get(words))
    every = bool(PASID_DEVICE["g"].get(words))
    pasid = None if every else PASID_DEVICE["pasid"].get(words)
    return DeviceTlbMessage(PASID_DEVICE["sid"].get(words), pasid, base, mask, every)


def is_translation_request(request: Request) -> bool:
    """Say whether a device asks for a translation to keep."""
    return bool(request.attributes & Attribute.TRANSLATION_REQUEST)


def _range(address: int, large: int) -> tuple[int, int]:
    """Return base and size - 1 of a range; where it is large, its lowest clear bit is its half."""
    if not large:
        return address, (1 << PAGE_BITS) - 1
    ones = address | (1 << PAGE_BITS) - 1
    mask = (ones ^ (ones + 1)) & EVERYTHING
    return address & ~mask, mask


def _same(left: Held, right: Held) -> bool:
    return (left.output, left.request.kind, left.request.attributes) == (
        right.output,
        right.request.kind,
        right.request.attributes,
    )


def _leads_to(outcome: Outcome, held: Held, address: int) -> bool:
    if isinstance(outcome, Fault):
        return False
    inside = (1 << held.shift) - 1
    iova = held.request.iova & ~inside | address & inside
    return outcome.address | iova & outcome.mask == address


def _finding(
    event: int,
    kind: FindingKind,
    recorded: Outcome,
    now: Candidate,
    held: Held,
    changed_by: int,
    covered_by: int = -1,
) -> Finding:
    return Finding(
        event,
        kind,
        "access",
        recorded,
        (now.outcome,),
        now.steps,
        "device-tlb",
        now.domain,
        held.filled_by,
        changed_by,
        covered_by,
    )
