"""Parse the trace events of QEMU's emulated virtio-iommu.

Formats are those of `hw/virtio/trace-events`, versions 5.0 to 10.0. Most lines tell a part of an
event; decoders.capture.virtio_log puts the parts together. Every parser takes what follows the
event's name on the line and gives None for text that does not have the event's shape. QEMU prints
most 32-bit numbers with %d, so those above 2^31 are negative.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from decoders.bytewise import build
from decoders.events import AccessKind, DeviceReset, FaultReport, RegWrite, Reset
from decoders.virtio_iommu.config import BYPASS_OFFSET, encode_config
from decoders.virtio_iommu.constants import RequestType
from decoders.virtio_iommu.structures import Config


@dataclass(frozen=True, slots=True)
class Translate:
    """Begin a translation; what it led to is on the next line, or on none."""

    sid: int
    address: int
    kind: AccessKind


@dataclass(frozen=True, slots=True)
class TranslateOut:
    """End a translation that found a mapping."""

    sid: int
    address: int
    physical: int


@dataclass(frozen=True, slots=True)
class RequestLine:
    """Name a request and those of its numbers that the line has, in their order in the request."""

    kind: RequestType
    numbers: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.kind.name} {', '.join(f'{number:#x}' for number in self.numbers)}"


@dataclass(frozen=True, slots=True)
class RegionLine:
    """Give one reserved region in the answer to a PROBE request."""

    endpoint: int
    subtype: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Offered:
    """Give the feature bits that the device offers."""

    features: int


@dataclass(frozen=True, slots=True)
class ConfigRead:
    """Give the config space when a driver read some of it."""

    data: bytes


@dataclass(frozen=True, slots=True)
class EndpointKnown:
    """Say that the device has begun, or ceased, to keep state for an endpoint."""

    endpoint: int
    known: bool


@dataclass(frozen=True, slots=True)
class ResetFromOutside:
    """Stand for a reset of the device that its driver did not ask for: the machine's or a bus's.

    It ends domains, which the driver's own reset does not do in these versions.
    """


@dataclass(frozen=True, slots=True)
class Nothing:
    """Stand for a line that tells nothing in this version of QEMU."""


Part = (
    Translate
    | TranslateOut
    | RequestLine
    | RegionLine
    | Offered
    | ConfigRead
    | EndpointKnown
    | ResetFromOutside
    | Nothing
    | FaultReport
    | RegWrite
    | DeviceReset
    | Reset
)
Parser = Callable[[bytes], Part | None]

_U32: Final = (1 << 32) - 1
_KINDS: Final = {b"1": AccessKind.READ, b"2": AccessKind.WRITE}


def _pattern(text: str) -> Callable[[bytes], tuple[bytes, ...] | None]:
    """Compile a format: X is a 64-bit and H a 32-bit number in hexadecimal, D a decimal one."""
    expression = re.escape(text).replace(r"\ ", " ")
    for letter, group in (
        ("X", "0x([0-9a-f]{1,16})"),
        ("H", "0x([0-9a-f]{1,8})"),
        ("D", "(-?[0-9]{1,10})"),
    ):
        expression = expression.replace(letter, group)
    match = re.compile(expression.encode()).fullmatch

    def groups(rest: bytes) -> tuple[bytes, ...] | None:
        found = match(rest)
        return None if found is None else found.groups()

    return groups


def _decimal(digits: bytes) -> int:
    return int(digits) & _U32


_translate = re.compile(
    rb"mr=\S{1,128} rid=([0-9]{1,5}) addr=0x([0-9a-f]{1,16}) flag=([0-3])"
).fullmatch
_translate_out = re.compile(
    rb"0x([0-9a-f]{1,16}) -> 0x([0-9a-f]{1,16}) for sid=([0-9]{1,5})"
).fullmatch
_report_fault = _pattern("FAULT reason=D flags=D endpoint=D address =X")
_attach = _pattern("domain=D endpoint=D")
_map = _pattern("domain=D virt_start=X virt_end=X phys_start=X flags=D")
_unmap = _pattern("domain=D virt_start=X virt_end=X")
_region = _pattern("dev= D, type=D start=X end=X")
_features = _pattern("device supports features=X")
_config = _pattern(
    "page_size_mask=X input range start=X input range end=X domain range start=D"
    " domain range end=D probe_size=H bypass=H"
)
_config_6_2 = _pattern(
    "page_size_mask=X input range start=X input range end=X domain range start=D"
    " domain range end=D probe_size=H"
)
_config_5_0 = _pattern("page_size_mask=X start=X end=X domain_range=D probe_size=H")
_set_config = _pattern("bypass=H")
_set_config_5_0 = _pattern("page_size_mask=X start=X end=X domain_bits=D probe_size=H")
_alloc = _pattern("Alloc endpoint=D")
_free = _pattern("Free endpoint=D")


def _parse_translate(rest: bytes) -> Translate | None:
    match = _translate(rest)
    if match is None:
        return None
    sid, address, flag = match.groups()
    return Translate(int(sid), int(address, 16), _KINDS.get(flag, AccessKind.UNKNOWN))


def _parse_translate_out(rest: bytes) -> TranslateOut | None:
    match = _translate_out(rest)
    if match is None:
        return None
    address, physical, sid = match.groups()
    return TranslateOut(int(sid), int(address, 16), int(physical, 16))


def _parse_report_fault(rest: bytes) -> FaultReport | None:
    found = _report_fault(rest)
    if found is None:
        return None
    reason, flags, endpoint = map(_decimal, found[:3])
    return None if reason > 0xFF else FaultReport(reason, flags, endpoint, int(found[3], 16))


def _parse_attach(rest: bytes) -> RequestLine | None:
    found = _attach(rest)
    return None if found is None else RequestLine(RequestType.ATTACH, tuple(map(_decimal, found)))


def _parse_detach(rest: bytes) -> RequestLine | None:
    found = _attach(rest)
    return None if found is None else RequestLine(RequestType.DETACH, tuple(map(_decimal, found)))


def _parse_map(rest: bytes) -> RequestLine | None:
    found = _map(rest)
    if found is None:
        return None
    domain, *addresses, flags = found
    numbers = (_decimal(domain), *(int(text, 16) for text in addresses), _decimal(flags))
    return RequestLine(RequestType.MAP, numbers)


def _parse_unmap(rest: bytes) -> RequestLine | None:
    found = _unmap(rest)
    if found is None:
        return None
    numbers = (_decimal(found[0]), int(found[1], 16), int(found[2], 16))
    return RequestLine(RequestType.UNMAP, numbers)


def _parse_region(rest: bytes) -> RegionLine | None:
    found = _region(rest)
    if found is None:
        return None
    endpoint, subtype = map(_decimal, found[:2])
    start, end = (int(text, 16) for text in found[2:])
    return None if subtype > 0xFF or end < start else RegionLine(endpoint, subtype, start, end)


def _parse_features(rest: bytes) -> Offered | None:
    found = _features(rest)
    return None if found is None else Offered(int(found[0], 16))


def _parse_get_config(rest: bytes) -> ConfigRead | None:
    found = _config(rest) or _config_6_2(rest)
    if found is None:
        found = _config_5_0(rest)
        if found is None:
            return None
        mask, start, end, last, size = found
        found = (mask, start, end, b"0", last, size)
    mask, start, end, first, last, size, *bypass = found
    if bypass and int(bypass[0], 16) > 0xFF:
        return None
    config = build(
        Config,
        page_size_mask=int(mask, 16),
        input_range_start=int(start, 16),
        input_range_end=int(end, 16),
        domain_range_start=_decimal(first),
        domain_range_end=_decimal(last),
        probe_size=int(size, 16),
        bypass=int(bypass[0], 16) if bypass else 0,
    )
    return ConfigRead(encode_config(config))


def _parse_set_config(rest: bytes) -> RegWrite | Nothing | None:
    found = _set_config(rest)
    if found is None:
        # Up to 6.1 no field could be written: the line shows what was tried.
        return Nothing() if _set_config_5_0(rest) else None
    bypass = int(found[0], 16)
    return None if bypass > 0xFF else RegWrite(BYPASS_OFFSET, 1, bypass)


def _parse_get_endpoint(rest: bytes) -> EndpointKnown | None:
    found = _alloc(rest)
    return None if found is None else EndpointKnown(_decimal(found[0]), True)


def _parse_put_endpoint(rest: bytes) -> EndpointKnown | None:
    found = _free(rest)
    return None if found is None else EndpointKnown(_decimal(found[0]), False)


def _parse_device_reset(rest: bytes) -> DeviceReset | None:
    return DeviceReset() if rest == b"reset!" else None


def _parse_device_reset_exit(rest: bytes) -> ResetFromOutside | None:
    return ResetFromOutside() if rest == b"reset!" else None


def _parse_system_reset(rest: bytes) -> Reset | None:
    return Reset() if rest == b"system reset!" else None


VIRTIO_LINES: Final[dict[bytes, Parser]] = {
    b"virtio_iommu_translate": _parse_translate,
    b"virtio_iommu_translate_out": _parse_translate_out,
    b"virtio_iommu_report_fault": _parse_report_fault,
    b"virtio_iommu_attach": _parse_attach,
    b"virtio_iommu_detach": _parse_detach,
    b"virtio_iommu_map": _parse_map,
    b"virtio_iommu_unmap": _parse_unmap,
    b"virtio_iommu_fill_resv_property": _parse_region,
    b"virtio_iommu_get_features": _parse_features,
    b"virtio_iommu_get_config": _parse_get_config,
    b"virtio_iommu_set_config": _parse_set_config,
    b"virtio_iommu_get_endpoint": _parse_get_endpoint,
    b"virtio_iommu_put_endpoint": _parse_put_endpoint,
    # The first up to 9.2, where the driver's reset causes it, too; the other since.
    b"virtio_iommu_device_reset": _parse_device_reset,
    b"virtio_iommu_device_reset_exit": _parse_device_reset_exit,
    b"virtio_iommu_system_reset": _parse_system_reset,
}
"""Trace events that tell of what software or a device did, and who parses the rest."""

VIRTIO_INTERNAL: Final = frozenset(
    b"virtio_iommu_" + name
    for name in (
        b"device_status detach_endpoint_from_domain unmap_done init_iommu_mr get_domain"
        b" put_domain notify_map notify_unmap remap update_page_size_mask notify_flag_add"
        b" notify_flag_del switch_address_space freeze_granule host_resv_regions"
        # Only in old versions.
        b" set_page_size_mask"
    ).split()
)
"""Trace events of the device that tell how it works, not what it answers."""
