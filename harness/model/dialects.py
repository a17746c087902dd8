"""What a recorded unit does differently from the specification, as data.

A dialect is named in the header of a trace. The model and the native core take their tables from
here, so a deviation is written once. Sources: QEMU hw/i386/intel_iommu.c of the version named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from decoders.vtd.descriptors import DescriptorType
from decoders.vtd.faults import Reason


@dataclass(frozen=True, slots=True)
class EntryReasons:
    """Name the fault reasons of the root and context lookup."""

    root_read: int
    root_not_present: int
    root_reserved: int
    context_read: int
    context_not_present: int
    context_reserved: int
    context_invalid: int


@dataclass(frozen=True, slots=True)
class SecondStageReasons:
    """Name the fault reasons of the second-stage walk."""

    root_read: int
    entry_read: int
    not_present_read: int
    not_present_write: int
    no_read: int
    no_write: int
    reserved: int
    beyond_width: int
    interrupt_range: int


LEGACY_ENTRIES = EntryReasons(
    root_read=Reason.ROOT_ACCESS,
    root_not_present=Reason.ROOT_NOT_PRESENT,
    root_reserved=Reason.ROOT_RESERVED,
    context_read=Reason.CONTEXT_ACCESS,
    context_not_present=Reason.CONTEXT_NOT_PRESENT,
    context_reserved=Reason.CONTEXT_RESERVED,
    context_invalid=Reason.CONTEXT_INVALID,
)
SCALABLE_ENTRIES = EntryReasons(
    root_read=Reason.SM_ROOT_ACCESS,
    root_not_present=Reason.SM_ROOT_NOT_PRESENT,
    root_reserved=Reason.SM_ROOT_RESERVED,
    context_read=Reason.SM_CONTEXT_ACCESS,
    context_not_present=Reason.SM_CONTEXT_NOT_PRESENT,
    context_reserved=Reason.SM_CONTEXT_RESERVED,
    context_invalid=Reason.SM_CONTEXT_INVALID,
)
LEGACY_SECOND_STAGE = SecondStageReasons(
    root_read=Reason.SECOND_STAGE_ACCESS,
    entry_read=Reason.SECOND_STAGE_ACCESS,
    not_present_read=Reason.NO_READ,
    not_present_write=Reason.NO_WRITE,
    no_read=Reason.NO_READ,
    no_write=Reason.NO_WRITE,
    reserved=Reason.SECOND_STAGE_RESERVED,
    beyond_width=Reason.ADDRESS_BEYOND_WIDTH,
    interrupt_range=Reason.INTERRUPT_RANGE,
)
SCALABLE_SECOND_STAGE = SecondStageReasons(
    root_read=Reason.SM_SS_ROOT_ACCESS,
    entry_read=Reason.SM_SS_ACCESS,
    not_present_read=Reason.SM_SS_NOT_PRESENT,
    not_present_write=Reason.SM_SS_NOT_PRESENT,
    no_read=Reason.SM_NO_READ,
    no_write=Reason.SM_NO_WRITE,
    reserved=Reason.SM_SS_RESERVED,
    beyond_width=Reason.SM_SS_BEYOND_WIDTH,
    interrupt_range=Reason.SM_INTERRUPT_RANGE,
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """Describe one unit's deviations; the defaults are the specification's behaviour."""

    name: str
    legacy_entries: EntryReasons = LEGACY_ENTRIES
    scalable_entries: EntryReasons = SCALABLE_ENTRIES
    legacy_second_stage: SecondStageReasons = LEGACY_SECOND_STAGE
    scalable_second_stage: SecondStageReasons = SCALABLE_SECOND_STAGE
    snoop_bit_in_scalable: bool = False
    """The SNP bit of a second-stage leaf is tolerated in scalable mode without ECAP.SC."""
    execute_disable_reserved: bool = True
    """First-stage bit 63 is reserved while the PASID entry's NXE is 0."""
    interrupt_range_by_page: bool = False
    """A leaf whose page merely overlaps 0xFEExxxxx faults, not only an access that hits it."""
    pasid_type_before_present: bool = False
    """An unusable PGTT is reported (0x5b) even when the PASID entry is not present."""
    pasid_structures_checked: bool = True
    """PASIDE, PDTS and the reserved and unsupported bits of PASID structures are checked."""
    root_pointer_checked: bool = True
    """RTADDR with a bit from the host address width up faults (0x30); else the bit is dropped."""
    root_mode_checked: bool = True
    """RTADDR.TTM is taken as it is; else bit 10 of it alone, and only with ECAP.SMTS."""
    dirty_tracking_checked: bool = True
    """SSADE of a PASID entry is an error (0x5b) without ECAP.SSADS; else it says nothing then."""
    pass_through_any_width: bool = False
    """A legacy pass-through entry may have any supported AW, not only the largest."""
    first_stage_rights_by_level: bool = False
    """U/S, R/W and XD are checked as each entry is read, not once for all levels at the leaf."""
    all_ones_unreadable: bool = False
    """A paging entry of all ones is taken for one that could not be read."""
    context_reserved_unqualified: bool = False
    """0x0b is recorded whatever FPD says."""
    honours_rid_pasid: bool = False
    """RID_PASID of the context entry is used although ECAP.RPS is 0."""
    compatibility_format_passes: bool = False
    """Interrupts of the compatibility format pass, whatever CFI and IRTA.EIME say."""
    request_data_checked_last: bool = False
    """0x20 for an interrupt's data comes after what its entry gives, and names index 0."""
    interrupt_index_wraps: bool = False
    """The sum of handle and subhandle has 16 bits."""
    interrupt_destination_checked: bool = True
    """Without IRTA.EIME the bits of a destination that an xAPIC id leaves are reserved."""
    posted_taken_for_remapped: bool = False
    """An entry of a posted interrupt remaps one (without CAP.PI; else it is reserved)."""
    handle_mask_checked: bool = True
    """An interrupt entry invalidation with IM beyond ECAP.MHMV is an error."""
    nested_unsupported: bool = False
    """PGTT 3 is invalid (0x5b) whatever ECAP.NEST says."""
    device_selective_ignores_domain: bool = False
    """Invalidating the context entry of a device takes no notice of the domain id given."""
    upper_event_addresses: bool = True
    """FEUADDR and IEUADDR are there with ECAP.EIM; else they are not there at all."""
    device_requests_unchecked: bool = False
    """Translation requests are taken for DMA, and translated requests let through unseen."""
    device_messages_traced: bool = True
    """A recording shows what the unit tells devices: PageResponse, DeviceTlbMessage."""
    resumes_after_queue_error: bool = True
    """Clearing FSTS.IQE restarts the invalidation queue without a new tail write."""
    untraced_descriptors: frozenset[int] = frozenset()
    """Descriptor types the recording's source consumes without saying so."""
    fault_record_ignored: int = 0
    """Bits of a fault record's upper quadword that the recording's source fills with anything."""


SPECIFICATION = Dialect("spec")

_QEMU = Dialect(
    "qemu",
    scalable_entries=replace(LEGACY_ENTRIES),
    legacy_second_stage=replace(LEGACY_SECOND_STAGE, root_read=Reason.CONTEXT_INVALID),
    scalable_second_stage=replace(
        LEGACY_SECOND_STAGE,
        root_read=Reason.CONTEXT_INVALID,
        interrupt_range=Reason.SM_INTERRUPT_RANGE,
    ),
    snoop_bit_in_scalable=True,
    execute_disable_reserved=False,
    interrupt_range_by_page=True,
    pasid_type_before_present=True,
    pasid_structures_checked=False,
    root_pointer_checked=False,
    root_mode_checked=False,
    dirty_tracking_checked=False,
    pass_through_any_width=True,
    first_stage_rights_by_level=True,
    all_ones_unreadable=True,
    context_reserved_unqualified=True,
    compatibility_format_passes=True,
    request_data_checked_last=True,
    interrupt_index_wraps=True,
    interrupt_destination_checked=False,
    posted_taken_for_remapped=True,
    handle_mask_checked=False,
    nested_unsupported=True,
    device_selective_ignores_domain=True,
    upper_event_addresses=False,
    device_requests_unchecked=True,
    device_messages_traced=False,
    resumes_after_queue_error=False,
)

# PP (31) and PV (59:40) are set from an internal "no PASID" marker up to 10.0 (fixed by
# dde3f966f0fe); RID_PASID is honoured up to 10.0 (c629b030a2); PASID-cache invalidations are
# consumed without a trace line up to 10.0 (c9cf33075a).
_QEMU_10_0 = replace(
    _QEMU,
    name="qemu-10.0",
    honours_rid_pasid=True,
    untraced_descriptors=frozenset({DescriptorType.PASID_CACHE}),
    fault_record_ignored=1 << 31 | 0xFFFFF << 40,
)

# Of 11.1 its behaviour was compared (11.1.3, `dmarewind diff --unit vtd`), not its source.
_QEMU_11_1 = replace(_QEMU, name="qemu-11.1")

DIALECTS = {dialect.name: dialect for dialect in (SPECIFICATION, _QEMU, _QEMU_10_0, _QEMU_11_1)}


def dialect_named(name: str) -> Dialect:
    """Return the dialect a header names; an unknown QEMU version falls back to `qemu`."""
    found = DIALECTS.get(name)
    if found is None and name.startswith("qemu-"):
        version = name.removeprefix("qemu-").split(".")
        numbers = tuple(int(part) if part.isdigit() else 0 for part in version[:2])
        found = _QEMU_10_0 if numbers <= (10, 0) else _QEMU
    return found or SPECIFICATION


SWITCHES = frozenset(one.name for one in fields(Dialect) if isinstance(one.default, bool))
"""Members of a dialect that are true or false."""


MASKS = ("fault_record_ignored", "untraced_descriptors")
"""Members that a header holds as masks of 64 bits."""


def switched(name: str, switches: Mapping[str, int]) -> Dialect:
    """Return the dialect of a name with some members set otherwise; KeyError: there is none."""
    for one, value in switches.items():
        if one not in MASKS and not (one in SWITCHES and isinstance(value, bool)):
            raise KeyError(one)
    changes: dict[str, Any] = dict(switches)
    if "untraced_descriptors" in changes:
        mask = int(changes["untraced_descriptors"])
        kinds = frozenset(kind for kind in range(64) if mask >> kind & 1)
        changes["untraced_descriptors"] = kinds
    return replace(dialect_named(name), **changes)


def switches_of(dialect: Dialect) -> dict[str, int]:
    """Return the members that a dialect has otherwise than the one of its name."""
    plain = dialect_named(dialect.name)
    found = {
        name: getattr(dialect, name)
        for name in sorted((*SWITCHES, *MASKS))
        if getattr(dialect, name) != getattr(plain, name)
    }
    if "untraced_descriptors" in found:
        found["untraced_descriptors"] = sum(1 << kind for kind in dialect.untraced_descriptors)
    return found
