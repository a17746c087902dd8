"""The words that lines of the text form are made of (docs/design.md, section 4)."""

from __future__ import annotations

import re

from harness.trace.checks import FieldError

_HEX = re.compile("0x([0-9a-fA-F]{1,16})")
_DECIMAL = re.compile("[0-9]{1,20}")
_SID = re.compile("([0-9a-f]{1,2}):([01]?[0-9a-f])[.]([0-7])", re.IGNORECASE)

Words = list[str]


def format_sid(sid: int) -> str:
    """Return a source id as bus:device.function, a wider endpoint id as a number."""
    if sid >> 16:
        return f"{sid:#x}"
    return f"{sid >> 8:02x}:{sid >> 3 & 0x1F:02x}.{sid & 7}"


def parse_sid(text: str) -> int:
    """Return the source id that bus:device.function, or a number with 0x, stands for.

    Errors: ValueError.
    """
    plain = _HEX.fullmatch(text)
    if plain is not None:
        return int(plain[1], 16)
    match = _SID.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r:.40} is not bus:device.function")
    bus, device, function = (int(group, 16) for group in match.groups())
    return bus << 8 | device << 3 | function


def split(rest: str, names: str) -> Words:
    """Return the words of a line, as many as there are names."""
    words = rest.split()
    wanted = names.split()
    if len(words) != len(wanted):
        raise FieldError("", f"{len(words)} words, not {len(wanted)} ({names})")
    return words


def hexadecimal(word: str, name: str) -> int:
    """Return the number in a word of hexadecimal digits behind 0x."""
    match = _HEX.fullmatch(word)
    if match is None:
        raise FieldError(name, f"{word!r:.40} is not a 64-bit number in hexadecimal with 0x")
    return int(match[1], 16)


def decimal(word: str, name: str) -> int:
    """Return the number in a word of decimal digits."""
    if not _DECIMAL.fullmatch(word):
        raise FieldError(name, f"{word!r:.40} is not a decimal number")
    return int(word)


def choice(choices: dict[str, int], word: str, name: str) -> int:
    """Return the number that one of several words stands for."""
    if word not in choices:
        raise FieldError(name, f"{word!r:.40} is none of {' '.join(choices)}")
    return choices[word]


def source_id(word: str, name: str) -> int:
    """Return the source id in a word."""
    try:
        return parse_sid(word)
    except ValueError as error:
        raise FieldError(name, str(error)) from error
