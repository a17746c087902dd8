"""What made-up software for a VT-d unit consists of: a scene, and steps in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from decoders.events import AccessKind, RegWrite, Store
from decoders.vtd import registers as vtd
from harness.generate.vtd_tables import PAGE
from harness.message import Msi
from harness.model.config import UnitConfig

ALWAYS: Final = ((vtd.IQH.offset, 8),)
"""What is read in every step, beside what says that there are faults."""


@dataclass(frozen=True, slots=True)
class Device:
    """Describe a device that can do DMA: the id it shows, what it can reach, and how.

    One with a TLB of its own (ats) asks for translations instead.
    """

    sid: int
    width: int
    kinds: tuple[AccessKind, ...]
    write_alignment: int
    ats: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """Describe a machine: the unit, DMA devices, the pages that DMA may hit."""

    config: UnitConfig
    devices: Sequence[Device]
    pool_start: int
    pool_pages: int
    avoided: frozenset[str] = frozenset()
    """Ids of known crashes (harness.deviations_vtd) to keep away from."""
    senders: Sequence[int] = ()
    """Source ids of what can send messages."""

    @property
    def ats(self) -> frozenset[int]:
        """Return the source ids of devices with a TLB."""
        return frozenset(device.sid for device in self.devices if device.ats)


@dataclass(frozen=True, slots=True)
class DmaChoice:
    """Ask the device with this index for DMA."""

    device: int
    kind: AccessKind
    iova: int


@dataclass(frozen=True, slots=True)
class Step:
    """Hold stores, the register writes behind them, registers to read, DMA or a message at the end.

    waits are the status writes that were asked for, as address and value.
    """

    label: str
    stores: tuple[Store, ...] = ()
    writes: tuple[RegWrite, ...] = ()
    reads: tuple[tuple[int, int], ...] = ALWAYS
    dma: DmaChoice | None = None
    waits: tuple[tuple[int, int], ...] = ()
    msi: Msi | None = None


def scene_page(scene: Scene, random: Random) -> int:
    """Return a page of the pool, where DMA goes that is not translated."""
    return scene.pool_start + PAGE * random.randrange(scene.pool_pages)
