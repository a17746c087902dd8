"""What a virtio-iommu remembers: who is behind it, domains, and who is attached to which."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from decoders.virtio_iommu.config import bypasses
from decoders.virtio_iommu.constants import Feature
from harness.model.virtio.config import MappingBudgetError, Parameters, VirtioConfig
from harness.model.virtio.dialect import VirtioDialect
from harness.model.virtio.domain import Domain, Mapping

DROPPED_KEPT = 4096
"""Mappings that are remembered after their end, to recognise who still uses them."""
REGIONS_KEPT = 1024
"""Reserved regions of all endpoints together: each MAP is compared with those of its domain."""
BUS_SHIFT = 8

Region = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Dropped:
    """Remember a mapping that has ended: its domain, and the event that ended it."""

    domain: int
    mapping: Mapping
    event: int


class State:
    """Hold domains and endpoints.

    present are the endpoints that were declared; a bus (upper bits of the id) of which one was
    declared has no others. Of endpoints on other buses nothing is known. regions are those that
    were declared or seen in an answer. seen are the endpoints that an ATTACH named
    (`VirtioDialect.remembers_endpoints`), attached gives the domain of each that has one, and
    left the one it had before.
    """

    def __init__(self, config: VirtioConfig) -> None:
        self.dialect: VirtioDialect = config.dialect
        self.event = 0
        self.offered = config.features
        self.accepted = 0
        self.broken = False
        self.parameters = Parameters.of(config.config)
        self.domains: dict[int, Domain] = {}
        self.attached: dict[int, int] = {}
        self.left: dict[int, int] = {}
        self.seen: set[int] = set()
        self.present: set[int] = set()
        self.regions: dict[int, tuple[Region, ...]] = {}
        self.dropped: deque[Dropped] = deque(maxlen=DROPPED_KEPT)
        self._buses: set[int] = set()
        self._region_count = 0
        self._restricted: set[int] = set()
        self._left_over = config.mapping_budget

    def forget(self) -> None:
        """Take back all that a driver did."""
        for number in sorted(self.domains):
            self._end(number)
        self._left_over += len(self.attached) + len(self.left) + len(self.seen)
        self.attached.clear()
        self.left.clear()
        self.seen.clear()
        self.accepted = 0
        self.broken = False

    def device_reset(self) -> None:
        """Take back what a driver's reset of the device does."""
        self.broken = False
        if self.dialect.reset_keeps_domains:
            self.accepted = 0
        else:
            self.forget()

    def declare(self, endpoint: int, regions: tuple[Region, ...]) -> None:
        """Learn that an endpoint is there, and what is reserved."""
        endpoint = self._who(endpoint)
        self._spend(endpoint not in self.present)
        self.present.add(endpoint)
        self._buses.add(endpoint >> BUS_SHIFT)
        self.learn(endpoint, regions)

    def learn(self, endpoint: int, regions: tuple[Region, ...]) -> None:
        """Learn what is reserved for an endpoint."""
        endpoint = self._who(endpoint)
        before = len(self.regions.get(endpoint, ()))
        if self._region_count - before + len(regions) > REGIONS_KEPT:
            raise MappingBudgetError(f"the trace has more than {REGIONS_KEPT} reserved regions")
        self._spend(endpoint not in self.regions)
        self._region_count += len(regions) - before
        self.regions[endpoint] = regions
        (self._restricted.add if regions else self._restricted.discard)(endpoint)

    def _spend(self, count: int) -> None:
        self._left_over -= count
        if self._left_over < 0:
            raise MappingBudgetError(
                "the trace makes more mappings, domains and endpoints than --mapping-budget allows"
            )

    # --- what is known -----------------------------------------------------------------------

    def endpoint_is_absent(self, endpoint: int) -> bool:
        """Say whether an endpoint is known not to be there."""
        endpoint = self._who(endpoint)
        return endpoint not in self.present and self._is_listed(endpoint)

    def endpoint_is_unknown(self, endpoint: int) -> bool:
        """Say whether nobody said if an endpoint is there."""
        endpoint = self._who(endpoint)
        return endpoint not in self.present and not self._is_listed(endpoint)

    def _who(self, endpoint: int) -> int:
        """Return the id of the endpoint that the unit takes an id for."""
        dialect = self.dialect
        return (
            endpoint & (1 << dialect.endpoint_bits) - 1 if dialect.endpoint_ids_wrap else endpoint
        )

    def _is_listed(self, endpoint: int) -> bool:
        """Say whether all endpoints are known that are on the same bus."""
        return endpoint >> BUS_SHIFT in self._buses or bool(endpoint >> self.dialect.endpoint_bits)

    def regions_of(self, endpoint: int) -> tuple[Region, ...] | None:
        """Return what is reserved for an endpoint; None when that is not known."""
        return self.regions.get(self._who(endpoint))

    def offers(self, feature: Feature) -> bool:
        """Say whether the device offers a feature."""
        return bool(self.offered & feature)

    def in_use(self, feature: Feature) -> bool:
        """Say whether a feature is in use; where nobody saw the negotiation, the offer counts."""
        return bool((self.accepted or self.offered) & feature)

    def known_flags(self, flag: int, feature: Feature, others: int) -> int:
        """Return the flags a request may have; flag is the one that belongs to a feature."""
        known = self.in_use(feature) or not self.dialect.flags_need_features
        # The complement of an IntFlag would lack the bits that have no name.
        return int(others | flag if known else others)

    def in_domain_range(self, domain: int) -> bool:
        """Say whether the device allows a domain's number."""
        limits = self.parameters
        return (
            not self.offers(Feature.DOMAIN_RANGE)
            or limits.domain_start <= domain <= limits.domain_end
        )

    def in_input_range(self, start: int, end: int) -> bool:
        """Say whether the device translates all of a range."""
        limits = self.parameters
        return not self.offers(Feature.INPUT_RANGE) or (
            limits.input_start <= start and end <= limits.input_end
        )

    def meets_reserved_region(self, domain: Domain, start: int, end: int) -> bool:
        """Say whether a range touches what is reserved for an endpoint of a domain."""
        # At most REGIONS_KEPT endpoints have regions, but there may be many others.
        return any(
            first <= end and start <= last
            for endpoint in self._restricted
            if endpoint in domain.endpoints
            for _, first, last in self.regions[endpoint]
        )

    def bypasses(self) -> bool:
        """Say whether endpoints without a domain reach memory as it is."""
        return bypasses(self.parameters.bypass, self.offered, self.accepted)

    # --- what requests change ----------------------------------------------------------------

    def _domain(self, number: int, bypass: bool) -> Domain:
        found = self.domains.get(number)
        if found is None:
            self._spend(1)
            found = self.domains[number] = Domain(bypass)
        return found

    def attach(self, endpoint: int, number: int, bypass: bool) -> None:
        """Put an endpoint into a domain, which is made if need be."""
        if self.attached.get(endpoint) == number and not self.dialect.detaches_first:
            return
        self.detach(endpoint)
        self._domain(number, bypass).endpoints.add(endpoint)
        self._spend(1)
        self.attached[endpoint] = number
        self.see(endpoint)

    def see(self, endpoint: int) -> None:
        """Remember that an ATTACH named an endpoint."""
        self._spend(endpoint not in self.seen)
        self.seen.add(endpoint)

    def forget_endpoint(self, endpoint: int) -> None:
        """Forget that an ATTACH named an endpoint."""
        self._left_over += endpoint in self.seen
        self.seen.discard(endpoint)

    def detach(self, endpoint: int) -> None:
        """Take an endpoint out of its domain, if it has one; the last one ends it."""
        number = self.attached.pop(endpoint, None)
        if number is None:
            return
        self._left_over += 1
        self._spend(endpoint not in self.left)
        self.left[endpoint] = number
        domain = self.domains[number]
        domain.endpoints.discard(endpoint)
        if not domain.endpoints:
            self._end(number)

    def _end(self, number: int) -> None:
        domain = self.domains.pop(number)
        self._left_over += 1 + len(domain)
        for mapping in domain:
            self.dropped.append(Dropped(number, mapping, self.event))

    def map(self, number: int, mapping: Mapping) -> None:
        """Add a mapping; what it overlaps is replaced, if the recorded unit allowed it."""
        domain = self._domain(number, bypass=False)
        for other in list(domain.overlapping(mapping.start, mapping.end)):
            self.drop(number, other)
        self._spend(1)
        domain.add(mapping)

    def unmap(self, number: int, start: int, end: int) -> None:
        """Remove the mappings that a range touches."""
        domain = self.domains.get(number)
        if domain is not None:
            for mapping in list(domain.overlapping(start, end)):
                self.drop(number, mapping)

    def drop(self, number: int, mapping: Mapping) -> None:
        """Remove one mapping of a domain."""
        self.domains[number].remove(mapping)
        self._left_over += 1
        self.dropped.append(Dropped(number, mapping, self.event))
