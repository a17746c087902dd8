"""The protocol of a target, and the registry of those that exist."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from importlib import import_module
from types import ModuleType
from typing import Protocol, cast

from harness.errors import HarnessError
from harness.findings import Finding
from harness.model.config import UnitConfig
from harness.model.virtio.config import VirtioConfig
from harness.trace import Block


@dataclass(slots=True)
class Counters:
    """Count what a replay compared.

    translations and faults are accesses with a recorded outcome of that kind; agreed and
    divergences add up the comparisons and the findings (of any kind). requests are those of a
    virtio-iommu; its fault reports count as fault_records. interrupt_requests are those with a
    recorded outcome. device_messages are what goes between a unit's page request queue and
    devices: PageRequestRecord, PageResponse, DeviceTlbMessage. unjudged counts what could not be
    compared, because the recording lost something before it or no trace could hold the answer.
    """

    events: int = 0
    translations: int = 0
    faults: int = 0
    requests: int = 0
    interrupt_requests: int = 0
    descriptors: int = 0
    fault_records: int = 0
    status_writes: int = 0
    interrupts: int = 0
    page_requests: int = 0
    device_messages: int = 0
    register_reads: int = 0
    unjudged: int = 0
    agreed: int = 0
    divergences: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the counters by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class ReplayTarget(Protocol):
    """Apply the events of a trace and compare what was recorded."""

    name: str

    def feed(self, block: Block) -> None:
        """Apply the events of one block."""

    def finish(self) -> None:
        """Say that the trace has ended: what is still expected is missing."""

    def counters(self) -> Counters:
        """Return the counts so far."""
        ...

    def findings(self) -> list[Finding]:
        """Return the findings so far, the first of them (`harness.findings.Kept`)."""
        ...


@dataclass(frozen=True, slots=True)
class Machine:
    """Say which machine a real unit is to be part of: its endpoints, what runs it, and the last
    address that is used of its RAM.
    """

    endpoints: Collection[int]
    program: str
    last_address: int = 0


class RealTarget(ReplayTarget, Protocol):
    """Drive a unit that has a version of its own; missing are endpoints that it does not have."""

    @property
    def missing(self) -> Collection[int]:
        """Return the endpoints that the machine could not be given."""
        ...

    @property
    def version(self) -> tuple[int, ...]:
        """Return the version of what runs the unit."""
        ...


AnyConfig = UnitConfig | VirtioConfig
"""What a unit of either kind is built from."""

_TARGETS = {
    "model": "harness.targets.model",
    "native": "harness.targets.native",
    "qemu": "harness.targets.qemu",
}

REAL_TARGETS = frozenset({"qemu"})
"""Targets that do not show all of what they do."""


def target_names() -> tuple[str, ...]:
    """Return the names `--target` takes."""
    return tuple(_TARGETS)


def target_named(name: str, config: AnyConfig) -> ReplayTarget:
    """Build a model; raise HarnessError when there is none of that name or it is not built."""
    return cast(Callable[[AnyConfig], ReplayTarget], _module(name).create)(config)


def real_target_named(name: str, config: AnyConfig, machine: Machine) -> RealTarget:
    """Build a real unit; raise HarnessError when there is none of that name, or no such machine."""
    create = cast(Callable[[AnyConfig, Machine], RealTarget], _module(name).create)
    return create(config, machine)


def _module(name: str) -> ModuleType:
    if name not in _TARGETS:
        raise HarnessError(f"no target {name!r}; there are {', '.join(_TARGETS)}")
    return import_module(_TARGETS[name])
