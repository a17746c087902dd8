"""The vocabulary: what crosses the border between software and an IOMMU, and what came back.

An event is a frozen dataclass. TAGS numbers the kinds; the number is the first member of the
msgpack array an event is stored as, so it never changes meaning. Fields follow in declaration
order (see harness.trace.codec). Addresses and sizes are in bytes, integers are unsigned.

Two families share the stream. *Stimuli* are what software or a device did (RegWrite, Store,
Access...). *Observations* are what the recorded unit was seen doing in answer (Descriptor,
StatusWrite, FaultRecord, Interrupt, PageResponse...); a target must produce the same ones in the
same order. A Request of a virtio-iommu is a stimulus that carries its answer with it, as an Access
does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag


class AccessKind(IntEnum):
    """Name what a DMA request wanted; UNKNOWN when the capture did not say."""

    UNKNOWN = 0
    READ = 1
    WRITE = 2
    EXECUTE = 3


class Attribute(IntFlag):
    """Say what else a DMA request is; no flag for an untranslated request of a user."""

    PRIVILEGED = 1
    """It asks for privileged mode (the PASID prefix's PMR)."""
    TRANSLATION_REQUEST = 2
    """A device with a TLB of its own (ATS) asks for the translation alone."""
    TRANSLATED = 4
    """Such a device gives an address that it says has been translated."""


NO_ATTRIBUTES = Attribute(0)
ATTRIBUTES = frozenset(
    kind | mode
    for kind in (NO_ATTRIBUTES, Attribute.TRANSLATION_REQUEST, Attribute.TRANSLATED)
    for mode in (NO_ATTRIBUTES, Attribute.PRIVILEGED)
)
"""What a request can be: its address type (AT) is one of three."""


class PageRequestFlag(IntFlag):
    """Say what a device asks of a page."""

    READ = 1
    WRITE = 2
    EXECUTE = 4
    PRIVILEGED = 8
    LAST = 16
    """The last request of its group, which is answered as a whole; alone, a stop marker."""


class Role(IntEnum):
    """Say what a captured page is used as by the unit."""

    ROOT = 0
    CONTEXT = 1
    SCALABLE_CONTEXT = 2
    PASID_DIRECTORY = 3
    PASID_TABLE = 4
    SECOND_STAGE = 5
    FIRST_STAGE = 6
    QUEUE = 7
    INTERRUPT_TABLE = 8


@dataclass(frozen=True, slots=True)
class Translation:
    """Answer a request with an address: the page's base and its mask (size - 1)."""

    address: int
    mask: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Answer a request with a fault reason, in the encoding of the unit (VT-d, virtio-iommu)."""

    reason: int


Outcome = Translation | Fault


@dataclass(frozen=True, slots=True)
class Message:
    """Answer an interrupt request with the message that goes on to the processors.

    Bits 1:0 of the address, which mean nothing, are those of the request.
    """

    address: int
    data: int


@dataclass(frozen=True, slots=True)
class Posted:
    """Answer an interrupt request by posting a vector to the descriptor at an address."""

    descriptor: int
    vector: int
    urgent: bool


Delivery = Message | Posted | Fault
"""What becomes of an interrupt request; Fault(0) is a refusal whose reason was not recorded."""


@dataclass(frozen=True, slots=True)
class RegWrite:
    """Write a register of the unit, or a field of a virtio-iommu's config space.

    offset is relative to the register page, or to the config space.
    """

    offset: int
    size: int
    value: int


@dataclass(frozen=True, slots=True)
class RegRead:
    """Read a register or config field; value is what came back, None when not captured."""

    offset: int
    size: int
    value: int | None


@dataclass(frozen=True, slots=True)
class Store:
    """Store 1, 2, 4 or 8 little-endian bytes to a watched page (never crosses a page)."""

    address: int
    size: int
    value: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Give the content of a page (4096 bytes) at the moment the unit could first reach it.

    level is the paging level for the two stages (1 = leaf table) and 0 otherwise.
    """

    address: int
    role: Role
    level: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Release:
    """Say that a page is no longer watched: no table reaches it and no cache can hold it."""

    address: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Observe one invalidation descriptor being taken from the queue (2 or 4 quadwords).

    A capture of a 256-bit queue may carry only the lower two.
    """

    words: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Access:
    """Request a translation: source id, PASID or None, address, kind, recorded answer.

    sid is the 16-bit source id, or the 32-bit endpoint id of a virtio-iommu. attributes are stored
    only where there are any.
    """

    sid: int
    pasid: int | None
    iova: int
    kind: AccessKind
    outcome: Outcome | None
    attributes: Attribute = NO_ATTRIBUTES


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """Observe a fault recording register being filled: index, low and high quadword."""

    index: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """Observe the 32-bit status write of a wait descriptor."""

    address: int
    value: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Observe a message-signalled interrupt raised by the unit itself."""

    address: int
    data: int


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the machine and the unit with it; guest memory survives."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Give the time of the events that follow, microseconds since the recording began."""

    microseconds: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Say that the recorder lost something here, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Request:
    """Hand a request to a virtio-iommu: what the device may read, how much it may write.

    answer is what it wrote, as long as the used length says; None when that was not captured.
    """

    data: bytes
    room: int
    answer: bytes | None


@dataclass(frozen=True, slots=True)
class FaultReport:
    """Observe a fault report in the event queue of a virtio-iommu."""

    reason: int
    flags: int
    endpoint: int
    address: int


@dataclass(frozen=True, slots=True)
class Features:
    """Say which feature bits a virtio device offers and its driver has accepted (0: none yet)."""

    offered: int
    accepted: int


@dataclass(frozen=True, slots=True)
class ConfigSpace:
    """Give the config space of a virtio-iommu as its driver sees it."""

    data: bytes


@dataclass(frozen=True, slots=True)
class DeviceReset:
    """Reset a virtio device, as its driver does by writing 0 to the device status."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Say that an endpoint is behind a virtio-iommu, and its reserved regions.

    regions are (subtype, first address, last address); subtypes are those of a RESV_MEM property.
    """

    endpoint: int
    regions: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class InterruptRequest:
    """Write a message-signalled interrupt, as devices and I/O APICs do: where, what, the answer.

    sid is None when the capture did not say, or the message came without one: it is not checked.
    """

    sid: int | None
    address: int
    data: int
    outcome: Delivery | None


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Ask for a page to be made present, as a device with the PCIe page request interface does."""

    sid: int
    pasid: int | None
    address: int
    flags: PageRequestFlag
    group: int


@dataclass(frozen=True, slots=True)
class PageRequestRecord:
    """Observe the four quadwords of a request being stored in the page request queue."""

    address: int
    words: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PageResponse:
    """Observe a group of page requests being answered: 0 success, 1 invalid, 15 failure."""

    sid: int
    pasid: int | None
    group: int
    code: int


@dataclass(frozen=True, slots=True)
class DeviceTlbMessage:
    """Observe a device being told to forget the translations of a range: its base, its size - 1.

    They are those without PASID, those of one, or with every_pasid those of all PASIDs.
    """

    sid: int
    pasid: int | None
    address: int
    mask: int
    every_pasid: bool = False


Event = (
    RegWrite
    | RegRead
    | Store
    | Snapshot
    | Release
    | Descriptor
    | Access
    | FaultRecord
    | StatusWrite
    | Interrupt
    | Reset
    | Clock
    | Gap
    | Request
    | FaultReport
    | Features
    | ConfigSpace
    | DeviceReset
    | Endpoint
    | InterruptRequest
    | PageRequest
    | PageRequestRecord
    | PageResponse
    | DeviceTlbMessage
)
Observation = (
    Descriptor
    | FaultRecord
    | StatusWrite
    | Interrupt
    | FaultReport
    | PageRequestRecord
    | PageResponse
    | DeviceTlbMessage
)

TAGS: dict[int, type[Event]] = {
    1: RegWrite,
    2: RegRead,
    3: Store,
    4: Snapshot,
    5: Release,
    6: Descriptor,
    7: Access,
    8: FaultRecord,
    9: StatusWrite,
    10: Interrupt,
    11: Reset,
    12: Clock,
    13: Gap,
    14: Request,
    15: FaultReport,
    16: Features,
    17: ConfigSpace,
    18: DeviceReset,
    19: Endpoint,
    20: InterruptRequest,
    21: PageRequest,
    22: PageRequestRecord,
    23: PageResponse,
    24: DeviceTlbMessage,
}
"""Tag of each event kind in the stored form; numbers are never reused."""
