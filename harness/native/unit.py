"""The core's unit with the methods of harness.model.unit.VtdUnit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decoders.events import (
    NO_ATTRIBUTES,
    AccessKind,
    Attribute,
    Delivery,
    Observation,
    Outcome,
    PageRequest,
)
from harness.findings import Finding
from harness.model.config import UnitConfig
from harness.model.unit import InterruptVerdict, Verdict
from harness.native.loading import core, native_config, within_budget
from harness.native.plain import (
    candidate,
    finding,
    observation,
    plain_observation,
    plain_outcome,
    remapping,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from harness.native import _core


class NativeUnit:
    """Answer as harness.model.unit.VtdUnit does; its methods mean the same."""

    name = "native"

    def __init__(self, config: UnitConfig):
        self.config = config
        self._unit: _core.Unit = core().Unit(native_config(config))

    @property
    def core(self) -> _core.Unit:
        """The core's own object, which speaks in plain values."""
        return self._unit

    @property
    def event(self) -> int:
        """The number the next findings are reported under."""
        return self._unit.event

    @event.setter
    def event(self, number: int) -> None:
        self._unit.event = number

    def emitted(self) -> list[Observation]:
        """Return and forget what the unit was seen doing since the last call."""
        return [observation(plain) for plain in self._unit.emitted()]

    def findings(self) -> list[Finding]:
        """Return and forget the findings since the last call."""
        return [finding(plain) for plain in self._unit.findings()]

    def reset(self) -> None:
        """Return to power-on state; guest memory survives."""
        self._unit.reset()

    def load(self, address: int, length: int) -> bytes:
        """Return guest memory as the unit sees it."""
        return self._unit.load(address, length)

    def store(self, address: int, size: int, value: int) -> None:
        """Store size little-endian bytes, as software does."""
        within_budget(lambda: self._unit.store(address, size, value))

    def snapshot(self, address: int, data: bytes) -> None:
        """Learn the content of a page."""
        within_budget(lambda: self._unit.snapshot(address, data))

    def last_writer(self, address: int) -> int | None:
        """Return the number of the event that last wrote the quadword at address, if any did."""
        return self._unit.last_writer(address)

    def read_register(self, offset: int, size: int) -> int:
        """Return what software reads from the register page."""
        return self._unit.read_register(offset, size)

    def adopt_read(self, offset: int, size: int, value: int) -> None:
        """Take over what a recorded register read shows of a choice that the unit was free in."""
        self._unit.adopt_read(offset, size, value)

    def write_register(self, offset: int, size: int, value: int) -> None:
        """Apply a software write to the register page and what it sets off."""
        within_budget(lambda: self._unit.write_register(offset, size, value))

    def access(
        self,
        sid: int,
        pasid: int | None,
        iova: int,
        kind: AccessKind,
        recorded: Outcome | None = None,
        attributes: Attribute = NO_ATTRIBUTES,
    ) -> Verdict:
        """Answer a DMA request; with a recorded outcome, judge it and take it over."""
        plain = plain_outcome(recorded)
        found = within_budget(
            lambda: self._unit.access(sid, pasid, iova, int(kind), plain, int(attributes))
        )
        permitted = tuple(candidate(one) for one in found)
        return Verdict(permitted, permitted[0].outcome if recorded is None else recorded)

    def interrupt(
        self, sid: int | None, address: int, data: int, recorded: Delivery | None = None
    ) -> InterruptVerdict:
        """Answer an interrupt request; with a recorded outcome, judge it and take it over."""
        plain = plain_outcome(recorded)
        found = within_budget(lambda: self._unit.interrupt(sid, address, data, plain))
        permitted = tuple(remapping(one) for one in found)
        return InterruptVerdict(permitted, permitted[0].outcome if recorded is None else recorded)

    def page_request(self, request: PageRequest) -> None:
        """Queue what a device asks for, or refuse it."""
        asked = (request.sid, request.pasid, request.address, int(request.flags), request.group)
        within_budget(lambda: self._unit.page_request(*asked))

    def translate(
        self,
        sids: Buffer,
        pasids: Buffer,
        iovas: Buffer,
        kinds: Buffer,
        addresses: Buffer,
        statuses: Buffer,
        attributes: Buffer | None = None,
        *,
        cold: bool,
    ) -> None:
        """Translate many requests at once; _core.pyi says which buffers, and what cold means."""
        self._unit.translate(sids, pasids, iovas, kinds, addresses, statuses, attributes, cold=cold)

    def use_wide_registers(self, wide: bool) -> None:
        """Allow translate to use what only some processors have, or forbid it."""
        self._unit.use_wide_registers(wide)

    def adopt(self, seen: Observation) -> None:
        """Take over something the recorded unit did and this one did not."""
        within_budget(lambda: self._unit.adopt(plain_observation(seen)))
