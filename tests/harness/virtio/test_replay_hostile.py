"""What a hostile trace makes a replay keep and count."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from decoders.events import Event, Request
from harness.findings import BYTES_KEPT
from harness.model.virtio.config import VirtioConfig
from harness.native.virtio import NativeVirtioReplay
from harness.targets.virtio_model import VirtioModelReplay
from harness.trace import Block
from harness.trace.checks import ANSWER_LIMIT
from harness.trace.codec import Encoder
from tests.harness.virtio.bench import NIC, config
from tests.writers.virtio_iommu import TAIL, probe, tail

NO_STATUS = 0x63
Replay = VirtioModelReplay | NativeVirtioReplay


@pytest.fixture
def replay(target: str) -> Callable[[VirtioConfig], Replay]:
    """Build a replay from its configuration."""
    return VirtioModelReplay if target == "model" else NativeVirtioReplay


def feed(replay: Replay, events: Iterable[Event]) -> None:
    """Feed events one block each."""
    encoder = Encoder()
    for number, event in enumerate(events):
        replay.feed(Block(number, 1, encoder.encode(event)))


def test_long_answers_are_kept_up_to_a_limit(replay: Callable[[VirtioConfig], Replay]) -> None:
    fed = replay(config(probe_size=ANSWER_LIMIT - TAIL))
    feed(fed, [Request(probe(NIC), ANSWER_LIMIT, tail(NO_STATUS))] * 300)
    assert fed.counters().divergences == 300
    kept = fed.findings()
    # It may be exceeded by one finding: that of the last answer that had room.
    assert sum(finding.size for finding in kept[:-1]) < BYTES_KEPT
    assert sum(finding.size for finding in kept) >= BYTES_KEPT


def test_what_cannot_be_compared_does_not_agree(
    replay: Callable[[VirtioConfig], Replay],
) -> None:
    fed = replay(config(probe_size=0xFFFF_FFFB))
    whole, short = 0xFFFF_FFFF, 8
    feed(fed, [Request(probe(NIC), room, tail(NO_STATUS)) for room in (whole, short)])
    counters = fed.counters()
    assert (counters.unjudged, counters.agreed, counters.divergences) == (1, 0, 1)
    assert [finding.event for finding in fed.findings()] == [1]
