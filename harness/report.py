"""Print what a command found: text for a person, or one JSON object a line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

from decoders.errors import DecodeError

COLOURS = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "dim": "2", "bold": "1"}

T = TypeVar("T")

_PARTS = ("trace.block", "text.event", "text.line")
"""Paths of errors that leave the events before them as they are."""


class Report:
    """Write to standard output in the form that the command line asks for."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.json = bool(args.json)
        self.quiet = bool(args.quiet)
        self._coloured = args.color == "auto" and _wants_colour()

    def emit(self, **members: Any) -> None:
        """Print one JSON object."""
        print(json.dumps(members))

    def line(self, text: str = "") -> None:
        """Print one line of text."""
        print(text)

    def paint(self, text: str, colour: str) -> str:
        """Colour text, where that is wanted."""
        return f"\033[{COLOURS[colour]}m{text}\033[0m" if self._coloured else text

    def heading(self, text: str) -> None:
        """Print a heading, with an empty line before it."""
        print("\n" + self.paint(text, "bold"))

    def table(self, rows: Iterable[Sequence[object]], indent: int = 2) -> None:
        """Print rows in columns: numbers to the right, all else to the left."""
        cells = [[str(cell) for cell in row] for row in rows]
        if not cells:
            return
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            shown = (
                cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
                for cell, width in zip(row, widths, strict=True)
            )
            print((" " * indent + "  ".join(shown)).rstrip())


def trouble_with(path: object, error: Exception, hint: bool = True) -> str:
    """Say what went wrong with a file; the hint is how to get at what is not damaged."""
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    in_part = isinstance(error, DecodeError) and error.path.startswith(_PARTS)
    if hint and in_part:
        text += "; `dmarewind convert` keeps the events before it"
    return text if text.startswith(f"{path}: ") else f"{path}: {text}"


def _wants_colour() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def progress(
    events: Iterable[T], args: argparse.Namespace, total: int | None = None
) -> Iterator[T]:
    """Pass events on; show how many on a terminal when that takes longer than a second."""
    # What is printed to the same terminal would tear the bar apart.
    hidden = args.quiet or not sys.stderr.isatty()
    yield from tqdm(
        events, total=total, unit=" events", unit_scale=True, delay=1, leave=False, disable=hidden
    )
