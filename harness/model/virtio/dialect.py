"""What a recorded virtio-iommu does differently from the specification, as data.

Source of the deviations: QEMU hw/virtio/virtio-iommu.c of the version named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from decoders.virtio_iommu.constants import FaultFlag, FaultReason, Status
from harness.model.virtio.rules import Condition


@dataclass(frozen=True, slots=True)
class VirtioDialect:
    """Describe one unit's deviations; the defaults are the specification's behaviour."""

    name: str
    ignored: frozenset[Condition] = frozenset()
    """Conditions that are not looked for."""
    statuses: Mapping[Condition, int] = field(default_factory=dict)
    """Other statuses than those of `rules.RULES`."""
    trouble: frozenset[int] = frozenset({Status.IOERR, Status.DEVERR, Status.NOMEM})
    """Statuses that may come at any time and change nothing: the device's own difficulties."""
    first_decides: bool = False
    """Of several conditions the first one that is looked for gives the status."""
    flags_need_features: bool = True
    """A flag of ATTACH or MAP is known only when its feature was accepted."""
    detaches_first: bool = False
    """ATTACH leaves the old domain before the BYPASS flag is compared with the new one."""
    remembers_endpoints: bool = False
    """An endpoint is unknown to DETACH, and to accesses, until an ATTACH names it."""
    reserved_regions_without_domain: bool = False
    """Reserved regions are looked at for an endpoint without a domain that has to have one."""
    write_may_imply_read: bool = True
    """A mapping with the right to write alone may be read."""
    short_probe_tail_first: bool = False
    """Where the answer to PROBE finds no room, the tail begins the writable part."""
    reaches_next_byte: bool = False
    """A mapping is looked up for the byte behind an address as well, and the last byte of the
    address space is found by a mapping of all of it only."""
    keeps_page_offset: bool = False
    """The bits of an address below the granule are kept, whatever the mapping says; a log of the
    unit's own gives the address as the mapping says."""
    reset_keeps_domains: bool = False
    """Domains, attached endpoints and mappings outlive the driver's reset of the device."""
    breaks: bool = False
    """A request without a whole head or room for a tail, or a value that config.bypass cannot have,
    ends all answers and fault reports until the device is reset."""
    endpoint_bits: int = 32
    """Bits an endpoint's id has in the machine: an id that needs more belongs to none."""
    endpoint_ids_wrap: bool = False
    """Only `endpoint_bits` of an id say who it is; to domains each id is another endpoint."""
    order_first: bool = False
    """A range that ends before it starts is refused before its domain is looked for."""
    removes_before_split: bool = False
    """UNMAP may have removed whole mappings when it finds one that it would split."""
    unattached_reasons: tuple[int, ...] = (FaultReason.DOMAIN, FaultReason.UNKNOWN)
    """Reasons an access without a domain may be given, the first one by choice."""
    fault_flags_ignored: int = FaultFlag.READ | FaultFlag.WRITE | FaultFlag.EXEC | FaultFlag.ADDRESS
    """Flags of a fault report that a unit may set or leave; without ADDRESS it has no address."""
    fault_flags_of_rights_only: bool = False
    """READ and WRITE are set only where a mapping lacks the right, not where there is none."""


SPECIFICATION = VirtioDialect("spec")

_QEMU = VirtioDialect(
    "qemu",
    ignored=frozenset(
        {
            Condition.ATTACH_RESERVED,
            Condition.ATTACH_DOMAIN_RANGE,
            Condition.ATTACH_SHARED,
            Condition.ATTACH_MOVED,
            Condition.MAP_ORDER,
            Condition.MAP_ALIGNMENT,
            Condition.MAP_INPUT_RANGE,
            Condition.MAP_RESERVED_REGION,
            Condition.UNMAP_RESERVED,
            Condition.UNMAP_ORDER,
        }
    ),
    statuses={
        Condition.UNKNOWN_TYPE: Status.UNSUPP,
        Condition.SHORT_BODY: Status.INVAL,
        Condition.PROBE_ROOM: Status.DEVERR,
    },
    trouble=frozenset(),
    first_decides=True,
    flags_need_features=False,
    detaches_first=True,
    remembers_endpoints=True,
    reserved_regions_without_domain=True,
    write_may_imply_read=False,
    short_probe_tail_first=True,
    reaches_next_byte=True,
    keeps_page_offset=True,
    breaks=True,
    endpoint_bits=16,
    endpoint_ids_wrap=True,
    removes_before_split=True,
    unattached_reasons=(FaultReason.DOMAIN,),
    fault_flags_ignored=0,
    fault_flags_of_rights_only=True,
)

# virtio_reset does not run the device's reset phases.
_QEMU_10_0 = replace(_QEMU, name="qemu-10.0", reset_keeps_domains=True)

# Seen on 11.1.3; versions between are not known.
_QEMU_11_1 = replace(
    _QEMU_10_0,
    name="qemu-11.1",
    ignored=_QEMU_10_0.ignored - {Condition.MAP_ORDER, Condition.UNMAP_ORDER},
    order_first=True,
)

DIALECTS = {dialect.name: dialect for dialect in (SPECIFICATION, _QEMU, _QEMU_10_0, _QEMU_11_1)}


def dialect_named(name: str) -> VirtioDialect:
    """Return the dialect a header names.

    A QEMU that is not listed has that of the newest one before it, or `qemu`.
    """
    found = DIALECTS.get(name)
    if found is None and name.startswith("qemu-"):
        version = _version(name)
        older = [one for one in DIALECTS if () < _version(one) <= version]
        found = DIALECTS[max(older, key=_version)] if older else _QEMU
    return found or SPECIFICATION


def _version(name: str) -> tuple[int, ...]:
    """Return the version in the name of a QEMU's dialect; empty for any other name."""
    found = re.fullmatch(r"qemu-([0-9]{1,4})\.([0-9]{1,4})(?:\..*)?", name)
    return (int(found[1]), int(found[2])) if found else ()
