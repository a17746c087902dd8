"""The committed C++ and C headers say what the Scapy classes say."""

from __future__ import annotations

from decoders.bytewise import field_sizes
from decoders.layout import layout
from decoders.virtio_iommu.constants import FaultFlag
from tools import generate_layout, generate_virtio_layout

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
    virtio = generate_virtio_layout.virtio_structures()
    names |= {name for cls in virtio for name, _ in field_sizes(cls)}
    assert not names & KEYWORDS


def test_all_flags_are_those_that_have_a_name() -> None:
    text = generate_layout.header()
    expected = FaultFlag.READ | FaultFlag.WRITE | FaultFlag.EXEC | FaultFlag.ADDRESS
    found = text[text.index("struct FaultFlag") :].split("};")[0]
    assert f"all = {int(expected):#x};" in found
