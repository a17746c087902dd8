"""Requests: the part of a request's buffer that the device reads (virtio 1.4, 5.13.6)."""

from __future__ import annotations

from typing import Final

from decoders.bytewise import decode, encode, size_of
from decoders.errors import DecodeError
from decoders.virtio_iommu.constants import RequestType
from decoders.virtio_iommu.structures import Attach, Detach, Map, Probe, RequestHead, Unmap

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
