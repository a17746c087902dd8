"""Requests: the part of a request's buffer that the device reads (virtio 1.4, 5.13.6)."""

from __future__ import annotations

from typing import Final

from decoders.bytewise import decode, encode, field_sizes, packed, size_of
from decoders.errors import DecodeError
from decoders.virtio_iommu.constants import RequestType
from decoders.virtio_iommu.structures import (
    Attach,
    Detach,
    Map,
    Probe,
    RequestHead,
    RequestTail,
    Unmap,
)

Request = Attach | Detach | Map | Unmap | Probe

REQUESTS: Final[dict[RequestType, type[Request]]] = {
    RequestType.ATTACH: Attach,
    RequestType.DETACH: Detach,
    RequestType.MAP: Map,
    RequestType.UNMAP: Unmap,
    RequestType.PROBE: Probe,
}

READABLE_SIZE: Final[dict[RequestType, int]] = {
    kind: size_of(cls) for kind, cls in REQUESTS.items()
}
"""Bytes that the device reads of each request; what it writes follows in buffers of its own."""

HEAD_SIZE: Final = size_of(RequestHead)
TAIL_SIZE: Final = size_of(RequestTail)

_PLACES: Final = {
    (int(kind), name): slice(packed(cls).offset(name), packed(cls).offset(name) + size)
    for kind, cls in REQUESTS.items()
    for name, size in field_sizes(cls)
}


def field_of(data: bytes, name: str) -> int | None:
    """Return a number that a request holds; None where its type has none or it is cut off."""
    place = _PLACES.get((data[0], name)) if data else None
    if place is None or len(data) < place.stop:
        return None
    return int.from_bytes(data[place], "little")


def status_of(answer: bytes | None) -> int | None:
    """Return the status that ends an answer; None when there is none."""
    return answer[-TAIL_SIZE] if answer is not None and len(answer) >= TAIL_SIZE else None


def decode_request(data: bytes, path: str, offset: int = 0) -> Request:
    """Dissect exactly one request; raise DecodeError for an unknown type or another size.

    path names the request in the error, and offset is where data begins.
    """
    if not data:
        raise DecodeError(f"{path}.type", "the data ends here", offset)
    if data[0] not in REQUESTS:
        raise DecodeError(f"{path}.type", f"type {data[0]} is not defined", offset)
    request: Request = decode(REQUESTS[RequestType(data[0])], data, path, offset)
    return request


def encode_request(request: Request) -> bytes:
    """Return the bytes that the device reads; type and reserved bytes are taken as they are."""
    return encode(request)
