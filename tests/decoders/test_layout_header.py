"""The committed C++ and C headers say what the Scapy classes say."""

from __future__ import annotations

from decoders.layout import layout
from tools import generate_layout

KEYWORDS = {"and", "bool", "case", "do", "for", "if", "int", "not", "or", "register", "this", "xor"}


def test_the_committed_header_is_not_stale() -> None:
    stored = generate_layout.HEADER.read_text(encoding="utf-8")
    assert stored == generate_layout.header(), "run: python -m tools.generate_layout"


def test_the_recorders_header_is_not_stale() -> None:
    stored = generate_layout.RECORDER_HEADER.read_text(encoding="utf-8")
    assert stored == generate_layout.recorder_header(), "run: python -m tools.generate_layout"


def test_the_headers_fit_100_columns() -> None:
    for text in (generate_layout.header(), generate_layout.recorder_header()):
        assert max(len(line) for line in text.splitlines()) <= 100


def test_no_field_is_a_keyword() -> None:
    names = {name for cls in generate_layout.structures() for name in layout(cls).fields}
    assert not names & KEYWORDS
