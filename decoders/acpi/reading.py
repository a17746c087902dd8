"""Read structures out of a table within bounds, and note what does not fit instead of failing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from decoders.acpi.structures import HEADER_SIZE
from decoders.acpi.tree import Node, Rule, Violation
from decoders.bytewise import (
    ByteStructure,
    Opaque,
    field_sizes,
    first_missing,
    packed,
    size_of,
)

LARGEST_TABLE = 1 << 20
"""Bytes of the largest table that is read; the largest known ones have some 100 KiB."""

MOST_STRUCTURES = 1 << 14
"""Structures that are read of one table; the time to read them grows with their number."""

B = TypeVar("B", bound=ByteStructure)


class Reading:
    """Hold the bytes of one table while they are read.

    Offsets are from the start of data. Nothing raises: what does not fit becomes a violation, and
    the caller keeps the bytes concerned as they are. whole is what violations call the data.
    """

    def __init__(self, data: bytes, whole: str = "table") -> None:
        self.data, self.whole = data, whole
        self.violations: list[Violation] = []
        self._left = MOST_STRUCTURES

    def note(self, rule: Rule, path: str, problem: str, offset: int) -> None:
        """Report a violation that does not keep the rest from being read."""
        self.violations.append(Violation(rule, path, problem, offset))

    def fail(self, rule: Rule, path: str, problem: str, offset: int) -> None:
        """Report a violation that ends the structure it is in."""
        self.violations.append(Violation(rule, path, problem, offset, fatal=True))

    def structure(
        self, cls: type[B], path: str, offset: int, end: int, within: str | None = None
    ) -> B | None:
        """Dissect the structure at offset; None, and a violation, when it goes beyond end.

        within says what ends at end, where it is not the data.
        """
        if not self._takes(cls, path, offset, end, within):
            return None
        return cls(self.data[offset : offset + size_of(cls)])

    def values(
        self, cls: type[ByteStructure], path: str, offset: int, end: int
    ) -> tuple[Any, ...] | None:
        """Return the values of the fields of the structure at offset; None as for `structure`.

        For what is looked at and not kept: dissections take most of the time of reading.
        """
        if not self._takes(cls, path, offset, end, None):
            return None
        return packed(cls).unpack(self.data, offset)

    def _takes(
        self, cls: type[ByteStructure], path: str, offset: int, end: int, within: str | None
    ) -> bool:
        if offset + size_of(cls) > end:
            path = f"{path}.{first_missing(cls, end - offset)}"
            problem = f"{_word(cls)} runs past the {within or self.whole}"
            self.fail(Rule.TRUNCATED, path, problem, offset)
            return False
        if self._left == 0:
            problem = f"more than {MOST_STRUCTURES} structures in one {self.whole}"
            self.fail(Rule.BOUND, path, problem, offset)
            return False
        self._left -= 1
        return True

    def node(
        self, cls: type[ByteStructure], path: str, offset: int, end: int, within: str | None = None
    ) -> Node | None:
        """Dissect the structure at offset and place it; None as for `structure`."""
        body = self.structure(cls, path, offset, end, within)
        return None if body is None else Node(path, offset, body)

    def rest(
        self, path: str, start: int, end: int, cls: type[ByteStructure] = Opaque
    ) -> tuple[Node, ...]:
        """Keep the bytes from start to end as they are, if there are any."""
        return (Node(path, start, _make(cls, self.data[start:end])),) if start < end else ()

    def array(
        self, cls: type[ByteStructure], path: str, start: int, count: int, end: int
    ) -> tuple[Node, ...] | None:
        """Read count structures of one kind; None, and a violation, when they pass end."""
        size = size_of(cls)
        if start + count * size > end:
            fits = max(0, end - start) // size
            problem = f"{count} of {size} bytes run past the node, {fits} fit"
            self.fail(Rule.COUNT, path, problem, start)
            return None
        nodes = []
        for index in range(count):
            node = self.node(cls, f"{path}[{index}]", start + index * size, end)
            if node is None:
                return None
            nodes.append(node)
        return tuple(nodes)

    def fits(self, cls: type[ByteStructure], path: str, at: int, length: int, end: int) -> bool:
        """Say whether a node of the length it gives can be read, and report why it cannot."""
        place = at + _offset(cls, "length")
        size = size_of(cls)
        if length < size:
            problem = f"{length} bytes, {cls.__name__} takes {size}"
            self.fail(Rule.LENGTH, f"{path}.length", problem, place)
        elif at + size > end:
            self.structure(cls, path, at, end)  # names the first field that is missing
        elif at + length > end:
            problem = f"node of {length} bytes runs past the {self.whole}"
            self.fail(Rule.LENGTH, f"{path}.length", problem, place)
        return length >= size and at + length <= end

    def counted(
        self,
        path: str,
        head: Node,
        start: int,
        end: int,
        read: Callable[[str, int], Node | None],
    ) -> NodeLists:
        """Read the nodes of a table that begins at start and whose fixed part, head, counts them.

        read reads the node at a place. Return what lies before the nodes, the nodes, and the rest.
        """
        behind = head.offset + size_of(type(head.body))
        first = start + head.body.node_offset
        if not behind <= first <= end:
            problem = f"nodes begin at {first - start:#x}, which is not behind the header"
            if first > end:
                problem = f"nodes begin at {first - start:#x}, beyond the table"
            self.fail(Rule.OFFSET, f"{path}.node_offset", problem, head.locate("node_offset"))
            return (head,), (), self.rest(f"{path}.rest", behind, end)
        count: int = head.body.node_count
        nodes: list[Node] = []
        at, broken = first, False
        while at < end and len(nodes) < count and not broken:
            node = read(f"{path}.node[{len(nodes)}]", at)
            if node is None:
                broken = True
            else:
                nodes.append(node)
                at += node.body.length
        if len(nodes) < count and not broken:
            problem = f"{count} nodes announced, {len(nodes)} are there"
            self.note(Rule.COUNT, f"{path}.node_count", problem, head.locate("node_count"))
        elif at < end and not broken:
            problem = f"{end - at} bytes follow the last of {count} nodes"
            self.note(Rule.COUNT, f"{path}.node_count", problem, at)
        lead = (head, *self.rest(f"{path}.padding", behind, first))
        return lead, tuple(nodes), self.rest(f"{path}.rest", at, end)


NodeLists = tuple[tuple[Node, ...], tuple[Node, ...], tuple[Node, ...]]
"""What lies before the nodes of a table, the nodes, and what lies behind them."""


def _make(cls: type[B], data: bytes) -> B:
    return cls(data)


def _offset(cls: type[ByteStructure], wanted: str) -> int:
    at = 0
    for name, size in field_sizes(cls):
        if name == wanted:
            break
        at += size
    return at


def _word(cls: type[ByteStructure]) -> str:
    return "header" if cls.__name__.endswith("Header") else "node"


def read_sequence(
    reading: Reading,
    head_class: type[ByteStructure],
    read_node: Callable[[Reading, str, int, int], Node | None],
    path: str,
    start: int,
    end: int,
) -> NodeLists:
    """Read a table whose nodes follow its fixed part without a gap: that part, nodes, the rest.

    A node says its own length; the first that cannot be read ends them.
    """
    at = start + HEADER_SIZE
    head = reading.node(head_class, path, at, end)
    if head is None:
        return (), (), reading.rest(f"{path}.rest", at, end)
    nodes: list[Node] = []
    at += size_of(head_class)
    while at < end:
        node = read_node(reading, f"{path}.node[{len(nodes)}]", at, end)
        if node is None:
            break
        nodes.append(node)
        at += node.body.length
    return (head,), tuple(nodes), reading.rest(f"{path}.rest", at, end)
