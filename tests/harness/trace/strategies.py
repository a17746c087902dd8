"""Hypothesis strategies for everything a trace can hold."""

from __future__ import annotations

from hypothesis import strategies as st

from decoders.events import (
    ATTRIBUTES,
    Access,
    AccessKind,
    Clock,
    ConfigSpace,
    Descriptor,
    DeviceReset,
    DeviceTlbMessage,
    Endpoint,
    Event,
    Fault,
    FaultRecord,
    FaultReport,
    Features,
    Gap,
    Interrupt,
    InterruptRequest,
    Message,
    PageRequest,
    PageRequestFlag,
    PageRequestRecord,
    PageResponse,
    Posted,
    RegRead,
    RegWrite,
    Release,
    Request,
    Reset,
    Role,
    Snapshot,
    StatusWrite,
    Store,
    Translation,
)
from harness.trace import Header, UnitInfo

u8, u16, u20, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 20, 32, 64))
pages = st.integers(0, (1 << 52) - 1).map(lambda number: number << 12)
sizes = st.sampled_from([1, 2, 4, 8])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@st.composite
def _sized(draw: st.DrawFn) -> tuple[int, int]:
    size = draw(sizes)
    return size, draw(st.integers(0, (1 << 8 * size) - 1))


@st.composite
def _stores(draw: st.DrawFn) -> Store:
    size, value = draw(_sized())
    return Store(draw(pages) + draw(st.integers(0, 4096 - size)), size, value)


@st.composite
def _contents(draw: st.DrawFn) -> bytes:
    page = bytearray(4096)
    for offset, data in draw(st.dictionaries(st.integers(0, 4088), st.binary(max_size=8))).items():
        page[offset : offset + len(data)] = data
    return bytes(page)


outcomes = st.none() | st.builds(Translation, u64, u64) | st.builds(Fault, u8)
deliveries = (
    st.none()
    | st.builds(Message, u64, u32)
    | st.builds(Posted, u64.map(lambda address: address & ~63), u8, st.booleans())
    | st.builds(Fault, u8)
)
words = st.tuples(u64, u64) | st.tuples(u64, u64, u64, u64)


@st.composite
def _requests(draw: st.DrawFn) -> Request:
    answer = draw(st.none() | st.binary(max_size=40) | st.builds(bytes, st.integers(0, 600)))
    room = draw(u32)
    return Request(draw(st.binary(max_size=80)), max(room, len(answer or b"")), answer)


@st.composite
def _device_tlb_messages(draw: st.DrawFn) -> DeviceTlbMessage:
    size = 1 << draw(st.integers(12, 64))
    every = draw(st.booleans())
    pasid = None if every else draw(st.none() | u20)
    return DeviceTlbMessage(draw(u16), pasid, draw(u64) & -size, size - 1, every)


regions = st.tuples(u8, u64, u64).map(lambda r: (r[0], min(r[1:]), max(r[1:])))

BY_KIND: dict[type[Event], st.SearchStrategy[Event]] = {
    RegWrite: st.builds(lambda offset, pair: RegWrite(offset, *pair), u32, _sized()),
    RegRead: st.builds(lambda offset, pair: RegRead(offset, *pair), u32, _sized())
    | st.builds(RegRead, u32, sizes, st.none()),
    Store: _stores(),
    Snapshot: st.builds(
        Snapshot, pages, st.sampled_from(list(Role)), st.integers(0, 7), _contents()
    ),
    Release: st.builds(Release, pages),
    Descriptor: st.builds(Descriptor, words),
    Access: st.builds(
        Access,
        u16 | u32,
        st.none() | u20,
        u64,
        st.sampled_from(list(AccessKind)),
        outcomes,
        st.sampled_from(sorted(ATTRIBUTES)),
    ),
    FaultRecord: st.builds(FaultRecord, u64, u64, u64),
    StatusWrite: st.builds(StatusWrite, u64.map(lambda address: address & ~3), u32),
    Interrupt: st.builds(Interrupt, u64, u32),
    Reset: st.just(Reset()),
    Clock: st.builds(Clock, u64),
    Gap: st.builds(Gap, texts | st.text(" ;\\#x\n\r\t\0é\u2028", max_size=20)),
    Request: _requests(),
    FaultReport: st.builds(FaultReport, u8, u32, u32, u64),
    Features: st.builds(Features, u64, u64),
    ConfigSpace: st.builds(ConfigSpace, st.binary(max_size=64)),
    DeviceReset: st.just(DeviceReset()),
    Endpoint: st.builds(Endpoint, u32, st.lists(regions, max_size=4).map(tuple)),
    InterruptRequest: st.builds(InterruptRequest, st.none() | u16, u64, u32, deliveries),
    PageRequest: st.builds(
        PageRequest,
        *(u16, st.none() | u20, pages, st.integers(0, 31).map(PageRequestFlag)),
        st.integers(0, 511),
    ),
    PageRequestRecord: st.builds(
        PageRequestRecord, u64.map(lambda address: address & ~31), st.tuples(u64, u64, u64, u64)
    ),
    PageResponse: st.builds(
        PageResponse, u16, st.none() | u20, st.integers(0, 511), st.integers(0, 15)
    ),
    DeviceTlbMessage: _device_tlb_messages(),
}
events = st.one_of(*BY_KIND.values())

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True)
_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
_values = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@st.composite
def _memory(draw: st.DrawFn) -> tuple[tuple[int, int], ...]:
    ends = sorted(draw(st.sets(st.integers(0, 1 << 64), max_size=6)))
    pairs = zip(ends[::2], ends[1::2], strict=False)
    return tuple((start, end - start) for start, end in pairs)


configs = st.binary(max_size=48)
units = st.builds(
    UnitInfo,
    *(names, u64, u32, u64, u64, st.integers(0, 64), configs),
    st.sampled_from([0, 0xE00, 0xE30]),
    st.just("") | names,
)
headers = st.builds(
    Header,
    st.just(1),
    names,
    st.lists(units, max_size=3).map(tuple),
    _memory(),
    st.dictionaries(texts, _values, max_size=4),
    st.just("") | st.datetimes().map(lambda moment: moment.isoformat()),
    st.dictionaries(names, st.booleans(), max_size=3),
)
