"""What a device with a TLB shows of a real VT-d unit, as events and as facts.

QEMU's device has no PASID, and it is the only one whose messages are seen: of others, and of
messages about a PASID, it is believed that they were sent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from decoders.events import (
    Access,
    AccessKind,
    Attribute,
    DeviceTlbMessage,
    Observation,
    Translation,
)
from decoders.layout import layout
from decoders.vtd.descriptors import (
    DescriptorType,
    PasidDeviceTlbInvalidation,
    descriptor_type,
)
from decoders.vtd.paging import PAGE_BITS, PAGE_SHIFT
from harness.differential.queued import has_physical_function
from harness.errors import HarnessError
from harness.findings import Finding, FindingKind
from harness.model.translate import Candidate, Request
from harness.qemu.device_tlb import PAGE, DeviceTlb, Held, shown
from harness.qemu.vhost_user import Permission, Told
from harness.qemu.vtd import MEMORY, Dma
from harness.targets.model import ModelReplay

OF_UPDATES: Final = ("update", "permission")
"""Subjects of findings about what a device was given, beside where it leads."""

_LARGEST_PAGE: Final = (1 << PAGE_SHIFT[3]) - 1
_ADDRESS_BITS: Final = 64
_OTHER: Final = {AccessKind.READ: AccessKind.WRITE, AccessKind.WRITE: AccessKind.READ}
_PASID: Final = layout(PasidDeviceTlbInvalidation)


class DeviceMessages:
    """Follow what the device of a machine, if it has one, is told in a step."""

    def __init__(self, tlb: DeviceTlb | None) -> None:
        self._tlb = tlb
        self.told: list[Told] = []

    def has(self, due: Observation) -> bool:
        """Say whether a message that is due was sent; it is taken for this one, once.

        It comes in the parts that the interrupt range leaves of it, in any order.
        """
        if not isinstance(due, DeviceTlbMessage):
            return False
        if not self._shows(due):
            return True
        parts = set(shown(due.address, due.mask))
        if set(_spans(self.told[: len(parts)])) != parts:
            return False
        del self.told[: len(parts)]
        return True

    def rest(self) -> list[DeviceTlbMessage]:
        """Return what was sent and was not due: as few messages as show as it does."""
        left, found = list(_spans(self.told)), []
        while left:
            address, mask = _least(left)
            parts = set(shown(address, mask))
            left = [part for part in left if part not in parts]
            found.append(DeviceTlbMessage(self._sid, None, address, mask))
        self.told = []
        return found

    def miss(self, due: Sequence[Observation]) -> None:
        """Let the device forget what it should have been told to: the model thinks it has."""
        for message in due:
            if self._tlb is not None and isinstance(message, DeviceTlbMessage):
                if self._shows(message):
                    self._tlb.forget(message.address, message.mask)

    def drop(self, given: Told) -> None:
        """Let the device forget what it was given."""
        if self._tlb is not None:
            self._tlb.forget(given.iova, given.size - 1)

    def _shows(self, message: DeviceTlbMessage) -> bool:
        about_pasid = message.pasid is not None or message.every_pasid
        return message.sid == self._sid and not about_pasid

    @property
    def _sid(self) -> int:
        return -1 if self._tlb is None else self._tlb.function.requester


def _spans(told: Sequence[Told]) -> Iterator[tuple[int, int]]:
    return ((one.iova, one.iova + one.size - 1) for one in told)


def _least(parts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the range, as base and size - 1, that shows as most of the parts, with the first.

    Of several it is the smallest.
    """
    first, last = parts[0]
    best, most = (0, 0), 0
    for order in range(PAGE_BITS, _ADDRESS_BITS + 1):
        mask = (1 << order) - 1
        found = set(shown(first & ~mask, mask))
        if (first, last) in found and found <= set(parts) and len(found) > most:
            best, most = (first & ~mask, mask), len(found)
    if not most:
        raise HarnessError(f"QEMU makes a device forget {first:#x} to {last:#x}, which is no range")
    return best


def translated(sid: int, dma: Dma, used: Held) -> Access:
    """Return the access of a device that uses a translation it has."""
    place = used.address + dma.iova - used.iova
    page = Translation(place & -PAGE, PAGE - 1)
    return Access(sid, None, place, dma.kind, page, Attribute.TRANSLATED)


def answered(iova: int, answer: Told) -> Translation:
    """Return the translation that an update gives to an address."""
    assert answer.address is not None, "it is no invalidation"
    size = answer.size
    whole = not size & size - 1 and not (answer.iova | answer.address) & size - 1
    if whole and _covers(answer, iova):
        return Translation(answer.address, size - 1)
    return Translation(answer.address + iova - answer.iova, 0)


def _covers(answer: Told, iova: int) -> bool:
    return answer.iova <= iova < answer.iova + answer.size


def overstated(guide: ModelReplay, access: Access, answer: Told, number: int) -> list[Finding]:
    """Return what is wrong with an update beside where it leads.

    It has to cover the address that was asked for, and to permit no more than the page does.
    """
    seen = answered(access.iova, answer)
    if not _covers(answer, access.iova):
        return [Finding(number, FindingKind.DIVERGENCE, "update", seen, ())]
    if answer.permission != Permission.BOTH:
        return []
    other = Request(
        access.sid, None, access.iova, _OTHER[access.kind], attributes=access.attributes
    )
    outcomes = [way.outcome for way in guide.unit.translator.candidates(other)]
    if any(isinstance(outcome, Translation) for outcome in outcomes):
        return []
    return [Finding(number, FindingKind.DIVERGENCE, "permission", seen, tuple(outcomes[:1]))]


def answerable(outcome: Translation, iova: int) -> bool:
    """Say whether QEMU gives a device a translation: it and its page have to begin in RAM."""
    # What is let through has a mask that is no page's.
    passes = outcome.mask > _LARGEST_PAGE
    place = iova if passes else outcome.address | iova & outcome.mask
    first = place if passes else outcome.address
    return all(
        any(start <= where < start + size for start, size in MEMORY) for where in (place, first)
    )


def _begins_elsewhere(outcome: Translation, iova: int) -> bool:
    """Say whether the page that an address lies in begins in another part of RAM."""
    place = outcome.address | iova & outcome.mask
    return any(
        start <= place < start + size and not start <= outcome.address < start + size
        for start, size in MEMORY
    )


def device_notes(
    finding: Finding,
    guide: ModelReplay,
    queued: Sequence[tuple[int, ...]],
    passed: Collection[int],
    access: Access | None,
    ways: Sequence[Candidate],
) -> set[str]:
    """Return the facts about devices with a TLB, and messages to them.

    passed are sources that pass through, ways those to the outcomes of an access.
    """
    found: set[str] = set()
    for words in queued:
        kind = descriptor_type(words[0])
        if has_physical_function(words):
            found.add("device-TLB descriptor with PFSID")
        if kind == DescriptorType.PASID_DEVICE_TLB and not _PASID["pasid"].get(words):
            found.add("device-TLB descriptor with PASID 0")
    for message in finding.permitted:
        if isinstance(message, DeviceTlbMessage):
            translator = guide.unit.translator
            if not translator.enabled or message.sid in passed:
                found.add("not translated")
    outcomes = [way.outcome for way in ways if isinstance(way.outcome, Translation)]
    if access is not None and finding.subject in OF_UPDATES:
        if any(_begins_elsewhere(one, access.iova) for one in outcomes):
            found.add("page begins elsewhere")
    return found
