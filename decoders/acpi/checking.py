"""Tools of the validator: a list of violations, intervals, and what holds for every structure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from decoders.acpi.tree import Node, Rule, Table, Violation
from decoders.bytewise import bits_of, field_sizes, number

MOST_COMPARISONS: Final = 1 << 20
"""Pairs of ranges that are compared in one table."""


@dataclass(frozen=True, slots=True)
class Span:
    """Place a range of ids or addresses (last included) and name the field that it comes from."""

    first: int
    last: int
    path: str
    offset: int


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Place a range in two dimensions, such as PCI segments and functions (last included)."""

    outer: tuple[int, int]
    inner: tuple[int, int]
    path: str
    offset: int

    def meets(self, other: Rectangle) -> bool:
        """Say whether the two have something in common."""
        return (
            self.outer[0] <= other.outer[1]
            and other.outer[0] <= self.outer[1]
            and self.inner[0] <= other.inner[1]
            and other.inner[0] <= self.inner[1]
        )


def union(rectangles: Iterable[Rectangle]) -> list[Rectangle]:
    """Join rectangles of the same outer range where their inner ones meet or touch."""
    joined: list[Rectangle] = []
    for rectangle in sorted(rectangles, key=lambda r: (r.outer, r.inner)):
        last = joined[-1] if joined else None
        if last and last.outer == rectangle.outer and rectangle.inner[0] <= last.inner[1] + 1:
            inner = last.inner[0], max(last.inner[1], rectangle.inner[1])
            joined[-1] = replace(last, inner=inner)
        else:
            joined.append(rectangle)
    return joined


class Checks:
    """Collect violations of one table; start is where it begins in the data."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.start = table.offset
        self.violations: list[Violation] = []
        self._comparisons = MOST_COMPARISONS

    def add(self, rule: Rule, path: str, problem: str, offset: int) -> None:
        """Report a violation."""
        self.violations.append(Violation(rule, path, problem, offset))

    def field(self, rule: Rule, node: Node, name: str, problem: str) -> None:
        """Report a violation of one field."""
        self.add(rule, f"{node.path}.{name}", problem, node.locate(name))

    def node(self, rule: Rule, node: Node, problem: str) -> None:
        """Report a violation of a whole structure."""
        self.add(rule, node.path, problem, node.offset)

    def reserved(self, node: Node) -> None:
        """Report reserved bytes and bits that are not zero."""
        for name, _ in field_sizes(type(node.body)):
            value = number(node.body.getfieldval(name))
            if name.startswith("reserved") and value:
                self.field(Rule.RESERVED, node, name, f"{value:#x} in a reserved field")
        for name in node.body.bits:
            stray, low = 0, 0
            for (column, width), (_, value) in zip(
                node.body.bits[name], bits_of(node.body, name), strict=True
            ):
                stray |= value << low if column == "reserved" else 0
                low += width
            if stray:
                self.field(Rule.RESERVED, node, name, f"reserved bits {stray:#x} are set")

    def overlaps(self, spans: Iterable[Span], what: str) -> None:
        """Report each range that has something in common with one that begins before it."""
        furthest: Span | None = None
        for span in sorted(spans, key=lambda span: (span.first, span.offset)):
            if furthest is not None and span.first <= furthest.last:
                common = f"{span.first:#x} to {min(span.last, furthest.last):#x}"
                problem = f"{what} {common} are in {furthest.path} as well"
                self.add(Rule.OVERLAP, span.path, problem, span.offset)
            if furthest is None or span.last > furthest.last:
                furthest = span

    def rectangles(self, rectangles: Iterable[Rectangle], what: str) -> None:
        """Report each rectangle with the first one that it meets."""
        ordered = sorted(rectangles, key=lambda r: (r.outer[0], r.offset))
        open_ones: list[Rectangle] = []
        for rectangle in ordered:
            open_ones = [o for o in open_ones if o.outer[1] >= rectangle.outer[0]]
            self._comparisons -= len(open_ones)
            if self._comparisons < 0:
                problem = f"more than {MOST_COMPARISONS} pairs of ranges to compare"
                self.add(Rule.BOUND, self.table.path, problem, rectangle.offset)
                return
            met = next((o for o in open_ones if rectangle.meets(o)), None)
            if met is not None:
                problem = f"{what} are in {met.path} as well"
                self.add(Rule.OVERLAP, rectangle.path, problem, rectangle.offset)
            open_ones.append(rectangle)
