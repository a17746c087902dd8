"""Put what a QEMU log tells of a virtio-iommu together: its own lines and the recorder's.

A trace line says when the device took a request, and a `dmr vreq` line, which comes when the
processor's store to the notification register is done, says what the request was and what was
answered. Events in between wait. In a log without a recorder's lines a request is made up from
what its trace line shows (docs/design.md, section 5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from decoders.bytewise import build, packed
from decoders.capture.recorder import ConfigStore
from decoders.capture.virtio_events import (
    ConfigRead,
    EndpointKnown,
    Nothing,
    Offered,
    Part,
    RegionLine,
    RequestLine,
    ResetFromOutside,
    Translate,
    TranslateOut,
)
from decoders.errors import DecodeError
from decoders.events import (
    Access,
    AccessKind,
    ConfigSpace,
    DeviceReset,
    Event,
    Fault,
    FaultReport,
    Features,
    Outcome,
    RegWrite,
    Request,
    Reset,
    Translation,
)
from decoders.virtio_iommu.config import BYPASS_OFFSET, written_bypass
from decoders.virtio_iommu.constants import RequestType, ResvSubtype, Status
from decoders.virtio_iommu.properties import encode_properties, read_properties, resv_mem
from decoders.virtio_iommu.requests import (
    READABLE_SIZE,
    REQUESTS,
    TAIL_SIZE,
    encode_request,
    status_of,
)
from decoders.virtio_iommu.structures import Config

HELD_LIMIT: Final = 8192
"""Events and places that wait for a request's content at most."""

PROBE_LIMIT: Final = 4096
"""Bytes of properties that are made up; what a longer answer held stays unknown."""

ENDPOINTS_LIMIT: Final = 1 << 16
REGIONS_LIMIT: Final = 64
"""Endpoints, and reserved regions of one, that are remembered."""

_UNCONFIRMED_LIMIT: Final = 64
_MOST_ROOM: Final = 0xFFFF_FFFF

_SHOWN: Final[dict[RequestType, tuple[str, ...]]] = {
    RequestType.ATTACH: ("domain", "endpoint"),
    RequestType.DETACH: ("domain", "endpoint"),
    RequestType.MAP: ("domain", "virt_start", "virt_end", "phys_start", "flags"),
    RequestType.UNMAP: ("domain", "virt_start", "virt_end"),
    RequestType.PROBE: ("endpoint",),
}
"""The fields of each request that its trace line shows."""

_INDEXES: Final = {
    kind: tuple(packed(REQUESTS[kind]).names.index(name) for name in names)
    for kind, names in _SHOWN.items()
}

Region = tuple[int, int, int]


@dataclass(slots=True)
class _Place:
    """Keep the place of a request in the stream, and what its trace line shows."""

    line: int
    shown: RequestLine
    regions: list[Region] = field(default_factory=list)


class VirtioLog:
    """Turn the lines that tell of a virtio-iommu into events.

    tick adds a Clock where one is due; problem is told what does not fit together. `recording`
    says that requests wait for their `dmr vreq` line; `offered` and `config` are what the log
    first said about the device.
    """

    def __init__(self, tick: Callable[[list[Event]], None], problem: Callable[[str], None]) -> None:
        self.recording = False
        self.offered: int | None = None
        self.config: bytes | None = None
        self.line = 0
        self._tick = tick
        self._problem = problem
        self._held: deque[Event | _Place] = deque()
        self._waiting: dict[RequestLine, int] = {}  # how often each is the place of one that waits
        self._access: Translate | None = None
        self._probe: _Place | None = None
        self._features: Features | None = None
        self._config: bytes | None = None
        self._unconfirmed: deque[int] = deque()
        self._written: int | None = None  # to bypass since the last reset of the machine
        self._fresh = False  # nothing has happened since a reset of the machine
        self._endpoints: set[int] = set()
        self._regions: dict[int, list[Region]] = {}

    @property
    def busy(self) -> bool:
        """Say whether something waits, so that other events have to take this way, too."""
        return self._access is not None or bool(self._held)

    def take(self, part: Part, line: int, out: list[Event]) -> None:
        """Take a trace line; what is complete goes to out."""
        self.line = line
        access = self._access
        if access is not None:
            self._access = None
            if self._ends(access, part, out):
                return
        if type(part) is Translate:
            self._clock(out)
            self._access = part
        elif type(part) is TranslateOut:
            # The line before it came from another thread.
            self._put(_access(part.sid, part.address, part.physical), out)
        elif type(part) is FaultReport:
            self._put(part, out)
        elif type(part) is RegionLine:
            self._region(part, out)
        else:
            self._close_probe(out)
            self._other(part, out)

    def push(self, event: Event, out: list[Event]) -> None:
        """Put an event of another kind behind what waits."""
        self._settle(out)
        self._put(event, out)

    def lost(self, gap: Event, out: list[Event]) -> None:
        """Put a gap where its line stands; what waits is still to come."""
        self._append(gap, out)

    def request(self, told: Request, line: int, out: list[Event]) -> None:
        """Take the content of the oldest request that waits for its own."""
        self.line = line
        self._settle(out)
        self._probe = None
        if not self.recording:
            return
        shown = _shown(told)
        leaves_line = shown is not None and _leaves_line(told, shown.kind)
        # The unit prints regions before it finds that there is no room for them.
        no_room = shown is not None and shown.kind is RequestType.PROBE and _failed(told)
        if shown is None or not (leaves_line or no_room) or shown not in self._waiting:
            if leaves_line:
                self._problem(f"the recorder saw {shown}, the unit did not")
            self._clock(out)
            out.append(told)
            return
        held = self._held
        while not self._is_place_of(held[0], shown):
            self._pass(held.popleft(), out)
        self._leave(shown)
        held.popleft()
        out.append(told)
        while held and type(held[0]) is not _Place:
            self._pass(held.popleft(), out)

    @staticmethod
    def _is_place_of(one: Event | _Place, shown: RequestLine) -> bool:
        return type(one) is _Place and one.shown == shown

    def accepted(self, features: int, line: int, out: list[Event]) -> None:
        """Take what the driver has accepted."""
        self.line = line
        offered = features if self._features is None else self._features.offered
        self._features = Features(offered, features)
        self.push(self._features, out)

    def stored(self, store: ConfigStore, line: int, out: list[Event]) -> None:
        """Take a store to the config space, which the unit may have told of before."""
        self.line = line
        if not self._unconfirmed:
            written = written_bypass(store.offset, store.size, store.value)
            self._written = self._written if written is None else written
            self.push(RegWrite(store.offset, store.size, store.value), out)
            return
        bypass = self._unconfirmed.popleft()
        written = written_bypass(store.offset, store.size, store.value)
        if written not in (None, bypass):
            self._problem(f"the unit took bypass {bypass:#x}, the recorder saw {store}")

    def reset(self, line: int, out: list[Event]) -> None:
        """Take a reset by the driver."""
        self.line = line
        self._settle(out)
        self._other(DeviceReset(), out)

    def finish(self, out: list[Event]) -> None:
        """Give what waits; a request whose content has not come is made up."""
        self._settle(out)
        self._probe = None
        while self._held:
            self._pass(self._held.popleft(), out, expected=True)

    def lose(self, out: list[Event]) -> None:
        """Give what waits, and expect no more from the recorder."""
        self.finish(out)
        self.recording = False
        self._unconfirmed.clear()

    # --- accesses ----------------------------------------------------------------------------

    def _ends(self, access: Translate, part: Part, out: list[Event]) -> bool:
        """Complete an access; say whether the line after it has been used up."""
        if type(part) is TranslateOut and part.sid == access.sid and part.address == access.address:
            outcome: Outcome = Translation(part.physical, 0)
            self._append(Access(access.sid, None, access.address, access.kind, outcome), out)
            return True
        if (
            type(part) is FaultReport
            and part.endpoint == access.sid
            and part.address == access.address
        ):
            outcome = Fault(part.reason)
            self._append(Access(access.sid, None, access.address, access.kind, outcome), out)
            self._append(part, out)
            return True
        self._access = access
        self._settle(out)
        return False

    def _settle(self, out: list[Event]) -> None:
        """Complete an access of which the unit has said no more.

        It passes addresses of an MSI region without a word. It also refuses without one, when the
        driver has left no buffer for the report.
        """
        access, self._access = self._access, None
        if access is None:
            return
        passed = access.sid in self._endpoints and any(
            subtype == ResvSubtype.MSI and start <= access.address <= end
            for subtype, start, end in self._regions.get(access.sid, ())
        )
        outcome = Translation(access.address, 0) if passed else None
        self._append(Access(access.sid, None, access.address, access.kind, outcome), out)

    # --- requests ----------------------------------------------------------------------------

    def _region(self, part: RegionLine, out: list[Event]) -> None:
        region = (part.subtype, part.start, part.end)
        probe, shown = self._probe, RequestLine(RequestType.PROBE, (part.endpoint,))
        # The same region again begins the answer to another request.
        if probe is None or probe.shown != shown or region == probe.regions[0]:
            self._close_probe(out)
            probe = self._probe = _Place(self.line, shown)
            self._hold(probe, out)
            if len(self._regions) < ENDPOINTS_LIMIT:
                self._regions[part.endpoint] = []
        if len(probe.regions) < REGIONS_LIMIT:
            probe.regions.append(region)
            self._regions.get(part.endpoint, []).append(region)

    def _close_probe(self, out: list[Event]) -> None:
        self._probe = None
        if self._held and not self.recording:
            self.finish(out)

    def _hold(self, place: _Place, out: list[Event]) -> None:
        self._clock(out)
        self._held.append(place)
        self._waiting[place.shown] = self._waiting.get(place.shown, 0) + 1
        if len(self._held) > HELD_LIMIT:
            self._problem(f"the recorder did not tell of the request of line {place.line}")
            self.lose(out)

    def _pass(self, one: Event | _Place, out: list[Event], expected: bool = False) -> None:
        """Give an event that has waited, or what a place shows of its request."""
        if type(one) is not _Place:
            out.append(one)  # type: ignore[arg-type]
            return
        self._leave(one.shown)
        if not expected:
            self._problem(f"the recorder did not tell of the request of line {one.line}")
        made_up = self._made_up(one)
        if made_up is not None:
            out.append(made_up)

    def _leave(self, shown: RequestLine) -> None:
        left = self._waiting.pop(shown) - 1
        if left:
            self._waiting[shown] = left

    def _made_up(self, place: _Place) -> Request | None:
        """Make a request from its trace line: of flags and answers it shows those of MAP only.

        The size of a PROBE answer is in the config space: None when nobody has read that.
        """
        kind = place.shown.kind
        values = dict(zip(_SHOWN[kind], place.shown.numbers, strict=True))
        data = encode_request(build(REQUESTS[kind], type=int(kind), **values))
        if kind is RequestType.MAP:
            return Request(data, TAIL_SIZE, bytes(TAIL_SIZE))
        if kind is not RequestType.PROBE:
            return Request(data, TAIL_SIZE, None)
        if self.config is None:
            return None
        size = packed(Config).unpack(self.config)[packed(Config).names.index("probe_size")]
        if size > PROBE_LIMIT:
            return Request(data, min(size + TAIL_SIZE, _MOST_ROOM), None)
        regions = [resv_mem(start, end, subtype) for subtype, start, end in place.regions]
        try:
            answer = encode_properties(regions, size) + bytes(TAIL_SIZE)
        except ValueError:
            return None
        return Request(data, len(answer), answer)

    # --- the rest ----------------------------------------------------------------------------

    def _other(self, part: Part, out: list[Event]) -> None:
        if type(part) is RequestLine:
            self._hold(_Place(self.line, part), out)
            if not self.recording:
                self.finish(out)
        elif type(part) is EndpointKnown:
            if not part.known:
                self._endpoints.discard(part.endpoint)
            elif len(self._endpoints) < ENDPOINTS_LIMIT:
                self._endpoints.add(part.endpoint)
        elif type(part) is Offered:
            self.offered = part.features if self.offered is None else self.offered
            accepted = 0 if self._features is None else self._features.accepted
            self._features = Features(part.features, accepted)
            self._put(self._features, out)
        elif type(part) is ConfigRead:
            self.config = part.data if self.config is None else self.config
            if part.data != self._config:
                self._config = part.data
                self._put(ConfigSpace(part.data), out)
        elif type(part) is RegWrite:
            self._set_bypass(part, out)
        elif type(part) is DeviceReset or type(part) is Reset:
            self._reset(part, out)
        elif type(part) is ResetFromOutside:
            self._reset_from_outside(out)
        else:
            assert type(part) is Nothing

    def _set_bypass(self, write: RegWrite, out: list[Event]) -> None:
        if self._config is not None:
            config = bytearray(self._config)
            config[BYPASS_OFFSET] = write.value
            self._config = bytes(config)
        if self.recording:
            self._unconfirmed.append(write.value)
            if len(self._unconfirmed) > _UNCONFIRMED_LIMIT:
                self._unconfirmed.popleft()
                self._problem("a store to the config space was not seen by the recorder")
        self._written = write.value
        self._put(write, out)

    def _reset(self, part: DeviceReset | Reset, out: list[Event]) -> None:
        if self._features is not None:
            self._features = Features(self._features.offered, 0)
        if type(part) is Reset:
            self._config = None  # bypass is what it was at first
        self._put(part, out)
        self._fresh = type(part) is Reset
        if self._fresh:
            self._written = None

    def _reset_from_outside(self, out: list[Event]) -> None:
        """Take a reset that ends domains; behind one of the machine there are none.

        Where a bus alone was reset, bypass stays what it is: the only thing that a reset of the
        machine restores, so it is written again.
        """
        if self._fresh:
            return
        config, written = self._config, self._written
        self._reset(Reset(), out)
        self._config = config
        if written is not None:
            self._written = written
            self._put(RegWrite(BYPASS_OFFSET, 1, written), out)

    def _put(self, event: Event, out: list[Event]) -> None:
        self._clock(out)
        self._append(event, out)

    def _clock(self, out: list[Event]) -> None:
        self._fresh = False
        if not self._held:
            self._tick(out)
            return
        due: list[Event] = []
        self._tick(due)
        self._held += due

    def _append(self, event: Event, out: list[Event]) -> None:
        if not self._held:
            out.append(event)
            return
        self._held.append(event)
        if len(self._held) > HELD_LIMIT:
            self._problem(f"the recorder told of no request up to line {self.line}")
            self.lose(out)


def _access(sid: int, address: int, physical: int) -> Access:
    return Access(sid, None, address, AccessKind.UNKNOWN, Translation(physical, 0))


def _shown(told: Request) -> RequestLine | None:
    """Give what a trace line would show; None without a known type, or enough of the request."""
    try:
        kind = RequestType(told.data[0])
    except (ValueError, IndexError):
        return None
    if len(told.data) < READABLE_SIZE[kind]:
        return None
    values = packed(REQUESTS[kind]).unpack(told.data)
    return RequestLine(kind, tuple(values[index] for index in _INDEXES[kind]))


def _leaves_line(told: Request, kind: RequestType) -> bool:
    """Say whether the unit prints a line for such a request, going by its answer."""
    if kind is RequestType.MAP:
        return status_of(told.answer) == Status.OK
    return kind is not RequestType.PROBE or _has_regions(told)


def _failed(told: Request) -> bool:
    return status_of(told.answer) == Status.DEVERR


def _has_regions(told: Request) -> bool:
    payload = (told.answer or b"")[:-TAIL_SIZE]
    try:
        return any(one.region is not None for one in read_properties(payload, "answer"))
    except DecodeError:
        return True
