"""Name what an event of a virtio-iommu carries: requests, answers, faults, features, config space.

Nothing is dissected here but a config space: requests come in great numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import IntFlag
from typing import Any, Final

from decoders.acpi.tree import Node
from decoders.bytewise import ByteStructure, decode, field_sizes, number, packed
from decoders.errors import DecodeError
from decoders.events import FaultReport, Features, Request
from decoders.virtio_iommu.config import CONFIG_SIZE, describe
from decoders.virtio_iommu.constants import (
    AttachFlag,
    FaultFlag,
    FaultReason,
    Feature,
    GeneralFeature,
    MapFlag,
    RequestType,
    ResvSubtype,
    Status,
)
from decoders.virtio_iommu.forms import FIXED_SIZE, HEADS, FixedConfig, Form, Mmio, PciRange
from decoders.virtio_iommu.properties import read_properties
from decoders.virtio_iommu.requests import READABLE_SIZE, REQUESTS, TAIL_SIZE, status_of
from decoders.virtio_iommu.structures import Config
from decoders.virtio_iommu.topology import read_tolerant
from harness.decoded_event import Decoded
from harness.trace.lines import format_sid

UNKNOWN_REASON: Final = "unknown fault reason"

_FAULTS: Final[dict[int, tuple[str, str]]] = {
    FaultReason.UNKNOWN: ("UNKNOWN", "not specified"),
    FaultReason.DOMAIN: ("DOMAIN", "the endpoint has no domain"),
    FaultReason.MAPPING: ("MAPPING", "no mapping permits the access"),
}
"""Name and meaning of each fault reason (virtio 1.4, 5.13.6.9)."""


_STATUSES: Final[dict[int, str]] = {status: status.name for status in Status}
_SUBTYPES: Final[dict[int, str]] = {subtype: subtype.name for subtype in ResvSubtype}


def flag_names(value: int, *kinds: type[IntFlag]) -> list[str]:
    """Return the names of the flags that are set, lowest first; the others as one number."""
    found = []
    for kind in kinds:
        for flag in kind:
            if value & flag:
                found.append(str(flag.name))
                value &= ~int(flag)  # the complement of a flag has but the bits with names
    return [*found, f"{value:#x}"] if value else found


def _flags(value: int, *kinds: type[IntFlag]) -> str:
    return "|".join(flag_names(value, *kinds)) or "none"


# --- requests ------------------------------------------------------------------------------------


def request_fields(data: bytes) -> dict[str, int] | None:
    """Return the fields of a whole request of a known type, whatever follows it, else None."""
    if not data or data[0] not in REQUESTS:
        return None
    shape = packed(REQUESTS[RequestType(data[0])])
    if len(data) < shape.size:
        return None
    return {
        name: number(value) for name, value in zip(shape.names, shape.unpack(data), strict=True)
    }


def request_name(data: bytes) -> str:
    """Name the type of a request."""
    if not data:
        return "empty request"
    if data[0] not in REQUESTS:
        return f"request of unknown type {data[0]:#x}"
    return RequestType(data[0]).name


def request_words(data: bytes) -> str:
    """Return the name of a request and what it asks for."""
    name, fields = request_name(data), request_fields(data)
    if fields is None:
        known = data and data[0] in REQUESTS
        needed = f" of {READABLE_SIZE[RequestType(data[0])]}" if known else ""
        return f"{name} ({len(data)}{needed} bytes)" if data else name
    kind = RequestType(data[0])
    odd = [
        f"{field}={value:#x}"
        for field, value in fields.items()
        if value and field.startswith("reserved")
    ]
    extra = len(data) - READABLE_SIZE[kind]
    return " ".join(
        [name, _WORDS[kind](fields), *odd, *([f"and {extra} more bytes"] if extra else [])]
    )


def _attach_words(fields: Mapping[str, int]) -> str:
    flags = f" {_flags(fields['flags'], AttachFlag)}" if fields["flags"] else ""
    return f"{_detach_words(fields)}{flags}"


def _detach_words(fields: Mapping[str, int]) -> str:
    return f"domain={fields['domain']:#x} endpoint={format_sid(fields['endpoint'])}"


def _map_words(fields: Mapping[str, int]) -> str:
    rights = _flags(fields["flags"], MapFlag)
    return f"{_unmap_words(fields)} -> {fields['phys_start']:#x} {rights}"


def _unmap_words(fields: Mapping[str, int]) -> str:
    return f"domain={fields['domain']:#x} {fields['virt_start']:#x}-{fields['virt_end']:#x}"


def _probe_words(fields: Mapping[str, int]) -> str:
    return f"endpoint={format_sid(fields['endpoint'])}"


_WORDS: Final[dict[RequestType, Callable[[Mapping[str, int]], str]]] = {
    RequestType.ATTACH: _attach_words,
    RequestType.DETACH: _detach_words,
    RequestType.MAP: _map_words,
    RequestType.UNMAP: _unmap_words,
    RequestType.PROBE: _probe_words,
}


_FLAGS: Final[dict[RequestType, type[IntFlag]]] = {
    RequestType.ATTACH: AttachFlag,
    RequestType.MAP: MapFlag,
}


def status_name(answer: bytes | None) -> str:
    """Name the status that ends an answer, or say why there is none."""
    if answer is None:
        return "not captured"
    status = status_of(answer)
    if status is None:
        return f"only {len(answer)} bytes written" if answer else "nothing written"
    return _STATUSES.get(status, f"status {status:#x}")


def status_text(answer: bytes | None) -> str:
    """Name the status that ends an answer, and give the reserved bytes behind it if not zero."""
    name, odd = status_name(answer), (answer or b"")[1 - TAIL_SIZE :]
    whole = status_of(answer) is not None
    return f"{name} (reserved bytes {odd.hex()})" if whole and any(odd) else name


def region_text(region: tuple[int, int, int]) -> str:
    """Describe a reserved region: subtype, first and last address."""
    subtype, first, last = region
    name = _SUBTYPES.get(subtype, f"subtype {subtype} (taken for RESERVED)")
    return f"{first:#x}-{last:#x} {name}"


def properties(data: bytes, answer: bytes | None) -> tuple[list[str], list[dict[str, int]]]:
    """Return what the answer to a PROBE says, as lines and as reserved regions."""
    lines: list[str] = []
    regions: list[dict[str, int]] = []
    if not data or data[0] != RequestType.PROBE or answer is None or status_of(answer) != Status.OK:
        return lines, regions
    try:
        for found in read_properties(answer[:-TAIL_SIZE], "probe"):
            if found.region is None:
                lines.append(f"property {found.type | found.reserved:#x} {found.data.hex() or '-'}")
                continue
            region = found.region
            lines.append(f"reserved {region_text((region.subtype, region.start, region.end))}")
            regions.append({"subtype": region.subtype, "start": region.start, "end": region.end})
    except DecodeError as error:
        lines.append(f"damaged: {error}")
    return lines, regions


def decode_request(event: Request) -> Decoded:
    """Return what a request asks for and how it was answered."""
    fields = request_fields(event.data) or {}
    lines, regions = properties(event.data, event.answer)
    status = status_text(event.answer)
    more: dict[str, Any] = {"status": status}
    if "flags" in fields:
        more["flag_names"] = flag_names(fields["flags"], _FLAGS[RequestType(event.data[0])])
    if lines:
        more |= {"properties": lines, "regions": regions}
    words = f"{request_words(event.data)}  {status}"
    return Decoded(request_name(event.data), fields, words=words, more=more, lines=tuple(lines))


# --- faults, features ----------------------------------------------------------------------------


def known_fault(reason: int) -> str | None:
    """Return the name of a fault reason and what it means; None when it is not known."""
    return " ".join(_FAULTS[reason]) if reason in _FAULTS else None


def decode_report(event: FaultReport) -> Decoded:
    """Name the reason and the flags of a fault report."""
    names = flag_names(event.flags, FaultFlag)
    name, *_ = _FAULTS.get(event.reason, (f"reason {event.reason}",))
    text = known_fault(event.reason) or UNKNOWN_REASON
    words = f"{text}  {_flags(event.flags, FaultFlag)}"
    return Decoded(name, words=words, more={"flag_names": names})


def feature_names(bits: int) -> list[str]:
    """Name feature bits, those of every virtio device as well."""
    return flag_names(bits, Feature, GeneralFeature)


def decode_features(event: Features) -> Decoded:
    """Name the features that are offered and those that were accepted."""
    offered, accepted = feature_names(event.offered), feature_names(event.accepted)
    words = f"offered {' '.join(offered) or 'none'}, accepted {' '.join(accepted) or 'none'}"
    more = {"offered_names": offered, "accepted_names": accepted}
    return Decoded("features", words=words, more=more)


# --- config space --------------------------------------------------------------------------------


def config_field(offset: int) -> str:
    """Name the field of config space at an offset, or repeat the offset."""
    sizes = dict(field_sizes(Config))
    for name, start in packed(Config).offsets.items():
        if start <= offset < start + sizes[name]:
            return f"config.{name}" + (f"+{offset - start}" if offset > start else "")
    return f"config+{offset:#x}"


def decode_config(data: bytes, offered: int, accepted: int) -> Decoded:
    """Return the fields of a config space, what they mean, and the topology in it."""
    form, topology = _topology(data, offered | accepted)
    shape = Config if form is Form.BYPASS_CONFIG else FixedConfig
    fields = _whole_fields(shape, data)
    lines = [*_description(data, offered, accepted, form), *topology]
    more = {"form": None if form is None else form.value, "description": lines}
    words = f"config space, {len(data)} bytes"
    return Decoded("config space", fields, words=words, more=more, lines=tuple(lines))


def _whole_fields(cls: type[ByteStructure], data: bytes) -> dict[str, int]:
    shape, sizes = packed(cls), dict(field_sizes(cls))
    values = shape.unpack(data[: shape.size].ljust(shape.size, b"\0"))
    return {
        name: number(value)
        for name, value in zip(shape.names, values, strict=True)
        if shape.offset(name) + sizes[name] <= len(data)
    }


def _description(data: bytes, offered: int, accepted: int, form: Form | None) -> Iterator[str]:
    if len(data) < FIXED_SIZE:
        return
    if form is not Form.BYPASS_CONFIG:
        offered &= ~int(Feature.BYPASS_CONFIG)
    config = decode(Config, data[:CONFIG_SIZE].ljust(CONFIG_SIZE, b"\0"), "config")
    yield from describe(config, offered, accepted)


def _topology(data: bytes, features: int) -> tuple[Form | None, list[str]]:
    """Return the form of a config space, its items as lines, and what could not be read."""
    try:
        space = read_tolerant(data, features)
    except DecodeError as error:
        return None, [f"damaged: {error}"]
    lines = [f"topology of form {space.form}"] if space.form in HEADS else []
    lines += map(_item_text, space.items)
    return space.form, [*lines, *(f"damaged: {fault}" for fault in space.faults)]


def _item_text(node: Node) -> str:
    body = node.body
    if isinstance(body, PciRange):
        where = f"PCI {body.segment:04x}:{format_sid(body.bdf_start)}"
        return f"endpoint {body.endpoint_start:#x} and up: {where} to {format_sid(body.bdf_end)}"
    if isinstance(body, Mmio):
        return f"endpoint {body.endpoint:#x}: the device at {body.address:#x}"
    return f"item of another type, {node.kind}"
