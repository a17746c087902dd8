"""Parse the trace events of QEMU's emulated VT-d unit, and name those that are not kept.

Formats are those of the `trace-events-all` file in QEMU's data directory, version 10.0; the names
of events that are counted and not kept come from versions 3.1 to 11.0. Every parser takes what
follows the event's name on the line and gives None for text that does not have the event's shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from decoders.capture.virtio_events import VIRTIO_INTERNAL
from decoders.events import (
    Access,
    AccessKind,
    Descriptor,
    Event,
    Fault,
    FaultRecord,
    Interrupt,
    InterruptRequest,
    Message,
    RegRead,
    RegWrite,
    Reset,
    StatusWrite,
    Translation,
)

Parser = Callable[[bytes], Event | None]


def _pattern(text: str) -> Callable[[bytes], re.Match[bytes] | None]:
    """Compile a format where X stands for a 64-bit hexadecimal number with its 0x."""
    expression = re.escape(text).replace("X", "0x([0-9a-f]{1,16})").replace("D", "([0-9]{1,9})")
    return re.compile(expression.encode().replace(rb"\ ", b" ")).fullmatch


_reg_write = _pattern("addr X size X value X")
_reg_read = _pattern("addr X size X")
_frr_new = _pattern("index D high X low X")
_irq_generate = _pattern("addr X data X")
_ir_request = _pattern("addr X data X")
_ir_remapped = _pattern("(addr X, data X) -> (addr X, data X)")
_wait_sw = _pattern("wait invalidate status write addr X data X")
_dmar_fault = re.compile(
    rb"sid 0x([0-9a-f]{1,4}) fault ([0-9]{1,3}) addr 0x([0-9a-f]{1,16}) write ([01])"
).fullmatch
_inv_desc = re.compile(
    rb"invalidate desc type [a-z0-9-]+ high 0x([0-9a-f]{1,16}) low 0x([0-9a-f]{1,16})"
).fullmatch
_dmar_translate = re.compile(
    rb"dev ([0-9a-f]{2}):([01][0-9a-f])\.0?([0-7]) iova 0x([0-9a-f]{1,16})"
    rb" -> gpa 0x([0-9a-f]{1,16}) mask 0x([0-9a-f]{1,16})"
).fullmatch
_sizes: Final = {b"1": 1, b"2": 2, b"4": 4, b"8": 8}


def _parse_reg_write(rest: bytes) -> RegWrite | None:
    match = _reg_write(rest)
    if match is None:
        return None
    offset, size_digits, value_digits = match.groups()
    size = _sizes.get(size_digits)
    value = int(value_digits, 16)
    if size is None or value >> (size * 8):
        return None
    return RegWrite(int(offset, 16), size, value)


def _parse_reg_read(rest: bytes) -> RegRead | None:
    match = _reg_read(rest)
    if match is None:
        return None
    size = _sizes.get(match[2])
    return None if size is None else RegRead(int(match[1], 16), size, None)


def _parse_dmar_translate(rest: bytes) -> Access | None:
    # The iova printed is the base of the page the answer covers, not the address asked for.
    match = _dmar_translate(rest)
    if match is None:
        return None
    bus, slot, function, iova, address, mask = match.groups()
    sid = int(bus, 16) << 8 | int(slot, 16) << 3 | int(function)
    outcome = Translation(int(address, 16), int(mask, 16))
    return Access(sid, None, int(iova, 16), AccessKind.UNKNOWN, outcome)


def _parse_dmar_fault(rest: bytes) -> Access | None:
    match = _dmar_fault(rest)
    if match is None:
        return None
    sid, reason, iova, write = match.groups()
    kind = AccessKind.WRITE if write == b"1" else AccessKind.READ
    return Access(int(sid, 16), None, int(iova, 16), kind, Fault(int(reason)))


def _parse_frr_new(rest: bytes) -> FaultRecord | None:
    match = _frr_new(rest)
    if match is None:
        return None
    # Printed before the unit sets F, the top bit, which is therefore clear here.
    index, high, low = match.groups()
    return FaultRecord(int(index), int(low, 16), int(high, 16))


def _parse_inv_desc(rest: bytes) -> Descriptor | None:
    # Only 128 bits are printed, of a 256-bit descriptor the lower ones.
    match = _inv_desc(rest)
    return None if match is None else Descriptor((int(match[2], 16), int(match[1], 16)))


def _parse_wait_sw(rest: bytes) -> StatusWrite | None:
    match = _wait_sw(rest)
    if match is None:
        return None
    data = int(match[2], 16)
    return None if data >> 32 else StatusWrite(int(match[1], 16), data)


def _parse_irq_generate(rest: bytes) -> Interrupt | None:
    match = _irq_generate(rest)
    return None if match is None else Interrupt(int(match[1], 16), int(match[2], 16))


def _parse_ir_request(rest: bytes) -> InterruptRequest | None:
    match = _ir_request(rest)
    return None if match is None else InterruptRequest(None, *_message(match[1], match[2]), None)


def _parse_ir_remapped(rest: bytes) -> InterruptRequest | None:
    match = _ir_remapped(rest)
    if match is None:
        return None
    outcome = Message(*_message(match[3], match[4]))
    return InterruptRequest(None, *_message(match[1], match[2]), outcome)


def _message(address: bytes, data: bytes) -> tuple[int, int]:
    return int(address, 16), int(data, 16)


def _parse_reset_exit(rest: bytes) -> Reset | None:
    return None if rest else Reset()


EVENT_LINES: Final[dict[bytes, Parser]] = {
    b"vtd_reg_write": _parse_reg_write,
    b"vtd_reg_read": _parse_reg_read,
    b"vtd_dmar_translate": _parse_dmar_translate,
    b"vtd_dmar_fault": _parse_dmar_fault,
    b"vtd_frr_new": _parse_frr_new,
    b"vtd_inv_desc": _parse_inv_desc,
    b"vtd_inv_desc_wait_sw": _parse_wait_sw,
    b"vtd_irq_generate": _parse_irq_generate,
    b"vtd_ir_remap_msi_req": _parse_ir_request,
    b"vtd_ir_remap_msi": _parse_ir_remapped,
    b"vtd_reset_exit": _parse_reset_exit,
}
"""Trace events that become events of a trace, and who parses what follows their name."""

VTD_INTERNAL: Final = frozenset(
    b"vtd_" + name
    for name in (
        # What the unit made of a descriptor, a register write, an interrupt.
        b"inv_desc_cc_domain inv_desc_cc_global inv_desc_cc_device inv_desc_cc_devices"
        b" inv_desc_iotlb_global inv_desc_iotlb_domain inv_desc_iotlb_pages"
        b" inv_desc_iotlb_pasid_pages inv_desc_iotlb_pasid inv_desc_wait_irq"
        b" inv_desc_wait_write_fail inv_desc_iec inv_qi_enable inv_qi_setup inv_qi_head"
        b" inv_qi_tail inv_qi_fetch reg_dmar_root reg_ir_root reg_write_gcmd reg_write_fectl"
        b" reg_write_iectl reg_ics_clear_ip dmar_enable ir_enable ir_irte_get ir_remap"
        b" ir_remap_type fsts_ppf fsts_clear_ip"
        b" warn_invalid_qi_tail warn_ir_vector warn_ir_trigger"
        # Its caches and walks, and what it tells the devices behind it.
        b" context_cache_reset re_not_present ce_not_present iotlb_page_hit iotlb_page_update"
        b" iotlb_cc_hit iotlb_cc_update iotlb_reset fault_disabled replay_ce_valid"
        b" replay_ce_invalid page_walk_level page_walk_one page_walk_one_skip_map"
        b" page_walk_one_skip_unmap page_walk_skip_read page_walk_skip_reserve"
        b" switch_address_space as_unmap_whole translate_pt pt_enable_fast_path"
        # Only in old versions.
        b" inv_desc_invalid inv_desc_cc_invalid inv_desc_iotlb_invalid inv_desc_wait_invalid"
        b" re_invalid ce_invalid"
        # Only in newer ones.
        b" pasid_cache_reset pasid_cache_gsi pasid_cache_dsi pasid_cache_psi"
        b" pasid_cache_devsi inv_desc_pasid_cache_gsi inv_desc_pasid_cache_dsi"
        b" inv_desc_pasid_cache_psi device_attach_hwpt device_detach_hwpt"
        b" device_reattach_def_hwpt"
    ).split()
)
"""Events of the VT-d unit that say how it came to its answer, not what the answer was."""

INTERNAL_LINES: Final = VTD_INTERNAL | VIRTIO_INTERNAL
"""Trace events that are recognised and counted, and become nothing."""
