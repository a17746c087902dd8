"""Write a topology description into a config space, in any of its forms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from decoders.bytewise import ByteStructure, build, encode, size_of
from decoders.virtio_iommu.forms import (
    FIRST_ITEM,
    FIXED_SIZE,
    HEADS,
    ITEMS,
    SMALLEST_ITEM,
    Form,
    Mmio,
    PciRange,
)


@dataclass(frozen=True, slots=True)
class PciEndpoints:
    """Give endpoint ids to PCI devices of a segment, last included."""

    segment: int
    first: int
    last: int
    endpoint: int


@dataclass(frozen=True, slots=True)
class MmioEndpoint:
    """Give an endpoint id to the device at an address."""

    address: int
    endpoint: int


Item = PciEndpoints | MmioEndpoint


def write(form: Form, config: bytes, items: Iterable[Item]) -> bytes:
    """Return a config space of form V1, V2 or V3 that begins as config does and has these items.

    Raise ValueError for another form, or items that it cannot hold.
    """
    if form not in HEADS:
        raise ValueError(f"form {form} describes no topology")
    items = list(items)
    if form is Form.V3:
        _fits(len(items), "number of items")
    bodies = [_body(form, item) for item in items]
    first = FIRST_ITEM[form]
    length = max((size_of(type(body)) for body in bodies), default=SMALLEST_ITEM)
    if form is Form.V1:
        for index, body in enumerate(bodies[:-1], 1):
            body.next = _fits(first + index * length, "offset")
        head = build(HEADS[form], offset=first if bodies else 0)
    elif form is Form.V2:
        head = build(HEADS[form], offset=first, count=len(bodies), item_length=length)
    else:
        head = build(HEADS[form], offset=first, count=len(bodies))
    # Only V2 has items of several sizes, which it stretches to one.
    rest = b"".join(encode(body).ljust(length, b"\0") for body in bodies)
    return config[:FIXED_SIZE].ljust(FIXED_SIZE, b"\0") + encode(head) + rest


def _body(form: Form, item: Item) -> ByteStructure:
    base = PciRange if isinstance(item, PciEndpoints) else Mmio
    number, cls = next((n, cls) for n, cls in ITEMS[form].items() if issubclass(cls, base))
    more = {"length": size_of(cls)} if form is Form.V3 else {}
    if isinstance(item, MmioEndpoint):
        return build(cls, type=number, endpoint=item.endpoint, address=item.address, **more)
    place = {"segment": item.segment, "bdf_start": item.first, "bdf_end": item.last}
    return build(cls, type=number, endpoint_start=item.endpoint, **place, **more)


def _fits(value: int, what: str) -> int:
    """Return a value of 16 bits; raise ValueError for a greater one."""
    if value > 0xFFFF:
        raise ValueError(f"{what} {value:#x} does not fit 16 bits")
    return value
