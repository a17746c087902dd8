"""Choose events by device, kind, address, number and time."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

from decoders.events import (
    Access,
    Descriptor,
    DeviceTlbMessage,
    Endpoint,
    Event,
    FaultRecord,
    FaultReport,
    InterruptRequest,
    PageRequest,
    PageRequestRecord,
    PageResponse,
    Request,
    Translation,
)
from decoders.layout import layout
from decoders.virtio_iommu.constants import FaultFlag
from decoders.vtd import pagerequest
from decoders.vtd.descriptors import (
    DESCRIPTORS,
    ContextCacheInvalidation,
    DeviceTlbInvalidation,
    IotlbInvalidation,
    PageGroupResponse,
    PasidDeviceTlbInvalidation,
    PasidIotlbInvalidation,
    descriptor_type,
)
from harness.decoded import fault_record_address, fault_record_source
from harness.decoded_virtio import request_fields
from harness.domains import Domains
from harness.trace import TextReader, TraceReader
from harness.trace.lines import EVENT_WORDS, parse_sid

PAGE_MASK = 0xFFF
_FUNCTION = 3  # granularity of a context-cache invalidation: one function
_PAGES = 3  # granularity of an IOTLB invalidation: pages

_TIME = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(s|ms|us)")
_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_NUMBER = r"(0x[0-9a-fA-F]{1,16}|[0-9]{1,20})"
_RANGE = re.compile(rf"{_NUMBER}(?:([-+]){_NUMBER})?")
_RECORD = layout(pagerequest.PageRequest)
_SID_FIELD = {
    ContextCacheInvalidation: "sid",
    DeviceTlbInvalidation: "sid",
    PasidDeviceTlbInvalidation: "sid",
    PageGroupResponse: "rid",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Name a place in a trace: an event number, or a time in microseconds."""

    event: int | None
    microseconds: int | None


def place(text: str) -> Place:
    """Read an event number (``1200``) or a time (``1.5s``, ``20ms``, ``7us``) of an option."""
    if text.isascii() and text.isdigit() and len(text) < 20:
        return Place(int(text), None)
    match = _TIME.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither an event number nor a time such as 1.5s, 20ms or 7us"
        )
    return Place(None, round(float(match[1]) * _UNITS[match[2]]))


def device(text: str) -> int:
    """Read bus:device.function or an endpoint id; a PCI segment of 0 may stand before the first."""
    try:
        found = parse_sid(text.removeprefix("0000:"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error} as in 00:03.0, nor an id as in 0x18") from error
    if found >> 32:
        raise argparse.ArgumentTypeError(f"{text!r} has more than the 32 bits of an endpoint id")
    return found


def address_range(text: str) -> tuple[int, int]:
    """Read ``FIRST-LAST``, ``START+LENGTH``, or one address, which stands for its page."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no range; write FIRST-LAST, START+LENGTH or one address"
        )
    first = int(match[1], 0)
    if match[2] is None:
        return first & ~PAGE_MASK, first | PAGE_MASK
    other = int(match[3], 0)
    last = other if match[2] == "-" else first + other - 1
    if last < first:
        raise argparse.ArgumentTypeError(f"{text!r} is empty")
    return first, last


@dataclass(frozen=True, slots=True)
class Selection:
    """Say which events are wanted; what is None or empty does not restrict.

    An event that names no device, or no I/O address, is not wanted where one is asked for. A
    request that names a domain is wanted with the devices that are attached to it at that time.
    """

    device: int | None = None
    kinds: frozenset[type[Event]] = frozenset()
    iova: tuple[int, int] | None = None

    def wants(self, event: Event, domains: Domains | None = None) -> bool:
        """Say whether an event is chosen; domains are those before it."""
        if self.kinds and type(event) not in self.kinds:
            return False
        if self.device is not None and source_of(event) != self.device:
            number = _domain_of(event)
            if number is None or domains is None or domains.domain_of(self.device) != number:
                return False
        if self.iova is not None:
            span = span_of(event)
            return span is not None and span[0] <= self.iova[1] and self.iova[0] <= span[1]
        return True


def source_of(event: Event) -> int | None:
    """Return the source id, or endpoint, that an event names."""
    if isinstance(event, Access | InterruptRequest | PageRequest | PageResponse | DeviceTlbMessage):
        return event.sid
    if isinstance(event, PageRequestRecord):
        return _RECORD["rid"].get(event.words)
    if isinstance(event, Endpoint | FaultReport):
        return event.endpoint
    if isinstance(event, Request):
        return (request_fields(event.data) or {}).get("endpoint")
    if isinstance(event, FaultRecord):
        return fault_record_source(event)
    if isinstance(event, Descriptor):
        shape = DESCRIPTORS.get(descriptor_type(event.words[0]))
        name = _SID_FIELD.get(shape) if shape is not None else None
        if shape is None or name is None:
            return None
        known = layout(shape)
        if shape is ContextCacheInvalidation and known["g"].get(event.words) != _FUNCTION:
            return None
        return known[name].get(event.words)
    return None


def _domain_of(event: Event) -> int | None:
    """Return the domain of a request that names a domain and no endpoint."""
    fields = request_fields(event.data) if isinstance(event, Request) else None
    return None if fields is None or "endpoint" in fields else fields["domain"]


def span_of(event: Event) -> tuple[int, int] | None:
    """Return the first and last I/O address that an event names."""
    if isinstance(event, Access):
        mask = event.outcome.mask if isinstance(event.outcome, Translation) else 0
        return event.iova & ~mask, event.iova | mask
    if isinstance(event, PageRequest):
        return event.address, event.address | PAGE_MASK
    if isinstance(event, PageRequestRecord):
        asked = _RECORD["addr"].address(event.words)
        return asked, asked | PAGE_MASK
    if isinstance(event, DeviceTlbMessage):
        return event.address, event.address | event.mask
    if isinstance(event, FaultRecord):
        page = fault_record_address(event)
        return None if page is None else (page, page | PAGE_MASK)
    if isinstance(event, FaultReport):
        return (event.address, event.address) if event.flags & FaultFlag.ADDRESS else None
    if isinstance(event, Request):
        fields = request_fields(event.data)
        if fields is None or "virt_start" not in fields:
            return None
        first, last = fields["virt_start"], fields["virt_end"]
        return min(first, last), max(first, last)
    if isinstance(event, Descriptor):
        return _invalidated(event)
    return None


def _invalidated(event: Descriptor) -> tuple[int, int] | None:
    shape = DESCRIPTORS.get(descriptor_type(event.words[0]))
    if shape is IotlbInvalidation or shape is PasidIotlbInvalidation:
        known = layout(shape)
        if known["g"].get(event.words) != _PAGES:
            return None
        mask = (1 << (12 + known["am"].get(event.words))) - 1
    elif shape is DeviceTlbInvalidation or shape is PasidDeviceTlbInvalidation:
        known = layout(shape)
        mask = PAGE_MASK
        if known["s"].get(event.words):
            # The lowest clear bit of the address gives the size (PCIe ATS).
            pages = known["addr"].get(event.words)
            mask = (((pages ^ (pages + 1)) + 1) << 12) - 1
    else:
        return None
    page = known["addr"].address(event.words)
    return page & ~mask, page | mask


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that choose events."""
    chosen = parser.add_argument_group("which events")
    chosen.add_argument(
        "--device",
        type=device,
        metavar="BDF",
        help="those that name a device, such as 00:03.0 or an endpoint id such as 0x18, and the "
        "requests that change the domain it is attached to",
    )
    chosen.add_argument(
        "--kind",
        action="append",
        choices=sorted(EVENT_WORDS),
        metavar="KIND",
        help="those of a kind; may be given several times: " + ", ".join(sorted(EVENT_WORDS)),
    )
    chosen.add_argument(
        "--iova",
        type=address_range,
        metavar="RANGE",
        help="those that name an I/O address in FIRST-LAST, START+LENGTH, or the page of one",
    )
    chosen.add_argument(
        "--from",
        dest="start",
        type=place,
        metavar="WHERE",
        help="from an event number or a time (1.5s, 20ms, 7us) on",
    )
    chosen.add_argument(
        "--to", dest="stop", type=place, metavar="WHERE", help="up to it, and including it"
    )


def selection(args: argparse.Namespace) -> Selection:
    """Return what the options of ``add_arguments`` choose, but for the place."""
    kinds = frozenset(EVENT_WORDS[word] for word in args.kind or ())
    return Selection(args.device, kinds, args.iova)


def first_event(reader: TraceReader | TextReader, start: Place | None) -> int:
    """Return the number of the first event that a place asks for.

    Errors: DecodeError when the search for a time runs into damage.
    """
    if start is None:
        return 0
    if start.event is not None:
        return start.event
    return reader.first_event_at(start.microseconds or 0)
