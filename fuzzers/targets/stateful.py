"""Fuzz whole sequences: the input takes the place of chance in the grammar of made-up software."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Final, cast

from decoders.events import Access, AccessKind, Attribute, Event, InterruptRequest, RegRead
from fuzzers import machines as m
from fuzzers.choices import ByteRandom
from fuzzers.real import BareVtdJudge, VtdJudge
from fuzzers.scaffold import DESCRIPTOR_BUDGET, PAGE_BUDGET, encoded
from fuzzers.target import BARE, MODEL, NONE, QEMU, Found, Runner
from harness.differential.pair import BUDGETS, Disagreement, DisagreementError, pair_for
from harness.generate.vtd import Generator
from harness.generate.vtd_steps import Device, Scene, Step
from harness.model.config import UnitConfig
from harness.native import NativeReplay
from harness.replay import unit_config
from harness.signature import DISAGREEMENT, of_difference
from harness.trace import Block, Header

_STEPS: Final = 24
_BYTES: Final = 768
_POOL: Final = (0x20_0000, 64)
_KINDS: Final = (AccessKind.READ, AccessKind.WRITE)


class Stateful:
    """Turn bytes into what software does, from the first table to the last request."""

    name = "stateful"
    what = "sequences of a VT-d unit's software"
    against: Sequence[str] = (MODEL, NONE, QEMU, BARE)
    traced: Sequence[str] = ()
    max_size = _BYTES

    def __init__(self) -> None:
        self.header: Final = m.header("qemu-10.0")
        config = unit_config(
            self.header, page_budget=PAGE_BUDGET, descriptor_budget=DESCRIPTOR_BUDGET
        )
        self._config = cast(UnitConfig, config)
        devices = [Device(sid, 64, _KINDS, 4) for sid in (0x10, 0x18, 0x108)]
        self._scene: Final = Scene(
            self._config, devices, *_POOL, senders=tuple(device.sid for device in devices)
        )

    def seeds(self) -> Iterable[bytes]:
        """Return random bytes: each is a life."""
        return tuple(Random(seed).randbytes(_BYTES) for seed in range(8))

    def dictionary(self) -> Iterable[bytes]:
        """Return nothing: bytes are choices here."""
        return ()

    def runner(self, against: str) -> Runner:
        """Return what leads units through a sequence."""
        if against == QEMU:
            return VtdJudge(_STEPS).run
        if against == BARE:
            return BareVtdJudge(_STEPS).run
        if against == NONE:
            return self._replay
        return self._compare

    def events(self, data: bytes) -> tuple[Header, list[Event]]:
        """Return what an input makes a unit go through."""
        steps = Generator(self._scene, ByteRandom(data)).sequence(_STEPS)
        return self.header, [event for step in steps for event in self._done(step)]

    def _done(self, step: Step) -> Iterable[Event]:
        yield from step.stores
        yield from step.writes
        for offset, size in step.reads:
            yield RegRead(offset, size, None)
        choice = step.dma
        if choice is not None:
            sid = self._scene.devices[choice.device].sid
            yield Access(sid, None, choice.iova, choice.kind, None, Attribute(0))
        if step.msi is not None:
            sid = self._scene.senders[step.msi.sender]
            yield InterruptRequest(sid, step.msi.address, step.msi.data, None)

    def _replay(self, data: bytes) -> None:
        _, events = self.events(data)
        replay = NativeReplay(self._config)
        try:
            replay.feed(Block(0, len(events), encoded(events)))
        except BUDGETS:
            return
        replay.finish()

    def _compare(self, data: bytes) -> None:
        _, events = self.events(data)
        pair = pair_for(self._config)
        event: Event | None = None
        try:
            for event in events:
                pair.apply(event)
            pair.compare()
        except DisagreementError as error:
            raise found(error.disagreement, event) from None
        except BUDGETS:
            return


def found(disagreement: Disagreement, event: Event | None) -> Found:
    """Return a finding that says that model and core part."""
    what, ours, theirs = disagreement.what, disagreement.model, disagreement.native
    return Found(of_difference(DISAGREEMENT, event, what, ours, theirs), str(disagreement))


def create() -> Stateful:
    """Build the target."""
    return Stateful()
