"""What QEMU's virtio-iommu does otherwise than the specification says, as data.

Each row names the members of `VirtioDialect` that describe it, so that a comparison with one row
taken out shows where the row matters. Source, unless said: hw/virtio/virtio-iommu.c of QEMU 10.0.2,
the function in brackets; sections are those of virtio 1.4. All were seen on QEMU 10.0.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from harness.model.virtio.dialect import SPECIFICATION, VirtioDialect
from harness.model.virtio.rules import Condition


@dataclass(frozen=True, slots=True)
class Deviation:
    """Describe one deviation: what happens, and which parts of a dialect stand for it."""

    id: str
    section: str
    what: str
    source: str
    members: tuple[str, ...] = ()
    ignored: tuple[Condition, ...] = ()
    statuses: tuple[Condition, ...] = ()

    def without(self, dialect: VirtioDialect) -> VirtioDialect:
        """Return a dialect that follows the specification in this."""
        members = {name: getattr(SPECIFICATION, name) for name in self.members}
        statuses = {
            condition: status
            for condition, status in dialect.statuses.items()
            if condition not in self.statuses
        }
        ignored = dialect.ignored - set(self.ignored)
        return replace(dialect, **{"ignored": ignored, "statuses": statuses, **members})


DEVIATIONS: Final = (
    Deviation(
        "unknown-type",
        "5.13.6",
        "a request of unknown type is answered with UNSUPP instead of a used length of 0",
        "virtio_iommu_handle_command",
        statuses=(Condition.UNKNOWN_TYPE,),
    ),
    Deviation(
        "short-request",
        "5.13.6",
        "a request that is cut short is answered with INVAL",
        "virtio_iommu_iov_to_req",
        statuses=(Condition.SHORT_BODY,),
    ),
    Deviation(
        "probe-room",
        "5.13.6.7",
        "a PROBE whose answer does not fit gets DEVERR in front instead of INVAL at the end",
        "virtio_iommu_handle_command",
        members=("short_probe_tail_first",),
        statuses=(Condition.PROBE_ROOM,),
    ),
    Deviation(
        "attach-reserved",
        "5.13.6.3",
        "reserved bytes of ATTACH are not looked at",
        "virtio_iommu_attach",
        ignored=(Condition.ATTACH_RESERVED,),
    ),
    Deviation(
        "attach-detaches-first",
        "5.13.6.3",
        "an ATTACH that is refused for its BYPASS flag has already left the old domain",
        "virtio_iommu_attach",
        members=("detaches_first",),
    ),
    Deviation(
        "endpoint-forgotten",
        "5.13.6.4",
        "DETACH answers NOENT, and accesses are reported as UNKNOWN, for an endpoint that is there "
        "but that no ATTACH has named since the last DETACH",
        "virtio_iommu_detach, virtio_iommu_translate",
        members=("remembers_endpoints",),
    ),
    Deviation(
        "map-alignment",
        "5.13.6.5",
        "MAP takes any bytes for a mapping, whatever page_size_mask says",
        "virtio_iommu_map",
        ignored=(Condition.MAP_ALIGNMENT,),
    ),
    Deviation(
        "map-input-range",
        "5.13.4",
        "MAP takes a range that reaches beyond input_range",
        "virtio_iommu_map",
        ignored=(Condition.MAP_INPUT_RANGE,),
    ),
    Deviation(
        "map-reserved-region",
        "5.13.6.5",
        "MAP takes a range that meets a reserved region of an endpoint",
        "virtio_iommu_map",
        ignored=(Condition.MAP_RESERVED_REGION,),
    ),
    Deviation(
        "inverted-range",
        "5.13.6.5",
        "MAP and UNMAP take a range that ends before it starts; no lookup is reliable then "
        "(11.1.3 refuses it)",
        "virtio_iommu_map, virtio_iommu_unmap",
        ignored=(Condition.MAP_ORDER, Condition.UNMAP_ORDER),
    ),
    Deviation(
        "breaks",
        "5.13.6",
        "a request without a head, or room for a tail, and a config.bypass above 1 end all answers "
        "and fault reports until the device is reset (DEVICE_NEEDS_RESET)",
        "virtio_iommu_handle_command, virtio_iommu_set_config",
        members=("breaks",),
    ),
    Deviation(
        "endpoint-ids-wrap",
        "5.13.6.3",
        "of an endpoint's id the lowest 16 bits say who it is: ATTACH and PROBE of 0x10020 succeed "
        "where 0x20 is there, though its DMA stays in the domain of 0x20",
        "virtio_iommu_mr",
        members=("endpoint_ids_wrap",),
    ),
    Deviation(
        "unmap-removes-before-split",
        "5.13.6.6",
        "UNMAP may have removed some mappings when it answers RANGE",
        "virtio_iommu_unmap",
        members=("removes_before_split",),
    ),
    Deviation(
        "next-byte",
        "5.13.6",
        "an address is looked up together with the next one: the byte in front of a mapping is "
        "translated, and the last byte of the address space is not",
        "virtio_iommu_translate",
        members=("reaches_next_byte",),
    ),
    Deviation(
        "whole-granules",
        "5.13.6.5",
        "a translation counts for the whole granule around an address: the bits below are kept, "
        "though the mapping may shift them",
        "virtio_iommu_translate",
        members=("keeps_page_offset",),
    ),
    Deviation(
        "reset-keeps-domains",
        "2.4",
        "the driver's reset of the device ends no domain: endpoints stay attached and mapped",
        "virtio_iommu_class_init (the reset phase is not run by virtio_reset)",
        members=("reset_keeps_domains",),
    ),
    Deviation(
        "reserved-region-first",
        "5.13.6.8",
        "reserved regions are answered for before it is known that there is a domain",
        "virtio_iommu_translate",
        members=("reserved_regions_without_domain",),
    ),
)


@dataclass(frozen=True, slots=True)
class Crash:
    """Describe a way to end QEMU; said is what it prints then, until the last of versions."""

    id: str
    last: tuple[int, ...]
    what: str
    said: re.Pattern[str]


CRASHES: Final = (
    Crash(
        "reset-behind-bridge",
        (11, 1),
        "ids of devices behind bridges are taken for those of bus 0 while the system is reset: one "
        "whose namesake is attached to a domain of a higher number is left without bypass, and its "
        "next DMA aborts",
        re.compile(r"virtio_iommu_translate: Assertion `ep && ep->domain"),
    ),
)


def known_crash(message: str, version: tuple[int, ...]) -> Crash | None:
    """Return the crash that a message of a version is about, if it is known."""
    for crash in CRASHES:
        if version[: len(crash.last)] <= crash.last and crash.said.search(message):
            return crash
    return None


def without_each(dialect: VirtioDialect) -> Iterator[tuple[Deviation, VirtioDialect]]:
    """Yield each deviation that a dialect has, with the dialect that lacks it."""
    for deviation in DEVIATIONS:
        changed = deviation.without(dialect)
        if changed != dialect:
            yield deviation, changed
