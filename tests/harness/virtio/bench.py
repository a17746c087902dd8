"""A virtio-iommu to try requests and accesses on, whichever engine it is built from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from decoders.events import AccessKind, Fault, FaultReport, Outcome, Translation
from harness.findings import Finding
from harness.model.virtio.config import DEFAULT_FEATURES, VirtioConfig
from harness.model.virtio.dialect import dialect_named
from harness.model.virtio.rules import UNWRITTEN
from harness.model.virtio.state import Region
from tests.writers import virtio_iommu as write

NIC, DISK, MOVED = 0x18, 0x19, 0x20
"""Endpoints that are there."""
ABSENT: Final = 0x1A
"""One that is not: others on its bus are."""
UNHEARD: Final = 0x118
"""One of which nobody said anything."""
PROBE_SIZE: Final = 512
WHOLE_PROBE: Final = PROBE_SIZE + write.TAIL
ONE_BYTE: Final = 1
READ, WRITE, EXECUTE = AccessKind.READ, AccessKind.WRITE, AccessKind.EXECUTE

Domains = dict[int, tuple[bool, tuple[int, ...], tuple[tuple[int, ...], ...]]]


class Unit(Protocol):
    """What harness.model.virtio.unit.VirtioUnit can do."""

    @property
    def event(self) -> int: ...
    @event.setter
    def event(self, number: int) -> None: ...
    def emitted(self) -> list[FaultReport]: ...
    def findings(self) -> list[Finding]: ...
    def reset(self) -> None: ...
    def device_reset(self) -> None: ...
    def features(self, offered: int, accepted: int) -> None: ...
    def endpoint(self, endpoint: int, regions: tuple[Region, ...]) -> None: ...
    def config_space(self, data: bytes) -> None: ...
    def read_register(self, offset: int, size: int) -> int: ...
    def write_register(self, offset: int, size: int, value: int) -> None: ...
    def request(
        self, data: bytes, room: int, recorded: bytes | None = None
    ) -> tuple[bytes, ...]: ...
    def access(
        self, endpoint: int, iova: int, kind: AccessKind, recorded: Outcome | None = None
    ) -> tuple[Outcome, ...]: ...
    def same_report(self, expected: FaultReport, seen: FaultReport) -> bool: ...
    def domains(self) -> Domains: ...


Engine = Callable[[VirtioConfig], Unit]


def config(
    dialect: str = "spec",
    features: int = DEFAULT_FEATURES,
    *,
    bypass: int = 0,
    page_size_mask: int = write.TOP - 0xFFF,
    input_range: tuple[int, int] = (0, write.TOP),
    domain_range: tuple[int, int] = (0, 0xFFFF_FFFF),
    probe_size: int = PROBE_SIZE,
    known: bool = True,
    mapping_budget: int = 1 << 20,
) -> VirtioConfig:
    """Return a configuration whose config space has these fields."""
    space = write.config(
        bypass,
        page_size_mask=page_size_mask,
        input_range=input_range,
        domain_range=domain_range,
        probe_size=probe_size,
    )
    return VirtioConfig(features, space, known, dialect_named(dialect), mapping_budget)


class Bench:
    """Try things on a unit; each is an event of its own."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit

    def declare(self, *endpoints: int, regions: tuple[Region, ...] = ()) -> Bench:
        """Say that endpoints are there."""
        for endpoint in endpoints:
            self.unit.endpoint(endpoint, regions)
        return self

    def ask(self, data: bytes, room: int = write.TAIL, answer: bytes | None = None) -> list[int]:
        """Return the statuses that a request may be answered with, the expected one first."""
        self.unit.event += 1
        return [status_of(one) for one in self.unit.request(data, room, answer)]

    def do(self, *requests: bytes) -> Bench:
        """Ask for what has to succeed."""
        for data in requests:
            assert self.ask(data)[0] == write.OK, data.hex()
        return self

    def give(self, data: bytes, status: int, room: int = write.TAIL) -> list[Finding]:
        """Say that a request was answered with a status; return what is wrong with that."""
        answer = b"" if status == UNWRITTEN else write.tail(status).rjust(room, b"\0")
        self.ask(data, room, answer)
        return self.unit.findings()

    def access(
        self,
        endpoint: int,
        iova: int,
        kind: AccessKind = READ,
        recorded: Outcome | None = None,
    ) -> tuple[Outcome, ...]:
        """Return what an access may be answered."""
        self.unit.event += 1
        return self.unit.access(endpoint, iova, kind, recorded)

    def lands(self, endpoint: int, iova: int, kind: AccessKind = READ) -> int | None:
        """Return where an access is expected to lead, None for nowhere."""
        outcome = self.access(endpoint, iova, kind)[0]
        if isinstance(outcome, Fault):
            return None
        return outcome.address | iova & outcome.mask

    def judged(
        self, endpoint: int, iova: int, recorded: Outcome, kind: AccessKind = READ
    ) -> list[Finding]:
        """Say what an access was answered; return what is wrong with that."""
        self.access(endpoint, iova, kind, recorded)
        return self.unit.findings()

    def mapped(self, domain: int) -> list[tuple[int, int]]:
        """Return the ranges that are mapped in a domain."""
        return [(start, end) for start, end, *_ in self.unit.domains()[domain][2]]


def at(address: int, mask: int = 0) -> Translation:
    """Make a translation."""
    return Translation(address, mask)


def status_of(answer: bytes) -> int:
    """Return the status of an answer, UNWRITTEN where there is none."""
    return answer[-write.TAIL] if answer else UNWRITTEN
