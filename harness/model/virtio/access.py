"""Translate an access: what is permitted, and what a fault report says."""

from __future__ import annotations

from dataclasses import dataclass, replace

from decoders.events import AccessKind, Fault, Outcome, Translation
from decoders.virtio_iommu.constants import FaultFlag, FaultReason, MapFlag, ResvSubtype
from harness.model.virtio.domain import TOP, Domain, Mapping
from harness.model.virtio.state import State

_RIGHT = {
    AccessKind.READ: MapFlag.READ,
    AccessKind.EXECUTE: MapFlag.READ,
    AccessKind.WRITE: MapFlag.WRITE,
}
_FLAG = {
    AccessKind.UNKNOWN: 0,
    AccessKind.READ: int(FaultFlag.READ),
    AccessKind.WRITE: int(FaultFlag.WRITE),
    AccessKind.EXECUTE: int(FaultFlag.EXEC),
}


@dataclass(frozen=True, slots=True)
class Permitted:
    """Hold one permitted outcome: the flags of its report, and the mapping it came from.

    gone says that the mapping may be gone, and has to be for this outcome.
    """

    outcome: Outcome
    flags: int = 0
    mapping: Mapping | None = None
    gone: bool = False


def permitted(state: State, endpoint: int, iova: int, kind: AccessKind) -> list[Permitted]:
    """Return what an access may be answered, the expected outcome first."""
    number = state.attached.get(endpoint)
    domain = None if number is None else state.domains[number]
    dialect = state.dialect
    if state.bypasses() if domain is None else domain.bypass:
        return [Permitted(_identity(state, iova))]
    if dialect.remembers_endpoints and endpoint not in state.seen:
        return _refused(state, kind, (FaultReason.UNKNOWN,))
    if domain is not None or dialect.reserved_regions_without_domain:
        inside = _reserved(state, endpoint, iova, kind)
        if inside is not None:
            return [inside]
    if domain is None:
        return _refused(state, kind, dialect.unattached_reasons)
    found = _lookup(state, domain, iova)
    if not found:
        return [_fault(state, FaultReason.MAPPING, kind, lacks_right=False)]
    answers = [answer for mapping in found for answer in _mapped(state, mapping, iova, kind)]
    doubtful = [mapping for mapping in found if domain.is_doubtful(mapping)]
    if doubtful and len(doubtful) == len(found):
        without = _fault(state, FaultReason.MAPPING, kind, lacks_right=False)
        answers.append(replace(without, mapping=doubtful[0], gone=True))
    return answers


def _identity(state: State, iova: int) -> Translation:
    mask = state.parameters.granule - 1
    return Translation(iova & ~mask, mask)


def _fault(state: State, reason: int, kind: AccessKind, lacks_right: bool) -> Permitted:
    flags = int(FaultFlag.ADDRESS)
    if lacks_right or not state.dialect.fault_flags_of_rights_only:
        flags |= _FLAG[kind]
    return Permitted(Fault(int(reason)), flags)


def _refused(state: State, kind: AccessKind, reasons: tuple[int, ...]) -> list[Permitted]:
    return [_fault(state, reason, kind, lacks_right=False) for reason in reasons]


def _reserved(state: State, endpoint: int, iova: int, kind: AccessKind) -> Permitted | None:
    for subtype, start, end in state.regions_of(endpoint) or ():
        if start <= iova <= end:
            if subtype == ResvSubtype.MSI:
                return Permitted(_identity(state, iova))
            return _fault(state, FaultReason.MAPPING, kind, lacks_right=False)
    return None


def _lookup(state: State, domain: Domain, iova: int) -> list[Mapping]:
    """Return the mappings that a lookup may find."""
    here = domain.at(iova)
    if not state.dialect.reaches_next_byte:
        return [] if here is None else [here]
    if iova == TOP:
        return [here] if here is not None and (here.start, here.end) == (0, TOP) else []
    behind = domain.at(iova + 1)
    return [found for found in dict.fromkeys((here, behind)) if found is not None]


def _mapped(state: State, mapping: Mapping, iova: int, kind: AccessKind) -> list[Permitted]:
    inside = mapping.start <= iova <= mapping.end
    mask = mapping.block(iova) if inside else 0
    address = mapping.address(iova)
    answers = [Permitted(Translation(address & ~mask, mask), mapping=mapping)]
    offset = state.parameters.granule - 1
    if state.dialect.keeps_page_offset and (address ^ iova) & offset:
        kept = Translation(address & ~offset | iova & offset, 0)
        answers.insert(0, Permitted(kept, mapping=mapping))
    rights = [kind] if kind is not AccessKind.UNKNOWN else [AccessKind.READ, AccessKind.WRITE]
    refused = [
        _fault(state, FaultReason.MAPPING, right, lacks_right=True)
        for right in rights
        if not mapping.flags & _RIGHT[right]
    ]
    if kind is AccessKind.UNKNOWN:
        # What was wanted is not known, so that each right that is missing may be the one.
        return [*answers, *refused]
    if not refused:
        return answers
    implied = state.dialect.write_may_imply_read and kind is not AccessKind.WRITE
    return [*refused, *answers] if implied and mapping.flags & MapFlag.WRITE else refused
