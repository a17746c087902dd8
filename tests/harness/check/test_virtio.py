"""Mistakes of a virtio-iommu's driver, and what is none."""

from __future__ import annotations

import pytest

from decoders.events import (
    Access,
    AccessKind,
    ConfigSpace,
    DeviceReset,
    Endpoint,
    Event,
    Fault,
    Features,
    Gap,
    Outcome,
    RegWrite,
    Request,
    Reset,
    Translation,
)
from harness.check.catalogue import VIRTIO_RULES
from harness.model.virtio.config import VirtioConfig
from harness.model.virtio.dialect import dialect_named
from tests.harness.check.test_mistakes import broken
from tests.writers.virtio_iommu import (
    FEATURES,
    INVAL,
    NOENT,
    OK,
    PROBE_SIZE,
    RANGE,
    UNSUPP,
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

NIC, DISK = 0x18, 0x20
MSI = (1, 0xFEE0_0000, 0xFEEF_FFFF)
INPUT, DOMAINS = (0x1000, 0xFFFF_FFFF), (1, 99)
MAP_UNMAP, PROBE_FEATURE, MMIO_FEATURE, BYPASS_CONFIG = 1 << 2, 1 << 4, 1 << 5, 1 << 6


def opening(accepted: int = FEATURES) -> list[Event]:
    """Bring a driver up: it probes an endpoint and maps a page for it."""
    known = Request(probe(NIC), PROBE_SIZE + 4, tail(OK, regions(MSI)))
    return [
        Reset(),
        Features(FEATURES, accepted),
        ConfigSpace(config(input_range=INPUT, domain_range=DOMAINS)),
        Endpoint(NIC, (MSI,)),
        Endpoint(DISK, (MSI,)),
        *([known] if accepted & PROBE_FEATURE else []),
        asked(attach(1, NIC)),
        *([asked(map_(1, 0x4000, 0x5FFF, 0x80000))] if accepted & MAP_UNMAP else []),
    ]


def use(iova: int, outcome: Outcome | None = None, endpoint: int = NIC) -> Access:
    return Access(endpoint, None, iova, AccessKind.READ, outcome)


GONE: list[Event] = [
    asked(map_(1, 0x8000, 0x8FFF, 0x90000)),
    use(0x8010, Translation(0x90000, 0xFFF)),
    asked(unmap(1, 0x8000, 0x8FFF)),
    use(0x8010, Fault(2)),
]
MISTAKES: dict[str, tuple[str, list[Event]]] = {
    "too short": ("virtio-request-malformed", [Request(map_(1, 0, 0xFFF, 0)[:20], 4, b"")]),
    "no tail": ("virtio-request-malformed", [Request(detach(1, NIC), 3, b"")]),
    "unknown type": ("virtio-request-malformed", [Request(b"\x09\0\0\0", 4, b"")]),
    "no room for properties": (
        "virtio-request-malformed",
        [Request(probe(NIC), PROBE_SIZE, tail(INVAL))],
    ),
    "head": ("virtio-reserved", [asked(b"\x02\0\1\0" + detach(1, NIC)[4:])]),
    "attach": ("virtio-reserved", [asked(attach(2, DISK, reserved=1), INVAL)]),
    "detach": ("virtio-reserved", [asked(detach(1, NIC, reserved=1 << 63))]),
    "unmap": ("virtio-reserved", [asked(unmap(1, 0x4000, 0x5FFF, reserved=1))]),
    "probe": (
        "virtio-reserved",
        [Request(probe(NIC, reserved=1), PROBE_SIZE + 4, tail(OK, regions(MSI)))],
    ),
    "unknown flag of attach": ("virtio-flags", [asked(attach(2, DISK, flags=2), INVAL)]),
    "unknown flag of map": (
        "virtio-flags",
        [asked(map_(1, 0x8000, 0x8FFF, 0, flags=9), INVAL)],
    ),
    "no such endpoint": ("virtio-endpoint", [asked(attach(2, 0x30), NOENT)]),
    "no such endpoint to probe": (
        "virtio-endpoint",
        [Request(probe(0x30), PROBE_SIZE + 4, tail(NOENT, bytes(PROBE_SIZE)))],
    ),
    "domain too large": ("virtio-domain-range", [asked(attach(100, DISK), RANGE)]),
    "domain too small": ("virtio-domain-range", [asked(attach(0, DISK))]),
    "bypass of a domain": ("virtio-attach-bypass", [asked(attach(1, DISK, flags=1), INVAL)]),
    "never attached": ("virtio-not-attached", [asked(detach(1, DISK), INVAL)]),
    "other domain": ("virtio-not-attached", [asked(detach(2, NIC), INVAL)]),
    "map before attach": (
        "virtio-domain-missing",
        [asked(map_(7, 0x8000, 0x8FFF, 0x1000), NOENT)],
    ),
    "unmap before attach": ("virtio-domain-missing", [asked(unmap(7, 0x8000, 0x8FFF), NOENT)]),
    "map behind the end": (
        "virtio-domain-ended",
        [asked(detach(1, NIC)), asked(map_(1, 0x8000, 0x8FFF, 0x1000), NOENT)],
    ),
    "unmap behind a move": (
        "virtio-domain-ended",
        [asked(attach(3, NIC)), asked(unmap(1, 0x4000, 0x5FFF), NOENT)],
    ),
    "map in a bypass domain": (
        "virtio-domain-bypass",
        [asked(attach(2, DISK, flags=1)), asked(map_(2, 0x8000, 0x8FFF, 0x1000), INVAL)],
    ),
    "end before start": ("virtio-range", [asked(map_(1, 0x9000, 0x7FFF, 0), INVAL)]),
    "end before start of unmap": ("virtio-range", [asked(unmap(1, 0x9000, 0x7FFF))]),
    "overlap": ("virtio-map-overlap", [asked(map_(1, 0x5000, 0x6FFF, 0x1000), INVAL)]),
    "start is not aligned": (
        "virtio-map-alignment",
        [asked(map_(1, 0x8800, 0x8FFF, 0x1000), RANGE)],
    ),
    "end is not aligned": ("virtio-map-alignment", [asked(map_(1, 0x8000, 0x87FF, 0), RANGE)]),
    "target is not aligned": (
        "virtio-map-alignment",
        [asked(map_(1, 0x8000, 0x8FFF, 0x10), RANGE)],
    ),
    "below the input range": ("virtio-map-input-range", [asked(map_(1, 0, 0xFFF, 0), RANGE)]),
    "above the input range": (
        "virtio-map-input-range",
        [asked(map_(1, 0xFFFF_F000, 0x1_0000_0FFF, 0), RANGE)],
    ),
    "reserved region": (
        "virtio-map-reserved-region",
        [asked(map_(1, 0xFEE0_0000, 0xFEE0_0FFF, 0), INVAL)],
    ),
    "split": ("virtio-unmap-split", [asked(unmap(1, 0x4000, 0x4FFF), RANGE)]),
    "in use": ("virtio-unmapped-in-use", GONE),
    "in use, and the unit still answers": (
        "virtio-unmapped-in-use",
        [*GONE[:3], use(0x8010, Translation(0x90000, 0xFFF))],
    ),
    "bypass is a flag": ("virtio-config-write", [RegWrite(0x24, 1, 2)]),
    "read-only field": ("virtio-config-write", [RegWrite(0x20, 4, 64)]),
    "not offered": ("virtio-feature-not-accepted", [Features(FEATURES, FEATURES | 1 << 3)]),
}
UNACCEPTED: dict[str, tuple[str, int, Event]] = {
    "map": ("virtio-feature-not-accepted", MAP_UNMAP, asked(map_(1, 0x8000, 0x8FFF, 0), UNSUPP)),
    "unmap": ("virtio-feature-not-accepted", MAP_UNMAP, asked(unmap(1, 0x8000, 0x8FFF), UNSUPP)),
    "probe": (
        "virtio-feature-not-accepted",
        PROBE_FEATURE,
        Request(probe(NIC), PROBE_SIZE + 4, tail(UNSUPP, bytes(PROBE_SIZE))),
    ),
    "bypass": ("virtio-flags", BYPASS_CONFIG, asked(attach(2, DISK, flags=1), INVAL)),
    "mmio": ("virtio-flags", MMIO_FEATURE, asked(map_(1, 0x8000, 0x8FFF, 0, flags=7), INVAL)),
    "config": ("virtio-config-write", BYPASS_CONFIG, RegWrite(0x24, 1, 1)),
}
"""Rule, the feature that was not accepted, and what uses it."""
FINE: dict[str, list[Event]] = {
    "nothing": [],
    "whole mappings and holes": [
        asked(map_(1, 0x9000, 0x9FFF, 0)),
        asked(unmap(1, 0x1000, 0xFFFF)),
        asked(map_(1, 0x4000, 0x4FFF, 0)),
    ],
    "used again elsewhere": [*GONE[:3], asked(map_(1, 0x8000, 0x8FFF, 0)), use(0x8010)],
    "never used before": [
        asked(map_(1, 0x8000, 0x8FFF, 0)),
        asked(unmap(1, 0x8000, 0x8FFF)),
        use(0x8010, Fault(2)),
    ],
    "a stray access": [use(0x3000, Fault(2))],
    "a shared domain": [
        asked(attach(1, DISK)),
        asked(detach(1, NIC)),
        asked(map_(1, 0x8000, 0x8FFF, 0)),
    ],
    "a domain that begins again": [
        asked(detach(1, NIC)),
        asked(attach(1, NIC)),
        asked(map_(1, 0x4000, 0x5FFF, 0)),
    ],
    "a device reset": [DeviceReset(), asked(attach(1, NIC)), asked(map_(1, 0x4000, 0x4FFF, 0))],
    "a reset that ends no domain in QEMU 10.0": [
        asked(attach(1, DISK)),
        DeviceReset(),
        asked(attach(1, NIC)),
        asked(map_(1, 0x4000, 0x5FFF, 0x80000), INVAL),
    ],
    "bypass": [RegWrite(0x24, 1, 1), RegWrite(0x24, 1, 0)],
    "after a gap": [Gap("lost"), asked(map_(9, 0x8800, 0x3, 0), INVAL), RegWrite(0x24, 1, 7)],
    "an answer that was not captured": [Request(map_(1, 0x8000, 0x8FFF, 0), 4, None)],
}
DIALECTS = ("spec", "qemu-10.0")


def found(events: list[Event], dialect: str) -> list[tuple[str, int]]:
    unit = VirtioConfig(features=FEATURES, config=config(), dialect=dialect_named(dialect))
    return broken(unit, events)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found(name: str, dialect: str) -> None:
    rule, events = MISTAKES[name]
    story = opening() + events
    assert found(story, dialect) == [(rule, len(story) - 1)]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", UNACCEPTED)
def test_what_was_not_accepted_is_not_used(name: str, dialect: str) -> None:
    rule, feature, event = UNACCEPTED[name]
    story = opening(FEATURES & ~feature)
    assert found([*story, event], dialect) == [(rule, len(story))]


def test_a_mapping_of_one_byte() -> None:
    # The granule may be one byte, but virt_end must be greater than virt_start.
    space = config(page_size_mask=(1 << 64) - 1)
    story = [*opening(), ConfigSpace(space), asked(map_(1, 0x8000, 0x8000, 0))]
    assert found(story, "spec") == [("virtio-range", len(story) - 1)]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", FINE)
def test_nothing_is_found(name: str, dialect: str) -> None:
    assert found(opening() + FINE[name], dialect) == []


def test_every_rule_has_a_mistake() -> None:
    rules = {rule for rule, *_ in [*MISTAKES.values(), *UNACCEPTED.values()]}
    assert rules == set(VIRTIO_RULES)
