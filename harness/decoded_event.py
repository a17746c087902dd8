"""What show says of an event: a name, fields, and words where fields alone say too little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Decoded:
    """Hold a name and what stands behind it: fields with their values, and a remark.

    words, where there are any, stand for all of that in text. more are further members in JSON, and
    lines what is printed below the event.
    """

    name: str
    fields: Mapping[str, int] = field(default_factory=dict)
    remark: str = ""
    words: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the words, or the name and the fields that are not zero."""
        if self.words:
            return self.words
        shown = (f"{name}={value:#x}" for name, value in self.fields.items() if value)
        return " ".join([self.name, *shown, *([f"({self.remark})"] if self.remark else [])])

    def plain(self) -> dict[str, Any]:
        """Return everything as an object of plain values."""
        plain: dict[str, Any] = {"name": self.name, "fields": dict(self.fields)}
        return plain | ({"remark": self.remark} if self.remark else {}) | dict(self.more)
