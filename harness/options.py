"""Read what several verbs take as the value of an option."""

from __future__ import annotations

import argparse
from typing import Final

MOST_SECONDS: Final = 86_400.0


def add_deviations(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Declare --no-deviations; more is said in its help."""
    parser.add_argument(
        "--deviations",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="accept what a QEMU is known to do otherwise than the specification says" + more,
    )


def number_of_things(text: str) -> int:
    """Return a number of things, as an option gives it."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not 0 <= number < 1 << 48:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number of things")
    return number


def seconds(text: str) -> float:
    """Return a time in seconds, as an option gives it: more than none, a day at most."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a time in seconds")
    return number
