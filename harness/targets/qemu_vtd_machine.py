"""Which machine a recording of a VT-d unit needs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from decoders.events import Access, Event, Snapshot, Store, Translation
from harness.errors import HarnessError
from harness.memory import PAGE_SIZE
from harness.model.config import UnitConfig
from harness.qemu.pc import is_ram, ram_size_for
from harness.qemu.vtd_copy import Wanted, possible
from harness.targets.qemu_vtd_access import page_of

LEAST_ADDRESS: Final = (512 << 20) - 1
"""How far RAM reaches at least where a recording does not say."""

_LEAST: Final = (2 << 20) - 1
"""How far RAM reaches at least where it does."""


def wanted_for(config: UnitConfig, sources: Collection[int], last_address: int) -> Wanted:
    """Return the machine that a recording needs: RAM where it was, else as far as it is used.

    Errors: HarnessError where it had some that no machine with the rest has.
    """
    unit = config.capability, config.extended_capability, frozenset(sources)
    ends = [start + length - 1 for start, length in config.memory]
    if not ends:
        return Wanted(*unit, max(last_address, LEAST_ADDRESS), False)
    size = ram_size_for(ends[-1]) or 0
    for end in ends:
        if size and not is_ram(end, size):
            raise HarnessError(
                f"the recording has RAM at {end:#x} and at {ends[-1]:#x}: a q35 that has the one "
                "has not the other"
            )
    return Wanted(*unit, max(ends[-1], _LEAST), True)


def last_address(event: Event) -> int:
    """Return the last address of RAM that an event needs.

    Where an access led counts only as far as a machine can have RAM.
    """
    match event:
        case Store(address, size):
            return address + size - 1
        case Snapshot(address):
            return address + PAGE_SIZE - 1
        case Access(iova=iova, outcome=Translation() as outcome):
            page = page_of(outcome, iova)
            return page if possible(page) else 0
        case _:
            return 0
