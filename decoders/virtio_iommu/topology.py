"""Read the topology description of a config space, in any of its forms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from decoders.acpi.reading import Reading
from decoders.acpi.tree import Node, Rule, Violation
from decoders.bytewise import ByteStructure, encode, packed, size_of
from decoders.errors import DecodeError
from decoders.virtio_iommu.constants import Feature
from decoders.virtio_iommu.forms import (
    FIRST_ITEM,
    FIXED_SIZE,
    HEADS,
    ITEMS,
    SMALLEST_ITEM,
    FixedConfig,
    Form,
    ItemV1,
    ItemV2,
    ItemV3,
    detect,
)
from decoders.virtio_iommu.structures import Config

LARGEST_CONFIG: Final = 1 << 20
"""Bytes of the largest config space that is read."""

B = TypeVar("B", bound=ByteStructure)


@dataclass(frozen=True, slots=True)
class ConfigSpace:
    """Hold a decoded config space.

    lead is what precedes the items, items are in the order in which a driver finds them, gaps is
    what nothing describes. faults are the violations met while it was read; after a fatal one the
    items behind it are missing and their bytes are a gap.
    """

    form: Form
    path: str
    lead: tuple[Node, ...]
    items: tuple[Node, ...] = ()
    gaps: tuple[Node, ...] = ()
    faults: tuple[Violation, ...] = field(default=(), compare=False)

    def walk(self) -> Iterator[Node]:
        """Yield every node in the order of its bytes; together they are all there is."""
        nodes = [*self.lead, *self.items, *self.gaps]
        for node in sorted(nodes, key=lambda node: node.offset):
            yield from node.walk()

    def of(self, cls: type[B]) -> Iterator[tuple[Node, B]]:
        """Yield the items of one kind."""
        for node in self.items:
            if isinstance(node.body, cls):
                yield node, node.body

    def encode(self) -> bytes:
        """Return the bytes of the config space, made from its fields."""
        return b"".join(encode(node.body) for node in self.walk())


def read(
    data: bytes,
    features: int = Feature.BYPASS_CONFIG,
    form: Form | None = None,
    path: str = "config",
) -> ConfigSpace:
    """Decode a config space; raise DecodeError when a part of it cannot be.

    form overrides what `detect` makes of features and data.
    """
    space = read_tolerant(data, features, form, path)
    for fault in space.faults:
        if fault.fatal:
            raise DecodeError(fault.path, fault.problem, fault.offset)
    return space


def read_tolerant(
    data: bytes,
    features: int = Feature.BYPASS_CONFIG,
    form: Form | None = None,
    path: str = "config",
) -> ConfigSpace:
    """Decode as much of a config space as there is; its faults say what could not be.

    Raise DecodeError for one that is too large, too small or of no form. Whatever the items are,
    encoding the result gives data again.
    """
    if len(data) > LARGEST_CONFIG:
        problem = f"{len(data)} bytes, more than the {LARGEST_CONFIG} that are read"
        raise DecodeError(path, problem, LARGEST_CONFIG)
    reading = Reading(bytes(data), "config space")
    form = detect(data, features, form, path)
    first = Config if form is Form.BYPASS_CONFIG else FixedConfig
    fixed = reading.node(first, path, 0, len(data))
    lead: list[Node] = [] if fixed is None else [fixed]
    items: tuple[Node, ...] = ()
    if fixed is not None and form in HEADS:
        head = reading.node(HEADS[form], f"{path}.topology", FIXED_SIZE, len(data))
        if head is not None:
            lead.append(head)
            walk = {Form.V1: _list, Form.V2: _array, Form.V3: _row}[form]
            items = tuple(walk(_Items(reading, form, path, head)))
    gaps = _gaps(reading, path, [*lead, *items])
    faults = tuple(sorted(reading.violations, key=lambda fault: fault.offset))
    return ConfigSpace(form, path, tuple(lead), items, gaps, faults)


class _Items:
    """Place the items of a description, none over another one."""

    def __init__(self, reading: Reading, form: Form, path: str, head: Node) -> None:
        self.reading = reading
        self.classes = ITEMS[form]
        self.first = FIRST_ITEM[form]
        self.path, self.head = path, head
        self.end = len(reading.data)
        self._taken = bytearray(self.end)

    def starts(self, at: int, pointer: str, place: int) -> bool:
        """Say whether an item can begin there; pointer is the field at place that says so."""
        if at < self.first:
            problem = f"an item at {at:#x}, the first one can be at {self.first:#x}"
        elif at >= self.end:
            problem = f"an item at {at:#x}, beyond the config space of {self.end} bytes"
        else:
            return True
        self.reading.fail(Rule.OFFSET, pointer, problem, place)
        return False

    def kind(self, number: int, path: str, at: int, other: type[B]) -> type[ByteStructure]:
        """Return the structure of a type; report one that is not defined and return `other`."""
        cls = self.classes.get(number)
        if cls is None:
            problem = f"type {number} is not defined"
            self.reading.note(Rule.UNKNOWN_TYPE, f"{path}.type", problem, at)
            return other
        return cls

    def node(self, cls: type[ByteStructure], path: str, at: int, size: int) -> Node | None:
        """Read an item of `size` bytes; None, and a violation, when it does not fit."""
        if any(self._taken[at : at + size]):
            self.reading.fail(Rule.OVERLAP, path, "it lies over another item", at)
            return None
        body = self.reading.structure(cls, path, at, self.end)
        if body is None:
            return None
        self._taken[at : at + size] = b"\1" * size
        return Node(path, at, body, self.reading.rest(f"{path}.data", at + size_of(cls), at + size))


def _list(items: _Items) -> Iterator[Node]:
    """Follow the items of form V1."""
    head, reading = items.head, items.reading
    at: int = head.body.offset
    pointer, place = f"{head.path}.offset", head.locate("offset")
    numbers: dict[int, str] = {}
    while at:
        path = f"{items.path}.item[{len(numbers)}]"
        if at in numbers:
            problem = f"leads back to {numbers[at]}"
            reading.fail(Rule.SELF_REFERENCE, pointer, problem, place)
            return
        if not items.starts(at, pointer, place):
            return
        start = reading.values(ItemV1, path, at, items.end)
        if start is None:
            return
        number, following = start
        cls = items.kind(number, path, at, ItemV1)
        node = items.node(cls, path, at, size_of(cls))
        if node is None:
            return
        yield node
        numbers[at] = path
        pointer, place, at = f"{path}.next", node.locate("next"), following


def _array(items: _Items) -> Iterator[Node]:
    """Read the items of form V2."""
    head, reading = items.head, items.reading
    first, count, length = head.body.offset, head.body.count, head.body.item_length
    if not count or not items.starts(first, f"{head.path}.offset", head.locate("offset")):
        return
    if length < SMALLEST_ITEM:
        problem = f"items of {length} bytes, the smallest takes {SMALLEST_ITEM}"
        reading.fail(Rule.LENGTH, f"{head.path}.item_length", problem, head.locate("item_length"))
        return
    if first + count * length > items.end:
        fit = (items.end - first) // length
        problem = f"{count} items of {length} bytes run past the config space, {fit} fit"
        reading.fail(Rule.COUNT, f"{head.path}.count", problem, head.locate("count"))
        return
    for index in range(count):
        path, at = f"{items.path}.item[{index}]", first + index * length
        number, *_ = packed(ItemV2).unpack(reading.data, at)
        cls = items.kind(number, path, at, ItemV2)
        if size_of(cls) > length:
            problem = f"{cls.__name__} takes {size_of(cls)} bytes, an item has {length}"
            reading.fail(Rule.LENGTH, f"{path}.type", problem, at)
            return
        node = items.node(cls, path, at, length)
        if node is None:
            return
        yield node


def _row(items: _Items) -> Iterator[Node]:
    """Read the items of form V3."""
    head, reading = items.head, items.reading
    at: int = head.body.offset
    pointer, place = f"{head.path}.offset", head.locate("offset")
    for index in range(head.body.count):
        path = f"{items.path}.item[{index}]"
        if not index and not items.starts(at, pointer, place):
            return
        if at == items.end:
            problem = f"{head.body.count} items announced, {index} are there"
            reading.fail(Rule.COUNT, f"{head.path}.count", problem, head.locate("count"))
            return
        start = reading.values(ItemV3, path, at, items.end)
        if start is None:
            return
        number, _, length = start
        cls = items.kind(number, path, at, ItemV3)
        if not reading.fits(cls, path, at, length, items.end):
            return
        node = items.node(cls, path, at, length)
        if node is None:
            return
        yield node
        at += length


def _gaps(reading: Reading, path: str, nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Keep what lies between the nodes and behind them."""
    gaps: list[Node] = []
    at = 0
    for node in sorted(nodes, key=lambda node: node.offset):
        gaps += reading.rest(f"{path}.gap", at, node.offset)
        at = node.offset + sum(len(encode(part.body)) for part in node.walk())
    gaps += reading.rest(f"{path}.gap", at, len(reading.data))
    return tuple(gaps)
