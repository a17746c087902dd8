"""Whatever a trace holds can be shown, chosen, counted and put into words."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from decoders.bytewise import size_of
from decoders.events import ConfigSpace, Event, Request, Snapshot
from decoders.virtio_iommu.requests import READABLE_SIZE
from decoders.virtio_iommu.structures import Config
from harness.decoded import Namer
from harness.explain import explain
from harness.findings import Finding, FindingKind
from harness.selection import Selection
from harness.show import as_json
from harness.stats import Statistics
from harness.trace import VIRTIO, VTD, Header, UnitInfo
from tests.harness.trace.strategies import events

KINDS = st.sampled_from([VTD, VIRTIO])
OCTETS = st.binary(max_size=90)


@st.composite
def _requests(draw: st.DrawFn) -> Request:
    """Make requests of known types, mostly whole, on few domains and endpoints."""
    kind = draw(st.sampled_from(list(READABLE_SIZE)))
    size = READABLE_SIZE[kind] + draw(st.sampled_from([0, 0, 0, -1, 4]))
    small = st.integers(0, 3).map(lambda value: value.to_bytes(4, "little"))
    body = b"".join(draw(st.lists(small, min_size=20, max_size=20)))
    data = (bytes([kind, 0, 0, 0]) + body)[:size]
    answer = draw(st.none() | st.just(bytes(4)) | OCTETS)
    return Request(data, 4, answer)


EVENTS = events | _requests() | st.binary(max_size=size_of(Config) + 60).map(ConfigSpace)


@given(KINDS, st.lists(EVENTS, max_size=20))
def test_any_events(kind: str, found: list[Event]) -> None:
    header = Header(units=(UnitInfo(kind, capability=0x77),))
    namer, counted = Namer(header), Statistics(header)
    for number, event in enumerate(found):
        Selection(device=2, iova=(0, 1 << 40)).wants(event, namer.domains)
        decoded = namer.decode(event)
        entries = namer.entries(event) if isinstance(event, Snapshot) else []
        assert json.loads(json.dumps(as_json(number, None, event, decoded, entries)))
        if decoded is not None:
            assert decoded.text().isprintable()
            assert all(line.isprintable() for line in decoded.lines)
        counted.add(event)
    assert namer.domains.complete
    mappings = sum(len(domain) for domain in namer.domains._state.domains.values())
    assert namer.domains.mappings == mappings <= namer.domains.most_mappings
    assert json.loads(json.dumps(counted.plain()))["events"] == len(found)


@given(EVENTS, OCTETS | st.none(), st.lists(OCTETS, max_size=3), st.booleans())
def test_any_bytes_in_a_finding(
    event: Event, observed: bytes | None, permitted: list[bytes], config: bool
) -> None:
    subject = "config" if config else "request"
    finding = Finding(0, FindingKind.DIVERGENCE, subject, observed, tuple(permitted))
    lines = explain(finding, lambda number: event, VIRTIO).splitlines()
    assert lines[1] == "  the recorded answer is not permitted"
    assert len(lines) == 3 + max(1, len(permitted))
    moved = replace(finding, filled_by=0)
    assert len(explain(moved, lambda number: event, VIRTIO).splitlines()) == len(lines) + 1
