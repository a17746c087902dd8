"""Checks that every field of an event passes on its way into a trace or out of one."""

from __future__ import annotations

from typing import TypeVar

from decoders.errors import DecodeError

PAGE = 4096

U8, U16, U20, U32, U64 = ((1 << bits) - 1 for bits in (8, 16, 20, 32, 64))
_SIZES = (1, 2, 4, 8)

REASON_LIMIT = 4096  # bytes of a Gap's reason
REQUEST_LIMIT = 4096  # bytes of a request that a device reads
ANSWER_LIMIT = 1 << 16  # bytes that it writes
CONFIG_LIMIT = 4096  # bytes of a config space
REGIONS_LIMIT = 64  # reserved regions of an endpoint

T = TypeVar("T")


class FieldError(ValueError):
    """Report which field of one event is wrong, for a caller who knows where the event stands."""

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        self.problem = problem
        super().__init__(f"{field}: {problem}" if field else problem)

    def at(self, path: str, offset: int | None = None, unit: str = "offset") -> DecodeError:
        """Give the same report with its place: path names the event, offset where it lies."""
        full = f"{path}.{self.field}" if self.field else path
        return DecodeError(full, self.problem, offset, unit)


def describe(value: object) -> str:
    """Say what stands where something of another type should."""
    return "absent" if value is None else f"of type {type(value).__name__}"


def number(value: object, limit: int, name: str) -> int:
    """Return a number within 0..limit."""
    # bool is a child of int, and msgpack has a type of its own for it.
    if type(value) is not int:
        raise FieldError(name, f"is {describe(value)}, not a number")
    if not 0 <= value <= limit:
        raise FieldError(name, f"{value:#x} is not within 0..{limit:#x}")
    return value


def octets(value: object, limit: int, name: str) -> bytes:
    """Return up to limit bytes."""
    if type(value) is not bytes:
        raise FieldError(name, f"is {describe(value)}, not bytes")
    if len(value) > limit:
        raise FieldError(name, f"has {len(value)} bytes, the limit is {limit}")
    return value


def width(size: object) -> int:
    """Return the size of a store or register access: 1, 2, 4 or 8 bytes."""
    if type(size) is not int or size not in _SIZES:
        raise FieldError("size", f"{size!r:.40} is not 1, 2, 4 or 8")
    return size


def sized(size: object, value: object) -> tuple[int, int]:
    """Return the size of an access, and a value that fits it."""
    most, found = width(size), number(value, U64, "value")
    if found >> (8 * most):
        raise FieldError("value", f"{found:#x} does not fit into {most} bytes")
    return most, found


def page(address: object) -> int:
    """Return the address of a page."""
    start = number(address, U64, "address")
    if start % PAGE:
        raise FieldError("address", f"{start:#x} is not the start of a page")
    return start


def member(choices: dict[int, T], value: object, name: str) -> T:
    """Return the member of an enumeration that a number stands for."""
    if type(value) is not int or value not in choices:
        raise FieldError(name, f"{value!r:.40} is not known")
    return choices[value]
