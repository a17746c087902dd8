"""Properties of an endpoint: what the device writes for PROBE (virtio 1.4, 5.13.6.7 and
5.13.6.8).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from decoders.bytewise import build, decode, encode, packed, size_of
from decoders.errors import DecodeError
from decoders.virtio_iommu.constants import PROPERTY_TYPE_MASK, PropertyType, ResvSubtype
from decoders.virtio_iommu.structures import PropertyHead, ResvMem

HEAD_SIZE: Final = size_of(PropertyHead)
RESV_MEM_LENGTH: Final = size_of(ResvMem) - HEAD_SIZE
"""What a RESV_MEM property gives as its length; later specifications may add to it."""


@dataclass(frozen=True, slots=True)
class Property:
    """Place one property; reserved holds bits 15:12 of its type field, in place.

    region is a RESV_MEM property without reserved bits, the only kind that a driver does not pass
    over; data is all that follows the head.
    """

    offset: int
    type: int
    reserved: int
    data: bytes
    region: ResvMem | None = None


def read_properties(payload: bytes, path: str, offset: int = 0) -> Iterator[Property]:
    """Yield the properties in a payload of probe_size bytes up to a type of 0 or its end.

    Raise DecodeError, naming the place in path, for one that does not fit; offset is where the
    payload begins. Fewer bytes at the end than a head takes have to be zero. A type of 0 with
    reserved bits is a property to pass over, though Linux 7.2 stops at it.
    """
    head = packed(PropertyHead)
    at, index = 0, 0
    while at < len(payload):
        here = f"{path}.property[{index}]"
        if len(payload) - at < HEAD_SIZE:
            if any(payload[at:]):
                raise DecodeError(here, "the payload ends within its head", offset + at)
            return
        number, length = head.unpack(payload, at)
        kind, reserved = number & PROPERTY_TYPE_MASK, number & ~PROPERTY_TYPE_MASK
        if kind == PropertyType.NONE and not reserved:
            return
        end = at + HEAD_SIZE + length
        if end > len(payload):
            problem = f"{length} bytes, {len(payload) - at - HEAD_SIZE} are left"
            raise DecodeError(f"{here}.length", problem, offset + at + head.offset("length"))
        region: ResvMem | None = None
        if kind == PropertyType.RESV_MEM and not reserved:
            if length < RESV_MEM_LENGTH:
                problem = f"{length} bytes, RESV_MEM takes {RESV_MEM_LENGTH}"
                raise DecodeError(f"{here}.length", problem, offset + at + head.offset("length"))
            region = decode(ResvMem, payload[at : at + size_of(ResvMem)], here, offset + at)
        yield Property(offset + at, kind, reserved, payload[at + HEAD_SIZE : end], region)
        at, index = end, index + 1


def resv_mem(start: int, end: int, subtype: int = ResvSubtype.RESERVED) -> ResvMem:
    """Make a RESV_MEM property of a region, end included; raise ValueError for an empty one."""
    if end < start:
        raise ValueError(f"a region ends at {end:#x}, below its start {start:#x}")
    numbers = {"subtype": int(subtype), "start": start, "end": end}
    return build(ResvMem, type=int(PropertyType.RESV_MEM), length=RESV_MEM_LENGTH, **numbers)


def encode_properties(regions: Iterable[ResvMem], probe_size: int) -> bytes:
    """Return the payload of a PROBE answer: the properties, then zeros up to probe_size.

    Raise ValueError when they do not fit.
    """
    data = b"".join(encode(region) for region in regions)
    if len(data) > probe_size:
        raise ValueError(f"the properties take {len(data)} bytes, probe_size is {probe_size}")
    return data.ljust(probe_size, b"\0")
