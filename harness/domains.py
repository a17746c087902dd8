"""Follow the domains of a virtio-iommu through a trace, as the recorded answers tell."""

from __future__ import annotations

from decoders.events import DeviceReset, Event, Features, Request, Reset
from decoders.virtio_iommu.constants import RequestType, Status
from decoders.virtio_iommu.requests import status_of
from harness.decoded_virtio import request_fields
from harness.model.virtio.config import DEFAULT_MAPPING_BUDGET, MappingBudgetError, VirtioConfig
from harness.model.virtio.dialect import dialect_named
from harness.model.virtio.requests import Handler
from harness.model.virtio.state import State
from harness.trace import Header


class Domains:
    """Count domains and mappings, and know who is attached; a missing answer is taken for OK.

    complete turns False where a trace makes more of them than the budget: what comes after that is
    not followed.
    """

    def __init__(self, header: Header, budget: int = DEFAULT_MAPPING_BUDGET) -> None:
        config = VirtioConfig(dialect=dialect_named(header.dialect), mapping_budget=budget)
        self._state = State(config)
        self._handler = Handler(self._state)
        self.complete = True
        self.mappings = self.most_mappings = self.most_domains = 0

    def domain_of(self, endpoint: int) -> int | None:
        """Return the domain that an endpoint is attached to."""
        return self._state.attached.get(endpoint)

    def apply(self, event: Event) -> None:
        """Take over what an event changes."""
        if not self.complete:
            return
        if isinstance(event, Request):
            try:
                self._request(event)
            except MappingBudgetError:
                self.complete = False
            self.most_mappings = max(self.most_mappings, self.mappings)
            self.most_domains = max(self.most_domains, len(self._state.domains))
        elif isinstance(event, Reset):
            self._state.forget()
            self.mappings = 0
        elif isinstance(event, DeviceReset):
            self._state.device_reset()
            self.mappings = sum(map(len, self._state.domains.values()))
        elif isinstance(event, Features):
            self._state.offered, self._state.accepted = event.offered, event.accepted

    def _request(self, event: Request) -> None:
        fields = request_fields(event.data)
        if fields is None or fields["type"] == RequestType.PROBE:
            return
        state, handler = self._state, self._handler
        concerned = {fields["domain"], state.attached.get(fields.get("endpoint", -1), -1)}
        before = self._count(concerned)
        status = Status.OK if event.answer is None else status_of(event.answer)
        if status == Status.OK:
            handler.succeed(event.data, event.answer or b"")
        elif fields["type"] == RequestType.ATTACH:
            handler.fail(event.data, handler.conditions(event.data, event.room), status)
        self.mappings += self._count(concerned) - before

    def _count(self, numbers: set[int]) -> int:
        domains = self._state.domains
        return sum(len(domains[number]) for number in numbers if number in domains)
