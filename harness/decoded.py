"""Name what an event carries: registers, descriptors, table entries, requests and fault reasons.

Nothing is dissected here: fields come from the layouts, so that a long trace can be shown.
"""

from __future__ import annotations

from collections.abc import Sequence

from decoders.events import (
    Access,
    ConfigSpace,
    Descriptor,
    Endpoint,
    Event,
    Fault,
    FaultRecord,
    FaultReport,
    Features,
    InterruptRequest,
    PageRequestRecord,
    PageResponse,
    RegRead,
    RegWrite,
    Release,
    Request,
    Role,
    Snapshot,
    Store,
)
from decoders.fields import Structure
from decoders.layout import layout
from decoders.vtd import pagerequest
from decoders.vtd.descriptors import DESCRIPTORS, descriptor_type
from decoders.vtd.faults import FAULT_REASONS, INTERRUPT_REASONS, FaultRecordRegister
from decoders.vtd.interrupt import InterruptRemapEntry, message_index
from decoders.vtd.paging import FirstStageEntry, SecondStageEntry
from decoders.vtd.registers import RTADDR, Register, RootTableAddress, register_names
from decoders.vtd.tables import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from harness.decoded_event import Decoded
from harness.decoded_virtio import (
    UNKNOWN_REASON,
    config_field,
    decode_config,
    decode_features,
    decode_report,
    decode_request,
    known_fault,
    region_text,
)
from harness.domains import Domains
from harness.model.virtio.config import DEFAULT_FEATURES
from harness.trace import VIRTIO, VTD, Header, UnitInfo
from harness.trace.codec import PAGE

PAGES_LIMIT = 1 << 16
"""Table pages whose use is remembered; stores to others are shown without their fields."""

SHAPES: dict[Role, type[Structure]] = {
    Role.ROOT: RootEntry,
    Role.CONTEXT: ContextEntry,
    Role.SCALABLE_CONTEXT: ScalableContextEntry,
    Role.PASID_DIRECTORY: PasidDirectoryEntry,
    Role.PASID_TABLE: PasidEntry,
    Role.SECOND_STAGE: SecondStageEntry,
    Role.FIRST_STAGE: FirstStageEntry,
    Role.INTERRUPT_TABLE: InterruptRemapEntry,
}
POINTER_BITS = 40  # a field this wide is an address without its low bits

RESPONSE_CODES = {0: "success", 1: "invalid request", 15: "response failure"}
"""What a device is told about a group of page requests (PCIe 10.4.2.2)."""
UNKNOWN_CODE = "reserved response code"

_TTM = layout(RootTableAddress)["ttm"]
_SID = layout(FaultRecordRegister)["sid"]
_FI = layout(FaultRecordRegister)["fi"]
_REASON = layout(FaultRecordRegister)["fr"]


def fields_of(shape: type[Structure], words: Sequence[int], first_word: int = 0) -> dict[str, int]:
    """Return the fields that lie in words, of which the first is number first_word of shape.

    Pointers are given as addresses.
    """
    found = {}
    for name, place in layout(shape).fields.items():
        index = place.word - first_word
        if 0 <= index < len(words):
            value = words[index] & place.mask
            found[name] = value if place.width >= POINTER_BITS else value >> place.low
    return found


def unit_of(header: Header) -> UnitInfo:
    """Return the unit that a trace is about: the first one that is described."""
    for unit in header.units:
        if unit.kind == VIRTIO or (unit.kind == VTD and unit.capability):
            return unit
    return header.units[0] if header.units else UnitInfo()


def known_reason(reason: int, kind: str) -> str | None:
    """Say what a fault reason of a kind of unit means; None when it is not known."""
    if kind == VIRTIO:
        return known_fault(reason)
    known = FAULT_REASONS.get(reason)
    return None if known is None else f"{known.tag} {known.text}".strip()


def reason_text(reason: int, kind: str = VTD) -> str:
    """Say what a fault reason of a kind of unit means, as far as it is known."""
    return known_reason(reason, kind) or UNKNOWN_REASON


def fault_record_source(event: FaultRecord) -> int:
    """Return the source id in a fault record."""
    return _SID.get((event.low, event.high))


def fault_record_address(event: FaultRecord) -> int | None:
    """Return the page a fault record names; None for an interrupt's, which names an index."""
    words = (event.low, event.high)
    return None if _REASON.get(words) in INTERRUPT_REASONS else _FI.address(words)


class Namer:
    """Decode events in order; remembers which page is used as what, up to PAGES_LIMIT pages."""

    def __init__(self, header: Header) -> None:
        unit = unit_of(header)
        self.kind = unit.kind
        self.domains = Domains(header)
        # Where it says nothing of them, as replay takes them.
        offered = unit.capability if self.kind == VIRTIO else 0
        self._features = Features(offered or DEFAULT_FEATURES, 0)
        units = [unit for unit in header.units if unit.kind == VTD]
        first = units[0] if units else UnitInfo()
        self._registers = register_names(
            first.capability, first.extended_capability, first.virtual_commands
        )
        self._pages: dict[int, tuple[Role, int]] = {}
        self._scalable = False

    def register(self, offset: int) -> tuple[Register, int] | None:
        """Find the register at an offset, and the byte in it that the offset names."""
        for start in (offset, offset - 4):
            found = self._registers.get(start)
            if found is not None and offset - start < found.size:
                return found, offset - start
        return None

    def register_name(self, offset: int) -> str:
        """Name the register or config field at an offset, or repeat the offset."""
        if self.kind == VIRTIO:
            return config_field(offset)
        found = self.register(offset)
        if found is None:
            return f"{offset:#05x}"
        return found[0].name + (f"+{found[1]}" if found[1] else "")

    def learn(self, event: Event) -> None:
        """Take from an event what is needed to decode later ones."""
        self.domains.apply(event)
        if isinstance(event, Snapshot):
            if event.address in self._pages or len(self._pages) < PAGES_LIMIT:
                self._pages[event.address] = event.role, event.level
        elif isinstance(event, Release):
            self._pages.pop(event.address, None)
        elif isinstance(event, RegWrite) and event.offset == RTADDR.offset:
            self._scalable = _TTM.get((event.value,)) == 1
        elif isinstance(event, Features):
            self._features = event

    def decode(self, event: Event) -> Decoded | None:
        """Return what is known of an event beyond its fields, or None; learns from it, too."""
        self.learn(event)
        match event:
            case RegWrite() | RegRead():
                return self._decode_register(event)
            case Descriptor(words):
                shape = DESCRIPTORS.get(descriptor_type(words[0]))
                if shape is None:
                    return Decoded("unknown descriptor")
                return Decoded(shape.__name__, fields_of(shape, words))
            case Store():
                return self._decode_store(event)
            case Access(outcome=Fault(reason)):
                return Decoded(reason_text(reason, self.kind))
            case InterruptRequest():
                return _decode_interrupt(event)
            case FaultRecord(_, low, high):
                fields = fields_of(FaultRecordRegister, (low, high))
                return Decoded("fault", fields, reason_text(_REASON.get((low, high))))
            case PageRequestRecord(_, words):
                return Decoded("PageRequest", fields_of(pagerequest.PageRequest, words))
            case PageResponse(code=code):
                return Decoded(RESPONSE_CODES.get(code, UNKNOWN_CODE))
            case Request():
                return decode_request(event)
            case FaultReport():
                return decode_report(event)
            case Features():
                return decode_features(event)
            case ConfigSpace(data):
                return decode_config(data, self._features.offered, self._features.accepted)
            case Endpoint(_, regions):
                lines = tuple(f"reserved {region_text(region)}" for region in regions)
                text = f"reserved regions: {len(lines)}"
                return Decoded("endpoint", words=text, more={"reserved": lines}, lines=lines)
        return None

    def entries(self, event: Snapshot) -> list[tuple[int, Decoded]]:
        """Return the entries of a page that are not zero, with their indices."""
        shape = self._shape(event.role)
        if shape is None:
            return []
        size = layout(shape).size
        found = []
        for index in range(PAGE // size):
            entry = event.data[index * size : (index + 1) * size]
            if any(entry):
                words = [
                    int.from_bytes(entry[i : i + 8], "little") for i in range(0, len(entry), 8)
                ]
                found.append((index, Decoded(shape.__name__, fields_of(shape, words))))
        return found

    def _shape(self, role: Role) -> type[Structure] | None:
        if role is Role.ROOT and self._scalable:
            return ScalableRootEntry
        return SHAPES.get(role)

    def _decode_register(self, event: RegWrite | RegRead) -> Decoded:
        name = self.register_name(event.offset)
        if self.kind == VIRTIO:
            return Decoded(name)
        found = self.register(event.offset)
        if found is None:
            return Decoded("no known register")
        register, start = found
        if event.value is None or register.fields is None:
            return Decoded(name)
        known = layout(register.fields)
        if known.words == 1:
            fields = fields_of(register.fields, [event.value << (8 * start)])
        else:  # a fault record: its halves are registers of their own
            half = int(register.name.endswith("HIGH"))
            fields = fields_of(register.fields, [event.value << (8 * start)], half)
        # What a narrower access did not carry says nothing.
        width = 8 * event.size
        fields = {
            key: value
            for key, value in fields.items()
            if 8 * start <= known[key].low < 8 * start + width
        }
        return Decoded(name, fields)

    def _decode_store(self, event: Store) -> Decoded | None:
        offset = event.address % PAGE
        role, level = self._pages.get(event.address - offset, (None, 0))
        if role is None:
            return None
        if role is Role.QUEUE:
            return Decoded("queue")
        shape = self._shape(role)
        assert shape is not None
        size = layout(shape).size
        word = offset % size // 8
        value = event.value << (8 * (event.address % 8))
        where = f"{shape.__name__}[{offset // size:#x}]"
        if level:
            where += f" level {level}"
        return Decoded(where, fields_of(shape, [value], word))


def _decode_interrupt(event: InterruptRequest) -> Decoded:
    index = message_index(event.address, event.data)
    refused = event.outcome.reason if isinstance(event.outcome, Fault) else None
    remark = ""
    if refused is not None:
        remark = reason_text(refused) if refused else "refused, the reason was not recorded"
    if index is None:
        return Decoded("compatibility format", remark=remark)
    return Decoded("remappable format", {"index": index}, remark)
