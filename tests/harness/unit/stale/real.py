"""A real QEMU's VT-d under the same tests: where a device's write lands says what was served."""

from __future__ import annotations

from dataclasses import dataclass, field

from decoders.events import AccessKind, RegWrite, Store
from harness.differential.machine import unit_config
from harness.model.dialects import SPECIFICATION
from harness.qemu.vtd import Dma, VtdQemu
from tests.harness.unit.stale.changes import (
    CHANGES,
    CONTEXTS,
    FIRST_LEAF,
    PASID_ENOUGH,
    PASIDS,
    SCALABLE_CONTEXT_ENOUGH,
    SECOND_LEAF,
    SOURCE,
    TRANSLATIONS,
)
from tests.harness.unit.stale.invalidations import Done
from tests.writers.platform import PAGE, Platform

_UP_TO_10 = (10, 99)
_BY_PASID = frozenset({"of the PASID"})


def qemu_forgets(name: str, done: Done, version: tuple[int, ...]) -> bool:
    """Say whether a QEMU gives the new answer after invalidations, which may be too few.

    Compared with QEMU 10.0.2 and 11.1.3, by this. Their IOTLB has leaves only, so IH spares
    nothing; context entries go whatever domain is named; the PASID entry is read again for each
    translation that is not in the IOTLB; "of the PASID" drops second-stage translations, too. What
    passes through has no IOTLB: the entry is looked at when something makes QEMU set up the
    device's address space again.
    """
    given = dict(done)
    old = version[:2] <= _UP_TO_10
    enough = {
        CONTEXTS: SCALABLE_CONTEXT_ENOUGH,
        PASIDS: PASID_ENOUGH,
        TRANSLATIONS: FIRST_LEAF
        if CHANGES[name].unit == "first-stage"
        else SECOND_LEAF | _BY_PASID,
    }
    dropped = {cache for cache, one in given.items() if one in enough[cache]}
    if name == "to pass-through":
        # Up to 10.0 the PASID entry is looked at even before the IOTLB.
        return old or bool(dropped)
    if name == "from pass-through":
        # Up to 10.0 an invalidation of PASID entries does not make QEMU look at it.
        return CONTEXTS in dropped or (PASIDS in dropped and not old)
    return set(CHANGES[name].needs) - {PASIDS} <= dropped


@dataclass
class RealUnit:
    """Do what a platform does on a QEMU; stores go there with the next register write."""

    qemu: VtdQemu
    event: int = 0
    _stores: list[Store] = field(default_factory=list)

    def store(self, address: int, size: int, value: int) -> None:
        """Store to guest memory."""
        self._stores.append(Store(address, size, value))

    def load(self, address: int, length: int) -> bytes:
        """Return guest memory."""
        self._do(())
        return self.qemu.memory(address, length)

    def write_register(self, offset: int, size: int, value: int) -> None:
        """Write to the unit."""
        self._do((RegWrite(offset, size, value),))

    def landed(self, iova: int) -> int | None:
        """Let the device write; return the page of the pool that it reached, if any."""
        device = next(
            number for number in range(len(self.qemu.devices)) if self.qemu.sid(number) == SOURCE
        )
        stores, self._stores = self._stores, []
        seen = self.qemu.step(stores, (), (), Dma(device, AccessKind.WRITE, iova))
        return seen.landed[0][0] & -PAGE if seen.landed else None

    def _do(self, writes: tuple[RegWrite, ...]) -> None:
        stores, self._stores = self._stores, []
        if stores or writes:
            self.qemu.step(stores, writes, (), None)


def platform_of(qemu: VtdQemu) -> Platform:
    """Return a platform around a QEMU that was just reset."""
    qemu.reset()
    unit = RealUnit(qemu)
    return Platform(unit, unit_config(qemu, SPECIFICATION))  # type: ignore[arg-type]
