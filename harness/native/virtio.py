"""The core's virtio-iommu with the methods of the model's, and its replay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from decoders.events import AccessKind, FaultReport, Outcome
from harness.findings import BYTES_KEPT, FINDINGS_KEPT, Finding
from harness.model.virtio.config import VirtioConfig
from harness.model.virtio.rules import DOUBTFUL, RULES, Condition
from harness.model.virtio.state import Region
from harness.native.loading import core, switches, within_budget
from harness.native.plain import (
    finding,
    observation,
    outcome,
    plain_observation,
    plain_outcome,
)
from harness.native.replay import BlockReplay

if TYPE_CHECKING:
    from harness.native import _core


def native_virtio_config(config: VirtioConfig) -> _core.VirtioConfig:
    """Return a configuration in the core's form; statuses and the dialect go with it."""
    return cast("_core.VirtioConfig", core().VirtioConfig(**plain_virtio_config(config)))


def plain_virtio_config(config: VirtioConfig) -> dict[str, Any]:
    """Return what the core's form of a configuration is built from, by name."""
    dialect = config.dialect
    statuses = (dialect.statuses.get(one, RULES[one].status) for one in Condition)
    others = (() if one in dialect.statuses else RULES[one].others for one in Condition)
    return {
        "features": config.features,
        "config": config.config,
        "known": config.known,
        "mapping_budget": config.mapping_budget,
        "statuses": bytes(statuses),
        "others": [_bits(some) for some in others],
        "binding": _bits(one for one in Condition if RULES[one].binding),
        "doubtful": _bits(DOUBTFUL),
        "ignored": _bits(dialect.ignored),
        "trouble": bytes(sorted(dialect.trouble)),
        "unattached_reasons": bytes(dialect.unattached_reasons),
        "fault_flags_ignored": int(dialect.fault_flags_ignored),
        "endpoint_bits": dialect.endpoint_bits,
        "switches": {name: getattr(dialect, name) for name in switches(type(dialect))},
    }


def _bits(numbers: Iterable[int]) -> int:
    return sum(1 << one for one in numbers)


class NativeVirtioUnit:
    """Answer as harness.model.virtio.unit.VirtioUnit does; its methods mean the same."""

    name = "native"

    def __init__(self, config: VirtioConfig):
        self.config = config
        self._unit: _core.VirtioUnit = core().VirtioUnit(native_virtio_config(config))

    @property
    def event(self) -> int:
        """The number the next findings are reported under."""
        return self._unit.event

    @event.setter
    def event(self, number: int) -> None:
        self._unit.event = number

    def emitted(self) -> list[FaultReport]:
        """Return and forget the fault reports since the last call."""
        return [cast(FaultReport, observation(plain)) for plain in self._unit.emitted()]

    def findings(self) -> list[Finding]:
        """Return and forget the findings since the last call."""
        return [finding(plain) for plain in self._unit.findings()]

    def reset(self) -> None:
        """Return to power-on state; endpoints stay declared."""
        self._unit.reset()

    def device_reset(self) -> None:
        """Reset the device as its driver does: config.bypass survives."""
        self._unit.device_reset()

    def features(self, offered: int, accepted: int) -> None:
        """Learn what was offered, and what the driver has accepted."""
        self._unit.features(offered, accepted)

    def endpoint(self, endpoint: int, regions: tuple[Region, ...]) -> None:
        """Learn that an endpoint is there, and its reserved regions."""
        within_budget(lambda: self._unit.endpoint(endpoint, regions))

    def config_space(self, data: bytes) -> None:
        """Compare the config space as the driver sees it, and take it over."""
        self._unit.config_space(data)

    def read_register(self, offset: int, size: int) -> int:
        """Return what the driver reads from the config space; zero beyond its end."""
        return self._unit.read_register(offset, size)

    def write_register(self, offset: int, size: int, value: int) -> None:
        """Write the config space: only bypass can be, and only to 0 or 1."""
        self._unit.write_register(offset, size, value)

    def request(self, data: bytes, room: int, recorded: bytes | None = None) -> tuple[bytes, ...]:
        """Answer a request with what is permitted; with a recorded answer, judge it."""
        return within_budget(lambda: self._unit.request(data, room, recorded))

    def access(
        self, endpoint: int, iova: int, kind: AccessKind, recorded: Outcome | None = None
    ) -> tuple[Outcome, ...]:
        """Answer a DMA access with what is permitted; with a recorded outcome, judge it."""
        found = self._unit.access(endpoint, iova, int(kind), plain_outcome(recorded))
        return tuple(outcome(plain) for plain in found)

    def same_report(self, expected: FaultReport, seen: FaultReport) -> bool:
        """Say whether a fault report may be the expected one."""
        return self._unit.same_report(plain_observation(expected), plain_observation(seen))

    def domains(self) -> dict[int, tuple[bool, tuple[int, ...], tuple[tuple[int, ...], ...]]]:
        """Return each domain: bypass, endpoints, and (start, end, physical, flags) of mappings."""
        return self._unit.domains()


class NativeVirtioReplay(BlockReplay):
    """Drive the core's virtio-iommu with a trace."""

    def __init__(self, config: VirtioConfig):
        made = native_virtio_config(config)
        super().__init__(core().VirtioReplay(made, FINDINGS_KEPT, BYTES_KEPT))
