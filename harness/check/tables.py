"""Watch the tables in memory: what stores make of entries, and which of them a unit can reach."""

from __future__ import annotations

from dataclasses import dataclass

from decoders.events import Role, Snapshot, Store
from harness.check.entries import (
    SIZES,
    STRUCTURES,
    children,
    entry_faults,
    is_present,
)
from harness.check.rules import Notebook, Rule
from harness.memory import PAGE_SIZE
from harness.model.lookup import CONTEXT, PASID, SCALABLE_CONTEXT, TTM_SCALABLE
from harness.model.unit import VtdUnit

PRESENT_EARLY = Rule(
    "present-set-early",
    "VT-d 9.3, 9.6; Linux sets the bit last (context_set_present, pasid_set_present)",
    "An entry of several quadwords is written by several stores, and the unit may read it between "
    "any two. The present bit has to be set by the last one; here another quadword that decides "
    "where requests go follows it.",
)
CLEARED_LATE = Rule(
    "present-cleared-late",
    "VT-d 9.3, 9.6; Linux clears the quadword with the bit first (context_clear_entry)",
    "An entry of several quadwords that is taken back loses its present bit first. Here another "
    "quadword that decides where requests go was changed while the entry was still present: until "
    "the bit was cleared the unit could read half of one entry and half of another.",
)
RULES = (PRESENT_EARLY, CLEARED_LATE)

PAGES = 1 << 16
"""Table pages whose use is remembered; entries of others are not looked at."""
LINKS = 1 << 17
"""Entries that are remembered for the page they lead to; one more and all are forgotten."""
PARENTS = 8
"""Entries that are remembered for one page."""
REACH = 64
"""Pages that are looked at on the way up to the root."""
SUSPECTS = 256
"""Wrong entries that nothing leads to yet."""
EXAMINED = 1 << 20
"""Entries that are read on the way up, in a whole trace; behind that wrong ones are not found."""

DECIDING = {
    Role.CONTEXT: (0, CONTEXT.mask("aw", "did")),
    Role.SCALABLE_CONTEXT: (0, SCALABLE_CONTEXT["rid_pasid"].mask, 0, 0),
    Role.PASID_TABLE: (0, PASID["did"].mask, PASID.mask("fspm", "fsptptr"), 0, 0, 0, 0, 0),
}
"""Bits outside the first quadword that decide where a request goes."""


@dataclass(slots=True)
class Change:
    """What a store did to an entry."""

    role: Role
    level: int
    address: int
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(slots=True)
class _Burst:
    """Stores to one entry without a command or an access between them."""

    number: int
    appeared: int = -1
    changed: int = -1


class Tables:
    """Know table pages by the snapshots and releases of a trace."""

    def __init__(self, unit: VtdUnit, notes: Notebook) -> None:
        self._unit = unit
        self._notes = notes
        self._examined = 0
        self.reset()

    def reset(self) -> None:
        """Forget all pages: after a reset nothing is reachable."""
        self._pages: dict[int, tuple[Role, int]] = {}
        self._parents: dict[int, dict[int, None]] = {}
        self._links = 0
        self._bursts: dict[int, _Burst] = {}
        self._suspects: dict[int, int] = {}

    # -- events --------------------------------------------------------------------------------

    def snapshot(self, event: Snapshot, number: int) -> None:
        """Learn what a page is, and look at all of its entries."""
        if event.role not in SIZES:
            self._pages.pop(event.address, None)
            return
        if event.address not in self._pages and len(self._pages) >= PAGES:
            return
        self._pages[event.address] = event.role, event.level
        size = SIZES[event.role]
        for offset in range(0, len(event.data), size):
            if any(event.data[offset : offset + size]):
                self._bursts.setdefault(event.address + offset, _Burst(number))

    def release(self, page: int) -> None:
        """Forget a page."""
        self._pages.pop(page, None)
        self._parents.pop(page, None)

    def read(self, store: Store) -> tuple[Role, int, int, tuple[int, ...]] | None:
        """Return role, level, address and quadwords of the entry that a store goes to."""
        page = store.address & -PAGE_SIZE
        known = self._pages.get(page)
        if known is None:
            return None
        role, level = known
        address = store.address & -SIZES[role]
        return role, level, address, self._words(role, address)

    def stored(self, found: tuple[Role, int, int, tuple[int, ...]], number: int) -> Change | None:
        """Take in a store; found is what read() returned before it."""
        role, level, address, before = found
        after = self._words(role, address)
        if before == after:
            return None
        burst = self._bursts.setdefault(address, _Burst(number))
        burst.number = number
        if role in STRUCTURES:
            self._order(role, before, after, burst, number)
        return Change(role, level, address, before, after)

    def _order(
        self, role: Role, before: tuple[int, ...], after: tuple[int, ...], burst: _Burst, now: int
    ) -> None:
        was, is_now = is_present(role, before), is_present(role, after)
        if not was and is_now:
            burst.appeared, burst.changed = now, -1
        elif was and not is_now:
            if burst.changed >= 0:
                detail = f"{_name(role)}: the present bit is cleared only afterwards."
                self._notes.note(CLEARED_LATE, burst.changed, detail, cleared=now)
            burst.appeared = burst.changed = -1
        elif was and self._decides(role, before, after):
            if burst.appeared >= 0:
                detail = f"{_name(role)}: it has been present since an earlier store."
                self._notes.note(
                    PRESENT_EARLY, now, detail, cause=burst.appeared, present=burst.appeared
                )
            elif burst.changed < 0:
                burst.changed = now

    @staticmethod
    def _decides(role: Role, before: tuple[int, ...], after: tuple[int, ...]) -> bool:
        masks = DECIDING[role]
        return any((a ^ b) & mask for a, b, mask in zip(before, after, masks, strict=True))

    # -- what the entries have become ----------------------------------------------------------

    def settle(self) -> None:
        """Look at the entries that were stored to: a command or an access comes next."""
        if not self._bursts:
            return
        config = self._unit.config
        linked = False
        for address, burst in self._bursts.items():
            known = self._pages.get(address & -PAGE_SIZE)
            if known is None:
                continue
            role, level = known
            words = self._words(role, address)
            if not is_present(role, words):
                self._suspects.pop(address, None)
                continue
            for child in children(role, level, words, self._scalable):
                self._link(child, address)
                linked = True
            wrong = next(entry_faults(role, level, words, config, self._scalable), None)
            if wrong is None:
                self._suspects.pop(address, None)
            elif len(self._suspects) < SUSPECTS:
                self._suspects[address] = burst.number
                linked = True
        self._bursts.clear()
        if linked and self._suspects:
            self.examine()

    def examine(self) -> None:
        """Report the wrong entries that the unit can reach now."""
        if not self._unit.translator.enabled or self._examined > EXAMINED:
            return
        self._examined += len(self._suspects)
        for address, number in list(self._suspects.items()):
            role, level = self._pages.get(address & -PAGE_SIZE, (None, 0))
            if role is None:
                del self._suspects[address]
                continue
            words = self._words(role, address)
            faults = entry_faults(role, level, words, self._unit.config, self._scalable)
            wrong = next(faults, None) if is_present(role, words) else None
            if wrong is None:
                del self._suspects[address]
            elif self._reachable(address):
                del self._suspects[address]
                rule, detail = wrong
                self._notes.note(rule, number, f"{detail} It lies at {address:#x}.")

    def _link(self, child: int, address: int) -> None:
        if self._links >= LINKS:
            self._parents.clear()
            self._links = 0
        parents = self._parents.setdefault(child, {})
        if address in parents:
            return
        if len(parents) >= PARENTS:
            parents.pop(next(iter(parents)))
        else:
            self._links += 1
        parents[address] = None

    def _reachable(self, address: int) -> bool:
        """Say whether present entries lead from the root table to the page of an entry."""
        root = self._unit.translator.lookup.root_pointer
        queue, seen = [address & -PAGE_SIZE], {address & -PAGE_SIZE}
        while queue and len(seen) <= REACH:
            page = queue.pop()
            if page == root:
                return True
            for entry in self._parents.get(page, ()):
                self._examined += 1
                above = entry & -PAGE_SIZE
                role, level = self._pages.get(above, (None, 0))
                if role is None or above in seen:
                    continue
                words = self._words(role, entry)
                if is_present(role, words) and page in children(role, level, words, self._scalable):
                    seen.add(above)
                    queue.append(above)
        return False

    # -- inside --------------------------------------------------------------------------------

    @property
    def _scalable(self) -> bool:
        return self._unit.translator.lookup.mode == TTM_SCALABLE

    def _words(self, role: Role, address: int) -> tuple[int, ...]:
        data = self._unit.load(address, SIZES[role])
        return tuple(int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8))


def _name(role: Role) -> str:
    return "PASID entry" if role is Role.PASID_TABLE else "Context entry"
