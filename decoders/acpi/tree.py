"""What a decoded table is made of: nodes with their place, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from decoders.bytewise import ByteStructure, encode, field_sizes


class Rule(StrEnum):
    """Classify a violation."""

    TRUNCATED = "truncated"
    LENGTH = "length"
    COUNT = "count"
    OFFSET = "offset"
    BOUND = "bound"
    CHECKSUM = "checksum"
    REVISION = "revision"
    RESERVED = "reserved"
    UNKNOWN_TYPE = "unknown-type"
    VALUE = "value"
    ALIGNMENT = "alignment"
    RANGE = "range"
    OVERLAP = "overlap"
    DUPLICATE = "duplicate"
    DANGLING = "dangling"
    SELF_REFERENCE = "self-reference"
    ORDER = "order"
    UNTERMINATED = "unterminated"
    TRAILING = "trailing"


@dataclass(frozen=True, slots=True)
class Violation:
    """Report one violation.

    path and offset say where (offset from the start of the outermost table). After a fatal one
    the rest of the structure around it cannot be decoded.
    """

    rule: Rule
    path: str
    problem: str
    offset: int
    fatal: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}, at offset {self.offset:#x}"


@dataclass(frozen=True, slots=True)
class Located:
    """Say where a field is and what it holds."""

    path: str
    offset: int
    size: int
    value: int | bytes


B = TypeVar("B", bound=ByteStructure)


@dataclass(frozen=True, slots=True)
class Node:
    """Place one structure: its fixed part and the parts that follow it.

    offset counts from the start of the outermost table.
    """

    path: str
    offset: int
    body: ByteStructure
    parts: tuple[Node, ...] = ()

    @property
    def kind(self) -> str:
        """Return the name of the structure."""
        return type(self.body).__name__

    def of(self, cls: type[B]) -> Iterator[tuple[Node, B]]:
        """Yield the parts of one kind, each with its fixed part."""
        for part in self.parts:
            if isinstance(part.body, cls):
                yield part, part.body

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it, in the order of their bytes."""
        yield self
        for part in self.parts:
            yield from part.walk()

    def locate(self, name: str) -> int:
        """Return the offset of a field."""
        at = self.offset
        for field_name, size in field_sizes(type(self.body)):
            if field_name == name:
                return at
            at += size
        raise KeyError(name)

    def located(self) -> Iterator[Located]:
        """Yield every field of the fixed part."""
        at = self.offset
        for name, size in field_sizes(type(self.body)):
            value = self.body.getfieldval(name)
            size = size or len(value)
            yield Located(f"{self.path}.{name}", at, size, value)
            at += size

    def encode(self) -> bytes:
        """Return the bytes of the node and of its parts."""
        return encode(self.body) + b"".join(part.encode() for part in self.parts)


@dataclass(frozen=True, slots=True)
class Table:
    """Hold a decoded table.

    lead is the header with the fixed part of the table and what lies before the nodes, tail what
    lies behind them. A draft VIOT has no nodes but an inner table. faults are the violations met
    while it was read; a table with a fatal one is incomplete, its rest is kept undecoded.
    """

    signature: str
    path: str
    offset: int
    lead: tuple[Node, ...]
    nodes: tuple[Node, ...] = ()
    tail: tuple[Node, ...] = ()
    inner: Table | None = None
    faults: tuple[Violation, ...] = field(default=(), compare=False)

    def walk(self) -> Iterator[Node]:
        """Yield every node at any depth, in the order of their bytes."""
        for node in self.lead:
            yield from node.walk()
        if self.inner is not None:
            yield from self.inner.walk()
        for node in (*self.nodes, *self.tail):
            yield from node.walk()

    def of(self, cls: type[B]) -> Iterator[tuple[Node, B]]:
        """Yield the nodes of one kind, each with its fixed part."""
        for node in self.nodes:
            if isinstance(node.body, cls):
                yield node, node.body

    def head(self, cls: type[B]) -> B | None:
        """Return the header, or the fixed part of the table, if there is one."""
        for node in self.lead:
            if isinstance(node.body, cls):
                return node.body
        return None

    def located(self) -> Iterator[Located]:
        """Yield every field at any depth, in the order of their bytes."""
        for node in self.walk():
            yield from node.located()

    def encode(self) -> bytes:
        """Return the bytes of the table, made from its fields."""
        return b"".join(
            [
                *(node.encode() for node in self.lead),
                b"" if self.inner is None else self.inner.encode(),
                *(node.encode() for node in (*self.nodes, *self.tail)),
            ]
        )
