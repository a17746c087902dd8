"""Fuzz a virtio-iommu: streams of requests, accesses, features and resets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from decoders.bytewise import packed
from decoders.events import (
    Access,
    AccessKind,
    ConfigSpace,
    DeviceReset,
    Endpoint,
    Event,
    Fault,
    FaultReport,
    Features,
    RegWrite,
    Request,
    Reset,
    Translation,
)
from decoders.virtio_iommu.config import BYPASS_OFFSET
from decoders.virtio_iommu.constants import RequestType
from decoders.virtio_iommu.structures import Attach, Config, Detach, Map, Probe, Unmap
from fuzzers.event_mutations import EventMutator
from fuzzers.real import VirtioJudge
from fuzzers.scaffold import encoded, sound
from fuzzers.target import BARE, MODEL, NONE, QEMU, Runner
from fuzzers.targets.stateful import found
from harness.differential.pair import BUDGETS, DisagreementError, pair_for
from harness.model.virtio.config import (
    DEFAULT_CONFIG,
    DEFAULT_FEATURES,
    PROBE_SIZE,
    VirtioConfig,
)
from harness.native.loading import core
from harness.native.virtio import native_virtio_config
from harness.replay import unit_config
from harness.trace import VIRTIO, Header, UnitInfo

if TYPE_CHECKING:
    from harness.native import _core

_DIALECTS: Final = ("spec", "qemu-9.2", "qemu-10.0")
_MAPPING_BUDGET: Final = 256
_STEPS: Final = 24
_IOVA: Final = 0x8000_0000
_NARROW: Final = packed(Config).pack(
    (1 << 64) - 0x1000, 0, 0xFFFF_FFFF, 0, 2, PROBE_SIZE, 1, bytes(3)
)  # fmt: skip
"""Config space with limits that requests meet."""

_UNITS: Final = (
    *((dialect, DEFAULT_CONFIG) for dialect in _DIALECTS),
    *(("spec", _NARROW), ("qemu-10.0", _NARROW)),
)
_ATTACH, _DETACH, _MAP, _UNMAP, _PROBE = map(packed, (Attach, Detach, Map, Unmap, Probe))


def _attach(domain: int, endpoint: int, flags: int = 0) -> Request:
    data = _ATTACH.pack(RequestType.ATTACH, bytes(3), domain, endpoint, flags, bytes(4))
    return Request(data, 4, None)


def _map(domain: int, start: int, end: int, target: int, flags: int = 3) -> Request:
    data = _MAP.pack(RequestType.MAP, bytes(3), domain, start, end, target, flags)
    return Request(data, 4, None)


def _unmap(domain: int, start: int, end: int) -> Request:
    return Request(_UNMAP.pack(RequestType.UNMAP, bytes(3), domain, start, end, bytes(4)), 4, None)


def _access(endpoint: int, iova: int, kind: AccessKind = AccessKind.READ) -> Access:
    return Access(endpoint, None, iova, kind, None)


_BEFORE: Final[tuple[Event, ...]] = (
    Endpoint(0x10, ((1, 0xFEE0_0000, 0xFEEF_FFFF),)),
    Endpoint(0x18, ()),
    RegWrite(BYPASS_OFFSET, 1, 0),
    _attach(1, 0x10),
)
_AFTER: Final[tuple[Event, ...]] = (
    _access(0x10, _IOVA),
    _access(0x18, _IOVA, AccessKind.WRITE),
)
_WORDS: Final[tuple[Event, ...]] = (
    _attach(1, 0x18),
    _attach(2, 0x10),
    _attach(3, 0x18, 1),
    _map(1, _IOVA, _IOVA + 0xFFF, 0x4000),
    _map(1, _IOVA + 0x1000, _IOVA + 0x2FFF, 0x8000, 1),
    _map(1, 0, (1 << 64) - 1, 0),
    _unmap(1, _IOVA, _IOVA + 0xFFF),
    _unmap(1, 0, (1 << 64) - 1),
    Request(_DETACH.pack(RequestType.DETACH, bytes(3), 1, 0x10, bytes(8)), 4, None),
    Request(_PROBE.pack(RequestType.PROBE, bytes(3), 0x10, bytes(64)), 516, None),
    Request(_attach(1, 0x18).data, 4, bytes(4)),
    Request(_attach(1, 0x18).data, 4, b"\6\0\0\0"),
    Request(b"\x80\0\0\0", 4, None),
    *_AFTER,
    _access(0x10, _IOVA + 0x1000),
    _access(0x10, _IOVA + 0x2FFF),
    Access(0x10, None, _IOVA, AccessKind.READ, Translation(0x4000, 0xFFF)),
    Access(0x18, None, _IOVA, AccessKind.WRITE, Fault(1)),
    FaultReport(1, 0x102, 0x18, _IOVA),
    Features(DEFAULT_FEATURES, DEFAULT_FEATURES),
    ConfigSpace(DEFAULT_CONFIG),
    RegWrite(BYPASS_OFFSET, 1, 1),
    Endpoint(0x20, ()),
    DeviceReset(),
    Reset(),
)


def header(dialect: str, config: bytes) -> Header:
    """Return the header of a machine with a virtio-iommu."""
    unit = UnitInfo(VIRTIO, base=0, capability=DEFAULT_FEATURES, config=config)
    return Header(dialect=dialect, units=(unit,))


class Virtio:
    """Lead virtio-iommus through streams of events."""

    name = "virtio"
    what = "requests of a virtio-iommu"
    against: Sequence[str] = (MODEL, NONE, QEMU, BARE)
    mutated: Sequence[str] = (MODEL, NONE, QEMU, BARE)
    traced: Sequence[str] = ()
    max_size = 2048

    def __init__(self) -> None:
        self._headers = tuple(header(*unit) for unit in _UNITS)
        self.configs = tuple(
            cast(VirtioConfig, unit_config(one, mapping_budget=_MAPPING_BUDGET))
            for one in self._headers
        )
        mutator = EventMutator(_WORDS, len(_UNITS), ((BYPASS_OFFSET, (1, 2, 4)),))
        self.mutate: Callable[[bytes, int, int], bytes] = mutator.mutate
        self.cross: Callable[[bytes, bytes, int, int], bytes] = mutator.cross

    def seeds(self) -> Iterable[bytes]:
        """Return streams: nothing, everything, and parts."""
        for number in range(len(_UNITS)):
            head = bytes((number,))
            yield head
            yield head + encoded(_WORDS)
            # What features, config space and resets change shows behind them.
            yield head + encoded(_WORDS[:-2] + _WORDS)
            for at in range(0, len(_WORDS), 4):
                yield head + encoded(_WORDS[at : at + 8])

    def dictionary(self) -> Iterable[bytes]:
        """Return events."""
        return (encoded((word,)) for word in _WORDS)

    def runner(self, against: str) -> Runner:
        """Return what runs a stream; for a real unit the bytes choose from the grammar."""
        if against in (QEMU, BARE):
            return VirtioJudge(_STEPS, deviations=against == QEMU).run
        if against == NONE:
            run: Runner = self._native().run
            return run
        return self._compare

    def events(self, data: bytes) -> tuple[Header, list[Event]]:
        """Return what an input makes a unit go through."""
        number = data[0] % len(_UNITS) if data else 0
        return self._headers[number], [*_BEFORE, *sound(data[1:]), *_AFTER]

    def around(self) -> tuple[tuple[Event, ...], tuple[Event, ...]]:
        """Return the events before and after an input."""
        return _BEFORE, _AFTER

    def _native(self) -> _core.VirtioScaffoldRuns:
        before, after = encoded(_BEFORE), encoded(_AFTER)
        choices = [
            core().VirtioScaffold(config=native_virtio_config(one), before=before, after=after)
            for one in self.configs
        ]
        runs: Any = core().VirtioScaffoldRuns(choices)
        return cast("_core.VirtioScaffoldRuns", runs)

    def _compare(self, data: bytes) -> None:
        _, events = self.events(data)
        pair = pair_for(self.configs[data[0] % len(_UNITS) if data else 0])
        event: Event | None = None
        try:
            for event in events:
                pair.apply(event)
            pair.compare()
        except DisagreementError as error:
            raise found(error.disagreement, event) from None
        except BUDGETS:
            return


def create() -> Virtio:
    """Build the target."""
    return Virtio()
