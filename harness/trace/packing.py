"""The bounded use of msgpack, in one place.

Every length a message may claim is checked by the unpacker before it allocates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack

from harness.trace.checks import ANSWER_LIMIT, REASON_LIMIT, REGIONS_LIMIT


class Packer:
    """Pack values one after another, reusing one buffer."""

    def __init__(self) -> None:
        self._packer = msgpack.Packer(use_bin_type=True, strict_types=True)

    def pack(self, value: object) -> bytes:
        """Return value as msgpack.

        Errors: ValueError, TypeError or OverflowError for what msgpack cannot hold.
        """
        packed: bytes = self._packer.pack(value)
        return packed


class Unpacker:
    """Iterate over the messages in raw, none with a map, an extension or more than an answer in it.

    Iteration ends quietly where the last complete message ends; ``position`` says where.
    Errors: ValueError (msgpack's own are children of it) for a message out of bounds.
    """

    def __init__(self, raw: bytes) -> None:
        self._unpacker = msgpack.Unpacker(
            max_buffer_size=max(len(raw), 1),
            max_array_len=REGIONS_LIMIT,
            max_bin_len=ANSWER_LIMIT,
            max_str_len=REASON_LIMIT,
            max_map_len=0,
            max_ext_len=0,
        )
        self._unpacker.feed(raw)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._unpacker)

    @property
    def position(self) -> int:
        """Offset in raw just after the last message that was returned."""
        told: int = self._unpacker.tell()
        return told

    def array_header(self) -> int:
        """Read the head of an array and return the number of its members, whatever it claims.

        Errors: ValueError.
        """
        try:
            length: int = self._unpacker.read_array_header()
        except msgpack.OutOfData as error:  # not a ValueError, unlike its siblings
            raise ValueError("array is cut short") from error
        return length


def unpack_map(raw: bytes, *, members: int, containers: int) -> Any:
    """Return the one message in raw: at most so many lists and maps, of so many members each.

    Errors: ValueError when raw is not exactly one message or exceeds a bound.
    """
    left = containers

    def count(container: Any) -> Any:
        # An empty list takes one byte in raw and sixty in memory.
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {containers} lists and maps")
        return container

    try:
        return msgpack.unpackb(
            raw,
            list_hook=count,
            object_hook=count,
            max_array_len=members,
            max_map_len=members,
            max_str_len=len(raw),
            max_bin_len=0,
            max_ext_len=0,
        )
    except msgpack.OutOfData as error:  # not a ValueError, unlike its siblings
        raise ValueError("message is cut short") from error
