"""The core's replay: whole blocks at a time, without entering Python for each event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decoders.errors import DecodeError
from harness.findings import BYTES_KEPT, FINDINGS_KEPT, Finding
from harness.model.config import UnitConfig
from harness.native.loading import core, native_config, within_budget
from harness.native.plain import finding
from harness.targets.base import Counters
from harness.trace import Block

if TYPE_CHECKING:
    from harness.native import _core


class BlockReplay:
    """Drive one of the core's replays."""

    name = "native"

    def __init__(self, replay: _core.Replay | _core.VirtioReplay):
        self._replay = replay
        self._findings: list[Finding] = []

    def feed(self, block: Block) -> None:
        """Apply the events of one block; raise DecodeError at damage, after those before it."""
        before = self._replay.counters()["events"]
        damage = within_budget(lambda: self._replay.feed(block.raw))
        if damage is not None:
            number, offset, problem = damage
            place = f"{block.path}.event[{block.first_event + number - before}]"
            raise DecodeError(place, f"{problem}, {offset:#x} into the block", block.offset)

    def finish(self) -> None:
        """Report what the unit did and the recording lacks."""
        self._replay.finish()

    def counters(self) -> Counters:
        """Return the counts so far."""
        return Counters(**self._replay.counters())

    def findings(self) -> list[Finding]:
        """Return the findings so far."""
        self._findings += map(finding, self._replay.findings(len(self._findings)))
        return self._findings


class NativeReplay(BlockReplay):
    """Drive the core's VT-d unit with a trace."""

    def __init__(self, config: UnitConfig):
        super().__init__(core().Replay(native_config(config), FINDINGS_KEPT, BYTES_KEPT))
