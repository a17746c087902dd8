"""What a device that sends message-signalled interrupts is asked for, made up or real."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Msi:
    """Ask the sender with this index for a message: data has 16 bits, address is aligned."""

    sender: int
    address: int
    data: int
