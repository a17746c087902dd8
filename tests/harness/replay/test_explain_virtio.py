"""A finding about a virtio-iommu tells what was asked and permitted, and which mapping counts."""

from __future__ import annotations

from decoders.events import (
    Access,
    AccessKind,
    ConfigSpace,
    Endpoint,
    Event,
    Fault,
    FaultReport,
    Outcome,
    RegRead,
    RegWrite,
    Request,
    Translation,
)
from tests.harness.virtio_story import HEADER, MSI, NIC
from tests.writers.replays import replay_events
from tests.writers.virtio_iommu import (
    INVAL,
    OK,
    asked,
    attach,
    config,
    detach,
    map_,
    probe,
    regions,
    tail,
    unmap,
)

READY = (RegWrite(0x24, 1, 0), asked(attach(1, NIC)), asked(map_(1, 0x1000, 0x1FFF, 0x80000)))
MAP = "event 2: MAP domain=0x1 0x1000-0x1fff -> 0x80000 READ|WRITE"
DIVERGES = "the recorded answer is not permitted"


def explained(target: str, *events: Event) -> list[str]:
    """Return the lines of the only finding, their spaces made single."""
    result = replay_events(HEADER, events, target)
    (finding,) = result.findings
    return [" ".join(line.split()) for line in result.explain(finding).splitlines()]


def use(outcome: Outcome) -> Access:
    return Access(NIC, None, 0x1010, AccessKind.READ, outcome)


def test_a_refused_request(target: str) -> None:
    assert explained(target, *READY[:2], asked(map_(1, 0x1000, 0x1FFF, 0x80000), INVAL)) == [
        f"divergence: {MAP}",
        DIVERGES,
        "recorded INVAL",
        "permitted OK",
        "permitted IOERR",
        "permitted DEVERR",
        "permitted NOMEM",
    ]


def test_a_request_without_an_answer(target: str) -> None:
    lines = explained(target, *READY, Request(unmap(1, 0, 0xFFFF), 4, b""))
    assert lines[0] == "divergence: event 3: UNMAP domain=0x1 0x0-0xffff"
    assert lines[2:4] == ["recorded nothing written", "permitted OK"]


def test_a_probe_that_forgets_a_region(target: str) -> None:
    lines = explained(target, Endpoint(NIC, (MSI,)), Request(probe(NIC), 68, tail(OK, regions())))
    assert lines[2:4] == [
        "recorded OK behind 64 bytes of properties",
        "permitted OK behind 64 bytes of properties: reserved 0xfee00000-0xfeefffff MSI",
    ]


def test_an_access_names_the_mapping_that_counts(target: str) -> None:
    assert explained(target, *READY, use(Translation(0x90000, 0xFFF))) == [
        "divergence: event 3: access 00:03.0 - 0x1010 read = 0x90000 0xfff",
        DIVERGES,
        "recorded translation to 0x90000, page mask 0xfff",
        "permitted translation to 0x80000, page mask 0xfff",
        "domain 0x1",
        f"mapped by {MAP}",
    ]


def test_an_access_without_a_domain(target: str) -> None:
    lines = explained(target, READY[0], use(Translation(0x1000, 0xFFF)))
    assert "permitted fault 0x01 (DOMAIN the endpoint has no domain)" in lines
    assert "permitted fault 0x00 (UNKNOWN not specified)" in lines
    assert "domain none" in lines


def test_a_mapping_used_after_its_end(target: str) -> None:
    assert explained(
        target, *READY, asked(unmap(1, 0, 0x1FFF)), use(Translation(0x80000, 0xFFF))
    ) == [
        "stale-after-invalidation: event 4: access 00:03.0 - 0x1010 read = 0x80000 0xfff",
        "the unit used a mapping after its end",
        "recorded translation to 0x80000, page mask 0xfff",
        "permitted fault 0x02 (MAPPING no mapping permits the access)",
        "domain 0x1",
        f"mapped by {MAP}",
        "ended by event 3: UNMAP domain=0x1 0x0-0x1fff",
    ]


def test_a_mapping_ended_by_a_detach(target: str) -> None:
    lines = explained(target, *READY, asked(detach(1, NIC)), use(Translation(0x80000, 0xFFF)))
    assert lines[-1] == "ended by event 3: DETACH domain=0x1 endpoint=00:03.0"


def test_a_fault_report_with_another_reason(target: str) -> None:
    lines = explained(target, READY[0], use(Fault(1)), FaultReport(2, 0x101, NIC, 0x1010))
    assert lines[2:4] == [
        "recorded fault report MAPPING no mapping permits the access READ|ADDRESS, "
        "endpoint 00:03.0, address 0x1010",
        "permitted fault report DOMAIN the endpoint has no domain READ|ADDRESS, "
        "endpoint 00:03.0, address 0x1010",
    ]


def test_a_missing_fault_report(target: str) -> None:
    lines = explained(target, READY[0], use(Fault(1)))
    assert lines[0] == "divergence: event 1: access 00:03.0 - 0x1010 read ! 0x01"
    assert lines[2] == "recorded nothing"
    assert lines[3].startswith("permitted fault report DOMAIN")


def test_config_space(target: str) -> None:
    assert explained(target, READY[0], RegRead(0x24, 1, 1))[2:] == ["recorded 0x1", "permitted 0x0"]
    lines = explained(target, READY[0], ConfigSpace(config(bypass=1)))
    assert lines[2:] == ["recorded bypass 01", "permitted bypass 00"]
