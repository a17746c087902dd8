"""Domains, PASIDs and devices get small numbers, and everything that names them goes along."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest

from decoders.events import (
    Access,
    AccessKind,
    Descriptor,
    Endpoint,
    Event,
    FaultReport,
    RegWrite,
    Request,
    Store,
    Translation,
)
from decoders.layout import layout
from decoders.virtio_iommu.requests import field_of
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import DESCRIPTORS, DescriptorType
from harness.minimise.engine import Options, minimise
from harness.minimise.identities import IDENTITIES, SLOTS
from harness.minimise.judges import ReplayJudge
from harness.minimise.pieces import Cut
from harness.minimise.trace import Trace
from harness.minimise.view import View
from harness.trace import open_events
from tools.bench.reproducers import CORPUS, header, virtio_answer

SID, PASID, DOMAIN = 0x2B8, 0x3C5, 0x77
"""A device on bus 2, behind the upper context table; a PASID behind the 16th directory entry."""
QUEUE = 0x2_0000


def renamed(trace: Trace) -> Trace:
    """Apply every pass as a whole, whether it makes the trace smaller or not."""
    for edits in IDENTITIES:
        view = View(trace)
        count, make = edits(view)
        change = make(range(count))
        trace = view.trace(change(event, number) for number, event in enumerate(view.events))
    return trace


def signatures(trace: Trace) -> list[str]:
    return [str(one.signature) for one in ReplayJudge("model")(trace)]


def scalable(sid: int, pasid: int, rid_pasid: int = 0) -> list[Event]:
    """Return the tables of a device with a PASID, first-stage; address 0 leads to 0x99000."""
    half, index = sid >> 7 & 1, sid & 0x7F
    return [
        Store(0x1_0000 + 16 * (sid >> 8) + 8 * half, 8, 0x1_1001),
        Store(0x1_1000 + 32 * index, 8, 0x1_2009),
        Store(0x1_1008 + 32 * index, 8, rid_pasid),
        Store(0x1_2000 + 8 * (pasid >> 6), 8, 0x1_3001),
        Store(0x1_3000 + 64 * (pasid & 0x3F), 8, 0x49),
        Store(0x1_3008 + 64 * (pasid & 0x3F), 8, DOMAIN),
        Store(0x1_3010 + 64 * (pasid & 0x3F), 8, 0x1_4000),
        Store(0x1_4000, 8, 0x1_5027),
        Store(0x1_5000, 8, 0x1_6027),
        Store(0x1_6000, 8, 0x1_7027),
        Store(0x1_7000, 8, 0x9_9067),
        RegWrite(vtd.RTADDR.offset, 8, 0x1_0400),
        RegWrite(vtd.GCMD.offset, 4, 0xC000_0000),
    ]


def access(sid: int, pasid: int | None, address: int = 0x9_9000) -> Access:
    return Access(sid, pasid, 0, AccessKind.READ, Translation(address, 0xFFF))


def trace_of(*events: Event) -> Trace:
    return Trace(header("first-stage"), tuple(events))


def test_the_tables_of_a_pasid_move_with_it() -> None:
    sound = trace_of(*scalable(SID, PASID), access(SID, PASID))
    assert signatures(sound) == []
    made = renamed(sound)
    assert signatures(made) == []
    assert made.events[-1] == access(SLOTS[0], 1)
    places = [event.address for event in made.events if isinstance(event, Store)]
    assert places[:5] == [0x1_0000, 0x1_1100, 0x1_1108, 0x1_2000, 0x1_3040]


def test_what_stands_in_for_no_pasid_is_renamed_where_the_device_names_it() -> None:
    sound = trace_of(*scalable(SID, PASID, PASID), access(SID, None))
    made = renamed(sound)
    assert signatures(made) == signatures(sound)
    assert made.events[-1] == access(SLOTS[0], None)
    assert made.events[2] == Store(0x1_1108, 8, 1)


def test_a_finding_about_a_pasid_becomes_one_about_the_first() -> None:
    trace = trace_of(*scalable(SID, PASID), access(SID, PASID, 0x123_4000))
    judge = ReplayJudge("model")
    result = minimise(trace, judge, Options())
    last = result.trace.events[-1]
    assert isinstance(last, Access)
    assert (last.sid, last.pasid) == (SLOTS[0], 1)
    assert result.target in {one.signature for one in judge(result.trace)}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (DescriptorType.CONTEXT_CACHE, {"g": 3, "did": DOMAIN, "sid": SID}),
        (DescriptorType.IOTLB, {"g": 2, "did": DOMAIN}),
        (DescriptorType.PASID_IOTLB, {"g": 2, "did": DOMAIN, "pasid": PASID}),
        (DescriptorType.PASID_CACHE, {"g": 1, "did": DOMAIN, "pasid": PASID}),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, DescriptorType) else "",
)
def test_descriptors_and_what_is_seen_of_them_name_the_same(
    kind: DescriptorType, fields: dict[str, int]
) -> None:
    shape = layout(DESCRIPTORS[kind])
    words = [int(kind), 0]
    for name, value in fields.items():
        shape[name].put(words, value)
    sound = trace_of(
        *scalable(SID, PASID),
        RegWrite(vtd.IQA.offset, 8, QUEUE | 1 << 11),
        RegWrite(vtd.GCMD.offset, 4, 0x8400_0000),
        access(SID, PASID),
        *(Store(QUEUE + 8 * n, 8, word) for n, word in enumerate((*words, 0, 0))),
        RegWrite(vtd.IQT.offset, 8, 32),
        Descriptor((*words, 0, 0)),
        access(SID, PASID),
    )
    assert signatures(sound) == []
    made = renamed(sound)
    assert signatures(made) == []
    seen = next(event.words for event in made.events if isinstance(event, Descriptor))
    small = {"did": 1, "sid": SLOTS[0], "pasid": 1}
    for name in fields:
        assert shape[name].get(seen) == small.get(name, fields[name]), name


def test_devices_whose_tables_differ_stay_on_buses_of_their_own() -> None:
    """On one bus there would be one context table for both."""
    other = 0x4A8
    trace = trace_of(
        Store(0x1_0020, 8, 0x1_1001), Store(0x1_0040, 8, 0x1_8001),
        Store(0x1_1000 + 16 * (SID & 0xFF), 8, 0x9), Store(0x1_1008 + 16 * (SID & 0xFF), 8, 0x102),
        Store(0x1_8000 + 16 * (other & 0xFF), 8, 0x9),
        Store(0x1_8008 + 16 * (other & 0xFF), 8, 0x202),
        RegWrite(vtd.RTADDR.offset, 8, 0x1_0000),
        RegWrite(vtd.GCMD.offset, 4, 0xC000_0000),
        Access(SID, None, 0, AccessKind.READ, Translation(0, 0xFFF)),
        Access(other, None, 0, AccessKind.READ, Translation(0, 0xFFF)),
    )  # fmt: skip
    assert signatures(trace) == []
    view = View(trace)
    count, make = IDENTITIES[-1](view)
    change = make(range(count))
    made = view.trace(change(event, number) for number, event in enumerate(view.events))
    assert signatures(made) == []
    assert [e.sid for e in made.events if isinstance(e, Access)] == [SLOTS[0], 0x100]
    places = [event.address for event in made.events if isinstance(event, Store)]
    assert places == [0x1_0000, 0x1_0010, 0x1_1080, 0x1_1088, 0x1_8000, 0x1_8008]


@pytest.mark.parametrize("name", ["legacy-strict", "scalable-first-stage", "legacy-device-tlb"])
def test_a_recording_means_the_same_afterwards(name: str) -> None:
    with open_events(CORPUS / f"{name}.trace") as source:
        whole = Trace(source.header, tuple(islice(source, 1500)))
    whole = Cut(whole, explicit=True).trace
    judge = ReplayJudge("native")
    made = renamed(whole)
    assert made.events != whole.events
    assert [one.signature for one in judge(made)] == [one.signature for one in judge(whole)]


def test_endpoints_get_the_first_slots() -> None:
    trace = virtio_answer(1, 400)
    judge = ReplayJudge("native")
    events = (Endpoint(0x300, ()), *trace.events)
    result = minimise(replace(trace, events=events), judge, Options())
    ids = {
        field_of(event.data, "endpoint") if isinstance(event, Request) else event.sid
        for event in result.trace.events
        if isinstance(event, Request | Access)
    }
    assert ids == {SLOTS[0]}
    assert not any(isinstance(event, FaultReport) for event in result.trace.events)
