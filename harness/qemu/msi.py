"""Devices that send a message-signalled interrupt when a register write asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from harness.qemu import qtest
from harness.qemu.pc import Pc
from harness.qemu.pci import Function, Ports

MSI: Final = 5
"""Id of the capability."""

_CONTROL, _ADDRESS, _UPPER, _DATA = 2, 4, 8, 12
"""Offsets in a capability with 64-bit addresses (PCI 3.0, 6.8.1)."""

_ENABLE: Final = 1


class Edu:
    """Use QEMU's educational device: a write to register 0x60 raises its interrupt."""

    ids: Final = (0x1234, 0x11E8)
    _RAISE: Final = 0x60

    def __init__(self, function: Function) -> None:
        self.function = function
        self._capability = dict(function.capabilities)[MSI]
        self._now: tuple[int, int] | None = None

    def enable(self, config: Ports) -> None:
        """Let messages go out, now and once PCI is set up again after a reset."""
        config.store(self.function.number, self._capability + _CONTROL, 2, _ENABLE)

    def reset(self) -> None:
        """Take note of a reset of the system."""
        self._now = None

    def lines(self, address: int, data: int) -> Sequence[str]:
        """Return the commands that send a message."""
        number, at = self.function.number, self._capability
        found: list[str] = []
        now = self._now or (-1, -1)
        if address != now[0]:
            found += Ports.write(number, at + _ADDRESS, 4, address & 0xFFFF_FFFF)
            found += Ports.write(number, at + _UPPER, 4, address >> 32)
        if data != now[1]:
            found += Ports.write(number, at + _DATA, 2, data)
        self._now = address, data
        return (*found, qtest.store(self.function.bars[0] + self._RAISE, 4, 1))


def senders(pc: Pc) -> list[Edu]:
    """Return the devices of a PC that send messages, made ready."""
    found = [Edu(function) for function in pc.setup.find(*Edu.ids)]
    for sender in found:
        sender.enable(pc.config)
    return found
