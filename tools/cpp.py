"""Write C++ declarations for the generated headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import IntEnum, IntFlag
from typing import Final

COLUMNS: Final = 100


def snake(name: str) -> str:
    """Return a name of words that begin with a capital as words joined by underscores."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def array(head: str, values: list[str]) -> Iterator[str]:
    """Declare an array, on one line when it fits and else one value a line."""
    line = f"{head} = {{{', '.join(values)}}};"
    if len(line) <= COLUMNS:
        yield line
        return
    indent = head[: len(head) - len(head.lstrip())]
    yield f"{head} = {{"
    yield from (f"{indent}    {value}," for value in values)
    yield f"{indent}}};"


def enum(name: str, base: str, values: Iterable[tuple[str, int]], code: str) -> Iterator[str]:
    """Declare an enumeration; code is how its numbers are written."""
    yield f"enum class {name} : std::{base} {{"
    for key, value in values:
        yield f"    {key} = {value:{code}},"
    yield "};"


def members(numbers: type[IntEnum | IntFlag]) -> list[tuple[str, int]]:
    """Return the names and numbers of an enumeration."""
    return [(str(member.name).lower(), int(member)) for member in numbers]
