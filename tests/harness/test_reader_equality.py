"""Both engines read the same events: each field with what it may and may not hold, in each form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest

from decoders.errors import DecodeError
from decoders.events import TAGS
from harness.model.config import UnitConfig
from harness.model.virtio.config import DEFAULT_CONFIG, DEFAULT_FEATURES, VirtioConfig
from harness.native import NativeReplay, NativeVirtioReplay, available
from harness.targets.model import ModelReplay
from harness.targets.virtio_model import VirtioModelReplay
from harness.trace import Block
from harness.trace.checks import ANSWER_LIMIT, CONFIG_LIMIT, PAGE, REASON_LIMIT, REQUEST_LIMIT

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

Engines = tuple[Callable[[], Any], Callable[[], Any]]
UNIT = UnitConfig(0x22 << 24, 0x0F << 8)
DEVICE = VirtioConfig(DEFAULT_FEATURES, DEFAULT_CONFIG, True)
VTD: Engines = (lambda: ModelReplay(UNIT), lambda: NativeReplay(UNIT))
VIRTIO: Engines = (lambda: VirtioModelReplay(DEVICE), lambda: NativeVirtioReplay(DEVICE))

SOUND: tuple[list[Any], ...] = (
    [1, 0x20, 8, 0x1234400],
    [2, 0x1C, 4, None],
    [2, 0x1C, 4, 0x80000000],
    [3, 0x1008, 8, 0x3003],
    [4, 0x1000, 5, 1, b"\xab\xcd"],
    [5, 0x1000],
    [6, [0x12, 0]],
    [6, [0x12, 0, 0, 0]],
    [7, 0x18, 0x12, 0xF000, 1, [0x2000, 0xFFF]],
    [7, 0x18, None, 0xF000, 2, 6],
    [7, 0x18, None, 0xF000, 0, None, 5],
    [8, 0, 1, 0xC000000600000018],
    [9, 0x10, 2],
    [10, 0xFEE01004, 0x21],
    [11],
    [12, 5],
    [13, "why"],
    [14, b"\1\0\0\0", 4, None],
    [14, b"\1\0\0\0", 4, b"\0\0\0\0"],
    [15, 1, 0x100, 8, 0x1000],
    [16, 0x7F, 0x41],
    [17, b"\0" * 40],
    [18],
    [19, 8, [[1, 0xFEE00000, 0xFEEFFFFF], [0, 0, 0]]],
    [20, 0x18, 0xFEE00010, 0, [0xFEE01004, 0x21]],
    [20, None, 0xFEE00010, 0, [0x1040, 0x31, 1]],
    [20, 0x18, 0xFEE00010, 0, 0x22],
    [21, 0x18, 0x12, 0x1000, 0x13, 5],
    [22, 0x20, [1, 2, 3, 4]],
    [23, 0x18, None, 5, 15],
    [24, 0x18, 0x12, 0x2000, 0x1FFF, 0],
    [24, 0x18, None, 0x2000, 0x1FFF, 1],
)
"""At least one event of each kind; each of their fields is then given other values."""

NUMBERS = sorted(
    {0, 1, 2, 3, 6, 7, 8, 0x7FF, 0xFFC, 0xFFF, 0x1001, 0x2FFF, 1 << 31, (1 << 64) - 1 - 0xFFF}
    | {(1 << bits) - less for bits in (4, 5, 8, 9, 16, 20, 32, 63, 64) for less in (0, 1)}
    - {1 << 64}
)
OTHERS: tuple[Any, ...] = (
    *(None, True, -1, 1.5, "", "text", b"", b"\0" * 5, [], [0], [1, 2], [0, 1, 2], [[0, 1, 0]]),
    *([0] * 4, [None] * 3, [64, 255, 0], [64, 256, 0], [64, 0, 2], [32, 0, 0], [0, 1 << 32], {}),
    *([0] * 64, [0] * 65, [[0, 0, 0]] * 64, [[0, 0, 0]] * 65, [[256, 0, 0]], [[0, 5, 4]], [7]),
    *(bytes(limit + more) for limit in (PAGE, REQUEST_LIMIT, CONFIG_LIMIT) for more in (0, 1)),
    *("a" * REASON_LIMIT, "é" * (REASON_LIMIT // 2) + "a"),
    bytes(ANSWER_LIMIT + 1),
)
TEXTS = (
    *(b"\x7f", b"\x80", b"\xbf", b"\xc1\x81", b"\xc2", b"\xc2\x80", b"\xc3\x28", b"\xdf\xbf"),
    *(b"\xe0\x9f\xbf", b"\xe0\xa0\x80", b"\xe2\x82", b"\xe2\x28\xa1", b"\xed\x9f\xbf"),
    *(b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xee\x80\x80", b"\xef\xbf\xbf", b"\xf0\x8f\xbf\xbf"),
    *(b"\xf0\x90\x80\x80", b"\xf0\x90\x80", b"\xf0\x90\x28\x80", b"\xf4\x8f\xbf\xbf"),
    *(b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff", b"a\xe2\x82\xacb\xf0\x9f\x98\x80c"),
)
"""Each first byte, length and bound of UTF-8 (RFC 3629), kept and broken."""


def alternatives(value: Any) -> Iterator[Any]:
    """Yield an array with one member replaced, at any depth, or with one more or less."""
    if not isinstance(value, list):
        return
    for at, member in enumerate(value):
        for other in (*NUMBERS, *OTHERS):
            yield [*value[:at], other, *value[at + 1 :]]
        for other in alternatives(member):
            yield [*value[:at], other, *value[at + 1 :]]
    for at in range(len(value)):
        yield value[:at] + value[at + 1 :]
    yield [*value, 0]


def headed(first: int, sizes: tuple[int, ...], length: int, content: bytes) -> Iterator[bytes]:
    """Yield content behind a length of each size that can hold it."""
    for number, size in enumerate(sizes):
        if length < 1 << 8 * size:
            yield bytes([first + number]) + length.to_bytes(size, "big") + content


def forms(value: Any) -> Iterator[bytes]:
    """Yield what msgpack may write for a value: the shortest form, then the others."""
    yield msgpack.packb(value, use_bin_type=True)
    match value:
        case int():
            yield from headed(0xCC, (1, 2, 4, 8), value, b"")
            yield from headed(0xD0, (1, 2, 4, 8), value, b"")
        case str():
            yield from headed(0xD9, (1, 2, 4), len(value.encode()), value.encode())
        case bytes():
            yield from headed(0xC4, (1, 2, 4), len(value), value)
        case list():
            for at, member in enumerate(value):
                before, behind = (
                    b"".join(map(msgpack.packb, part)) for part in (value[:at], value[at + 1 :])
                )
                for form in forms(member):
                    yield bytes([0x90 | len(value)]) + before + form + behind
            yield from headed(0xDC, (2, 4), len(value), b"".join(map(msgpack.packb, value)))


def ends(engines: Engines, raw: bytes) -> list[tuple[bool, int]]:
    """Return whether each engine refuses a block, and how many events it took before."""
    found = []
    for engine in engines:
        replay, refused = engine(), False
        try:
            replay.feed(Block(0, 1, raw))
        except DecodeError:
            refused = True
        found.append((refused, replay.counters().events))
    return found


@pytest.mark.parametrize("engines", [VTD, VIRTIO], ids=["vtd", "virtio-iommu"])
@pytest.mark.parametrize("sound", SOUND, ids=str)
def test_every_field_with_other_values(engines: Engines, sound: list[Any]) -> None:
    refused = 0
    assert ends(engines, msgpack.packb(sound)) == [(False, 1)] * 2
    for array in alternatives(sound):
        model, native = ends(engines, msgpack.packb(array))
        assert model == native, f"{array!r:.200}"
        refused += model[0]
    assert refused > 10


@pytest.mark.parametrize("sound", SOUND, ids=str)
def test_every_form_and_every_cut(sound: list[Any]) -> None:
    for raw in forms(sound):
        for end in range(1, len(raw) + 1):
            model, native = ends(VTD, raw[:end])
            assert model == native, raw[:end].hex()


def test_texts() -> None:
    accepted = 0
    for text in TEXTS:
        model, native = ends(VTD, b"\x92\x0d" + bytes([0xA0 | len(text)]) + text)
        assert model == native, text
        accepted += not model[0]
    assert accepted == 10, "as many of them are text"


def test_every_kind_is_tried() -> None:
    assert {array[0] for array in SOUND} == set(TAGS)
