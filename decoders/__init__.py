"""Bytes to typed things: events, wire formats and capture formats. Holds no state."""

from decoders.errors import DecodeError

__all__ = ["DecodeError"]
