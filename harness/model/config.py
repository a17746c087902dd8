"""What a unit is built from: its capabilities, the machine's RAM, its dialect."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from decoders.layout import layout
from decoders.vtd.registers import Capability, ExtendedCapability, address_width
from harness.memory import DEFAULT_PAGE_BUDGET
from harness.model.dialects import SPECIFICATION, Dialect

DEFAULT_DESCRIPTOR_BUDGET = 1 << 18
"""Invalidation descriptors a trace may have executed, beside some for each of its events.

One write of the queue's tail can set off as many as the ring holds: hostile traces repeat that.
"""

_CAP = layout(Capability).fields
_ECAP = layout(ExtendedCapability).fields


class Updates(IntEnum):
    """Say how a unit fares when it has to set an A or D bit; real ones differ by platform."""

    DONE = 0
    NOT_SNOOPED = 1
    """Its walks are not snooped, and so refused, unless the PASID entry's PWSNP is set."""
    FAILING = 2
    """The atomic operation fails."""

    @property
    def word(self) -> str:
        """Return how a header spells it."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class UnitConfig:
    """Describe one VT-d unit.

    version, capability and extended_capability are the values of VER, CAP and ECAP;
    host_address_width is in bits; memory lists (start, length) of RAM, empty when unknown. The
    budgets bound what a trace may cost: pages of memory, and invalidation descriptors.
    virtual_commands is the offset of VCCAP, a key of decoders.vtd.registers.VIRTUAL_COMMANDS, or 0
    where there is none.
    """

    capability: int
    extended_capability: int
    version: int = 0x10
    host_address_width: int = 46
    memory: tuple[tuple[int, int], ...] = ()
    dialect: Dialect = field(default=SPECIFICATION)
    page_budget: int = DEFAULT_PAGE_BUDGET
    descriptor_budget: int = DEFAULT_DESCRIPTOR_BUDGET
    updates: Updates = Updates.DONE
    virtual_commands: int = 0

    def cap(self, name: str) -> int:
        """Return a field of CAP by its mnemonic."""
        return _CAP[name].get((self.capability,))

    def ecap(self, name: str) -> int:
        """Return a field of ECAP by its mnemonic."""
        return _ECAP[name].get((self.extended_capability,))

    @property
    def guest_address_width(self) -> int:
        """Return MGAW in bits (CAP.MGAW is one less)."""
        return address_width(self.capability)

    @property
    def beyond_host(self) -> int:
        """Return the address bits (51:HAW) that no paging entry may set; 63:52 are not address."""
        return (1 << 52) - (1 << min(self.host_address_width, 52))

    @property
    def beyond_host_pointer(self) -> int:
        """Return the bits (63:HAW) that no pointer in a root, context or PASID entry may set."""
        return (1 << 64) - (1 << min(self.host_address_width, 64))

    def width_supported(self, aw: int) -> bool:
        """Say whether CAP.SAGAW offers an AW code (1: 39 bits, 2: 48, 3: 57)."""
        return 1 <= aw <= 3 and bool(self.cap("sagaw") >> aw & 1)

    @property
    def widest(self) -> int:
        """Return the largest AW code CAP.SAGAW offers."""
        return max((aw for aw in (1, 2, 3) if self.width_supported(aw)), default=0)
