"""Read what several verbs take as the value of an option."""

from __future__ import annotations

import argparse


def number_of_things(text: str) -> int:
    """Return a number of things, as an option gives it."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not 0 <= number < 1 << 48:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number of things")
    return number
