"""IORT: which ids a device shows to its SMMU and to its interrupt controller (Arm DEN 0049)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from decoders.acpi import iort_nodes as kinds
from decoders.acpi.reading import NodeLists, Reading
from decoders.acpi.structures import HEADER_SIZE, Number32, Number64, Text
from decoders.acpi.tree import Node, Rule
from decoders.bytewise import ByteStructure, size_of

_Array = tuple[str, type[ByteStructure], int, int, str]
"""An array in a node: name, kind, count, offset from the node, and the field that gives the offset
(or the count)."""


def read_nodes(
    reading: Reading, path: str, start: int, end: int, *, draft: bool = False
) -> NodeLists:
    """Read what follows the header of an IORT: fixed part and padding, nodes, the rest.

    draft allows the nodes that an IORT has in a draft VIOT only.
    """
    head = reading.node(kinds.Iort, path, start + HEADER_SIZE, end)
    if head is None:
        return (), (), reading.rest(f"{path}.rest", start + HEADER_SIZE, end)
    known = kinds.NODES | kinds.DRAFT_NODES if draft else kinds.NODES
    return reading.counted(
        path, head, start, end, lambda place, at: _node(reading, place, at, end, known)
    )


def _node(
    reading: Reading,
    path: str,
    at: int,
    end: int,
    known: dict[int, tuple[type[ByteStructure], ...]],
) -> Node | None:
    header = reading.values(kinds.IortNodeHeader, path, at, end)
    if header is None:
        return None
    kind, length, _, _, mapping_count, mapping_offset = header
    forms = known.get(kind, (kinds.IortNodeHeader,))
    if not reading.fits(forms[-1], path, at, length, end):
        return None
    if forms == (kinds.IortNodeHeader,):
        problem = f"type {kind:#x} is not defined"
        reading.note(Rule.UNKNOWN_TYPE, f"{path}.type", problem, at)
    # Early forms of a node are shorter; where its mappings begin tells them apart.
    room = length
    if mapping_count and size_of(forms[-1]) <= mapping_offset < length:
        room = mapping_offset
    cls = next(form for form in forms if size_of(form) <= room)
    body = reading.structure(cls, path, at, end)
    if body is None:
        return None
    parts = _parts(reading, Node(path, at, body), at + length)
    return None if parts is None else Node(path, at, body, parts)


def _parts(reading: Reading, node: Node, end: int) -> tuple[Node, ...] | None:
    """Read what follows the fixed part of a node: its name, its arrays, and what lies between."""
    body, at = node.body, node.offset
    after = at + size_of(type(body))
    arrays = [a for a in _arrays(body) if a[2]]
    spans: list[tuple[int, int, str, tuple[Node, ...]]] = []
    for name, cls, count, offset, place in arrays:
        start = at + offset
        if start < after or start > end:
            problem = f"{offset:#x} is not behind the fixed part of the node"
            reading.fail(Rule.OFFSET, f"{node.path}.{place}", problem, node.locate(place))
            return None
        elements = reading.array(cls, f"{node.path}.{name}", start, count, end)
        if elements is None:
            return None
        spans.append((start, start + count * size_of(cls), name, elements))
    spans.sort(key=lambda span: span[0])
    parts: list[Node] = []
    if _named(body):
        stop = spans[0][0] if spans else end
        parts += _text(reading, f"{node.path}.device_name", after, stop)
        after = stop
    for start, stop, name, elements in spans:
        if start < after:
            problem = "overlaps what comes before it in the node"
            reading.fail(Rule.OVERLAP, f"{node.path}.{name}", problem, start)
            return None
        parts += reading.rest(f"{node.path}.padding", after, start)
        parts += elements
        after = stop
    name = "data" if type(body) is kinds.IortNodeHeader else "padding"
    parts += reading.rest(f"{node.path}.{name}", after, end)
    return tuple(parts)


def _named(body: ByteStructure) -> bool:
    return isinstance(body, kinds.NamedComponent | kinds.Iwb)


def _text(reading: Reading, path: str, start: int, end: int) -> tuple[Node, ...]:
    """Read a name up to its NUL, and the padding behind it."""
    stop = reading.data.find(b"\0", start, end) + 1
    if stop == 0:
        problem = "no NUL before the end of the node"
        reading.note(Rule.UNTERMINATED, path, problem, start)
        stop = end
    return reading.rest(path, start, stop, Text) + reading.rest(f"{path}.padding", stop, end)


def _arrays(body: ByteStructure) -> list[_Array]:
    more = _ARRAYS.get(type(body))
    arrays = more(body) if more else []
    # What an unknown type of node holds is unknown, but its mappings are announced as in all.
    mappings = (body.mapping_count, body.mapping_offset, "mapping_offset")
    return [*arrays, ("mapping", kinds.IdMapping, *mappings)]


def _its_group(body: ByteStructure) -> list[_Array]:
    return [("identifier", Number32, body.its_count, size_of(kinds.ItsGroup), "its_count")]


def _smmu(body: ByteStructure) -> list[_Array]:
    place = body.global_interrupt_offset
    return [
        ("global_interrupt", kinds.GlobalInterrupts, int(place > 0), place, _GLOBAL),
        ("context_interrupt", Number64, body.context_interrupt_count, *_at(body, _CONTEXT)),
        ("pmu_interrupt", Number64, body.pmu_interrupt_count, *_at(body, _PMU)),
    ]


_GLOBAL, _CONTEXT, _PMU = (
    "global_interrupt_offset",
    "context_interrupt_offset",
    "pmu_interrupt_offset",
)


def _at(body: ByteStructure, name: str) -> tuple[int, str]:
    return body.getfieldval(name), name


def _reserved_memory(body: ByteStructure) -> list[_Array]:
    return [("range", kinds.ReservedRange, body.rmr_count, body.rmr_offset, "rmr_offset")]


_ARRAYS: Final[dict[type[ByteStructure], Callable[[ByteStructure], list[_Array]]]] = {
    kinds.ItsGroup: _its_group,
    kinds.Smmu: _smmu,
    kinds.ReservedMemory: _reserved_memory,
}
