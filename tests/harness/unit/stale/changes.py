"""What software may change under a cached translation, and what it has to invalidate then.

A change is set up, used once, made, and then invalidated well or badly. `needs` names, for each
cache that the change concerns, the invalidations that are enough; any other leaves the old answer
permitted. Where several caches are concerned, all of them need one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from decoders.events import Outcome, Role, Translation
from decoders.layout import layout
from decoders.vtd.tables import ContextEntry, PasidEntry
from tests.writers.nested import Nested, nested
from tests.writers.platform import AW, DOMAIN, PAGE, Platform, Space, page

CONTEXTS, PASIDS, TRANSLATIONS = "context entries", "PASID entries", "translations"
CACHES = (CONTEXTS, PASIDS, TRANSLATIONS)

SOURCE = 0x20
"""Source id of the device that is used: 00:04.0, which a QEMU that is studied has."""

POOL = 0x3C_0000
OLD, NEW = POOL + 8 * PAGE, POOL + 16 * PAGE
"""Where the address leads before and after."""

IOVA = 0x8000_0000
LARGE_IOVA = 0x8020_0000 | OLD & 0x1F_FFFF
"""An address of a page of 2 MiB that leads to OLD."""

SAME = POOL + 24 * PAGE
"""An address of the pool itself: where pass-through leads."""

GUEST = 1 << 32
"""Guest address of the page in nested translation."""


@dataclass
class Situation:
    """Tables in use, and how to change them."""

    platform: Platform
    change: Callable[[], object]
    old: Outcome
    new: Outcome
    iova: int = IOVA
    place: int = IOVA
    """Address that a page-selective invalidation is to name."""
    entry: int = 0
    """PASID of the entry that requests use."""
    pasid: int | None = None
    """PASID of requests."""


Setup = Callable[[Platform, int | None], Situation]


@dataclass(frozen=True)
class Change:
    """Describe one change; unit names the machine that a QEMU needs for it, if any has it."""

    what: str
    setup: Setup
    needs: Mapping[str, frozenset[str]]
    unit: str = ""


CONTEXT_ENOUGH = frozenset(
    {"all", "of the domain", "of the device", "of the device, FM 1", "of the device, FM 2",
     "of the device, FM 3"}
)  # fmt: skip
# One of scalable mode has no domain id, so that any descriptor may drop it.
SCALABLE_CONTEXT_ENOUGH = CONTEXT_ENOUGH | {"of another domain", "of the device in another domain"}
PASID_ENOUGH = frozenset({"all", "of the domain", "of the PASID"})
SECOND_TABLE = frozenset({"all", "of the domain", "page", "2 pages (AM 1)"})
SECOND_LEAF = SECOND_TABLE | {"page, IH"}
# Every first-stage entry of the domain goes with any second-stage page.
ANY_PAGE = SECOND_LEAF | {"next page"}
FIRST_TABLE = ANY_PAGE | {"of the PASID", "page of the PASID", "2 pages of the PASID (AM 1)"}
FIRST_LEAF = FIRST_TABLE | {"page of the PASID, IH"}
NESTED_FIRST_TABLE, NESTED_FIRST_LEAF = FIRST_TABLE, FIRST_LEAF


def _leaf(space: Space, situation: Situation) -> Situation:
    space.map(IOVA, OLD)
    situation.change = lambda: space.map(IOVA, NEW)
    return situation


def _table(space: Space, situation: Situation) -> Situation:
    """Hang in another last table."""
    platform = space.platform
    space.map(IOVA, OLD)
    other = Space(platform, space.stage, platform.page(), 1)
    other.map(IOVA, NEW)
    situation.change = lambda: platform.store(space.entry(IOVA, 2), space.value(other.root))
    return situation


def _split(space: Space, situation: Situation) -> Situation:
    """Put a table of small pages in place of a large one."""
    platform = space.platform
    space.map(LARGE_IOVA & -0x20_0000, OLD & -0x20_0000, 2)
    other = Space(platform, space.stage, platform.page(), 1)
    other.map(LARGE_IOVA, NEW)
    at = space.entry(LARGE_IOVA, 2)
    situation.change = lambda: platform.store(at, space.value(other.root))
    situation.old = Translation(OLD & -0x20_0000, 0x1F_FFFF)
    situation.iova = situation.place = LARGE_IOVA
    return situation


def _other_tables(space: Space) -> Space:
    """Return tables that map the page elsewhere."""
    platform = space.platform
    space.map(IOVA, OLD)
    other = Space(platform, space.stage, platform.page(), space.levels)
    other.map(IOVA, NEW)
    return other


def _identity(platform: Platform) -> Translation:
    return Translation(0, (1 << platform.config.host_address_width) - 1)


# -- legacy mode ---------------------------------------------------------------------------------


def _plain(platform: Platform) -> Situation:
    return Situation(platform, lambda: None, page(OLD), page(NEW))


def legacy(kind: Callable[[Space, Situation], Situation]) -> Setup:
    """Return the setup of a change to second-stage tables in legacy mode."""
    return lambda platform, _: kind(platform.legacy(SOURCE), _plain(platform))


def legacy_context(platform: Platform, _: int | None) -> Situation:
    """Point the context entry at other tables."""
    space = platform.legacy(SOURCE)
    other = _other_tables(space)
    made = _plain(platform)
    made.change = lambda: platform.context(SOURCE, ssptptr=other.root >> 12, aw=AW[4])
    return made


def legacy_root(platform: Platform, _: int | None) -> Situation:
    """Point the root entry at another context table."""
    space = platform.legacy(SOURCE)
    other = _other_tables(space)
    made = _plain(platform)

    def change() -> None:
        table = platform.page()
        entry = [0, 0]
        shape = layout(ContextEntry)
        for name, value in (
            ("p", 1),
            ("aw", AW[4]),
            ("did", DOMAIN),
            ("ssptptr", other.root >> 12),
        ):
            shape[name].put(entry, value)
        platform.store(table + 16 * (SOURCE & 0xFF), *entry)
        platform.store(platform.root + 16 * (SOURCE >> 8), table | 1)

    made.change = change
    return made


def legacy_to_pass_through(platform: Platform, _: int | None) -> Situation:
    """Let a device through that was translated."""
    space = platform.legacy(SOURCE, levels=_widest(platform))
    space.map(SAME, OLD)
    made = Situation(platform, lambda: None, page(OLD), _identity(platform), SAME, SAME)
    made.change = lambda: platform.context(SOURCE, tt=2, aw=AW[_widest(platform)])
    return made


def legacy_from_pass_through(platform: Platform, _: int | None) -> Situation:
    """Translate a device that was let through."""
    space = Space(platform, Role.SECOND_STAGE, platform.page(), _widest(platform))
    space.map(SAME, NEW)
    aw = AW[_widest(platform)]
    platform.context(SOURCE, tt=2, aw=aw)
    made = Situation(platform, lambda: None, _identity(platform), page(NEW), SAME, SAME)
    made.change = lambda: platform.context(SOURCE, ssptptr=space.root >> 12, aw=aw)
    return made


def _widest(platform: Platform) -> int:
    return platform.config.widest + 2


# -- scalable mode -------------------------------------------------------------------------------


def _by_pasid(platform: Platform, pasid: int | None) -> Situation:
    return Situation(platform, lambda: None, page(OLD), page(NEW), entry=pasid or 0, pasid=pasid)


def _space(platform: Platform, stage: Role, pasid: int | None) -> Space:
    if stage == Role.SECOND_STAGE:
        return platform.second_stage(pasid or 0, SOURCE)
    return platform.first_stage(pasid or 0, SOURCE, aw=AW[4])


def _repeat(platform: Platform, space: Space, pasid: int) -> int:
    """Write the PASID entry that leads to tables; return where it lies."""
    if space.stage == Role.SECOND_STAGE:
        return platform.pasid_entry(pasid, SOURCE, pgtt=2, aw=AW[4], ssptptr=space.root >> 12)
    return platform.pasid_entry(pasid, SOURCE, pgtt=1, aw=AW[4], fsptptr=space.root >> 12)


def scalable(stage: Role, kind: Callable[[Space, Situation], Situation]) -> Setup:
    """Return the setup of a change to the tables of a PASID."""

    def setup(platform: Platform, pasid: int | None) -> Situation:
        return kind(_space(platform, stage, pasid), _by_pasid(platform, pasid))

    return setup


def pasid_entry(stage: Role) -> Setup:
    """Point the PASID entry at other tables."""

    def setup(platform: Platform, pasid: int | None) -> Situation:
        other = _other_tables(_space(platform, stage, pasid))
        made = _by_pasid(platform, pasid)
        made.change = lambda: _repeat(platform, other, made.entry)
        return made

    return setup


def _beside(platform: Platform, other: Space, entry: int) -> int:
    """Return a PASID table in which the PASID leads to other tables."""
    old = platform.load(platform.directories[SOURCE] + 8 * (entry >> 6)) & -PAGE
    at = platform.page()
    place = layout(PasidEntry).size * (entry & 63)
    words = [platform.load(old + place + 8 * n) for n in range(8)]
    shape = layout(PasidEntry)
    name = "ssptptr" if other.stage == Role.SECOND_STAGE else "fsptptr"
    shape[name].put(words, other.root >> 12)
    platform.store(at + place, *words)
    return at


def directory_entry(stage: Role) -> Setup:
    """Point the PASID directory entry at another PASID table."""

    def setup(platform: Platform, pasid: int | None) -> Situation:
        other = _other_tables(_space(platform, stage, pasid))
        made = _by_pasid(platform, pasid)
        table = _beside(platform, other, made.entry)
        at = platform.directories[SOURCE] + 8 * (made.entry >> 6)
        made.change = lambda: platform.store(at, table | 1)
        return made

    return setup


def scalable_context(stage: Role) -> Setup:
    """Point the context entry at another PASID directory."""

    def setup(platform: Platform, pasid: int | None) -> Situation:
        other = _other_tables(_space(platform, stage, pasid))
        made = _by_pasid(platform, pasid)
        directory = platform.page()
        platform.store(directory + 8 * (made.entry >> 6), _beside(platform, other, made.entry) | 1)
        at = platform.contexts[SOURCE >> 7] + 32 * (SOURCE & 0x7F)
        low = platform.load(at) & (PAGE - 1) | directory
        made.change = lambda: platform.store(at, low)
        return made

    return setup


def to_pass_through(platform: Platform, pasid: int | None) -> Situation:
    """Let a PASID through that was translated."""
    space = _space(platform, Role.SECOND_STAGE, pasid)
    space.map(SAME, OLD)
    made = _by_pasid(platform, pasid)
    made.new, made.iova, made.place = _identity(platform), SAME, SAME
    made.change = lambda: platform.pasid_entry(made.entry, SOURCE, pgtt=4, aw=AW[_widest(platform)])
    return made


def from_pass_through(platform: Platform, pasid: int | None) -> Situation:
    """Translate a PASID that was let through."""
    made = _by_pasid(platform, pasid)
    platform.pasid_entry(made.entry, SOURCE, pgtt=4, aw=AW[_widest(platform)])
    space = Space(platform, Role.SECOND_STAGE, platform.page(), 4)
    space.map(SAME, NEW)
    made.old, made.iova, made.place = _identity(platform), SAME, SAME
    made.change = lambda: _repeat(platform, space, made.entry)
    return made


# -- nested --------------------------------------------------------------------------------------


def nesting(kind: Callable[[Nested, Situation], None]) -> Setup:
    """Return the setup of a change to one of the stages of a nested translation."""

    def setup(platform: Platform, pasid: int | None) -> Situation:
        made = _by_pasid(platform, pasid)
        space = nested(platform, made.entry, SOURCE)
        space.first.map(IOVA, GUEST)
        for table in space.tables(IOVA):
            space.second.map(table, table)
        space.second.map(GUEST, OLD)
        space.second.map(GUEST + PAGE, NEW)
        kind(space, made)
        return made

    return setup


def nested_first_leaf(space: Nested, made: Situation) -> None:
    """Map the page to another guest page."""
    made.change = lambda: space.first.map(IOVA, GUEST + PAGE)


def nested_first_table(space: Nested, made: Situation) -> None:
    """Hang in another last table of the first stage."""
    platform = space.first.platform
    other = Space(platform, Role.FIRST_STAGE, platform.page(), 1)
    other.map(IOVA, GUEST + PAGE)
    space.second.map(other.root, other.root)
    at = space.first.entry(IOVA, 2)
    made.change = lambda: platform.store(at, space.first.value(other.root))


def nested_second_leaf(space: Nested, made: Situation) -> None:
    """Map the guest page to another page."""
    made.place = GUEST
    made.change = lambda: space.second.map(GUEST, NEW)


def nested_second_table(space: Nested, made: Situation) -> None:
    """Hang in another last table of the second stage."""
    platform = space.first.platform
    other = Space(platform, Role.SECOND_STAGE, platform.page(), 1)
    other.map(GUEST, NEW)
    made.place = GUEST
    at = space.second.entry(GUEST, 2)
    made.change = lambda: platform.store(at, space.second.value(other.root))


def nested_guest_table(space: Nested, made: Situation) -> None:
    """Map the guest page of the last first-stage table to another page."""
    platform = space.first.platform
    other = Space(platform, Role.FIRST_STAGE, platform.page(), 1)
    other.map(IOVA, GUEST + PAGE)
    made.place = space.tables(IOVA)[-1]
    made.change = lambda: space.second.map(made.place, other.root)


def nested_entry(platform: Platform, pasid: int | None) -> Situation:
    """Point the PASID entry at another first stage."""
    made = nesting(lambda space, made: None)(platform, pasid)
    above = platform.load(platform.directories[SOURCE] + 8 * (made.entry >> 6)) & -PAGE
    at = above + layout(PasidEntry).size * (made.entry & 63)
    second = Space(platform, Role.SECOND_STAGE, platform.load(at) & -PAGE & (1 << 52) - 1, 4)
    first = Space(platform, Role.FIRST_STAGE, platform.page(), 4)
    other = Nested(first, second)
    first.map(IOVA, GUEST + PAGE)
    for table in other.tables(IOVA):
        second.map(table, table)
    made.change = lambda: platform.store(at + 16, platform.load(at + 16) & (PAGE - 1) | first.root)
    return made


_SECOND, _FIRST = Role.SECOND_STAGE, Role.FIRST_STAGE
CHANGES: dict[str, Change] = {
    "legacy": Change("leaf", legacy(_leaf), {TRANSLATIONS: SECOND_LEAF}, "legacy"),
    "legacy table": Change("table", legacy(_table), {TRANSLATIONS: SECOND_TABLE}, "legacy"),
    "legacy split": Change(
        "large leaf becomes a table", legacy(_split), {TRANSLATIONS: SECOND_LEAF}, "legacy"
    ),
    "legacy context": Change(
        "context entry: other tables", legacy_context,
        {CONTEXTS: CONTEXT_ENOUGH, TRANSLATIONS: SECOND_TABLE}, "legacy",
    ),
    "legacy root": Change(
        "root entry: other context table", legacy_root,
        {CONTEXTS: CONTEXT_ENOUGH, TRANSLATIONS: SECOND_TABLE}, "legacy",
    ),
    "legacy to pass-through": Change(
        "context entry: passes through now", legacy_to_pass_through, {CONTEXTS: CONTEXT_ENOUGH},
        "legacy",
    ),
    "legacy from pass-through": Change(
        "context entry: passed through before", legacy_from_pass_through,
        {CONTEXTS: CONTEXT_ENOUGH}, "legacy",
    ),
    "second": Change("leaf", scalable(_SECOND, _leaf), {TRANSLATIONS: SECOND_LEAF}, "second-stage"),
    "second table": Change(
        "table", scalable(_SECOND, _table), {TRANSLATIONS: SECOND_TABLE}, "second-stage"
    ),
    "second split": Change(
        "large leaf becomes a table", scalable(_SECOND, _split), {TRANSLATIONS: SECOND_LEAF},
        "second-stage",
    ),
    "second PASID": Change(
        "PASID entry: other tables", pasid_entry(_SECOND),
        {PASIDS: PASID_ENOUGH, TRANSLATIONS: SECOND_TABLE}, "second-stage",
    ),
    "second directory": Change(
        "PASID directory entry", directory_entry(_SECOND),
        {PASIDS: PASID_ENOUGH, TRANSLATIONS: SECOND_TABLE}, "second-stage",
    ),
    "second context": Change(
        "context entry: other directory", scalable_context(_SECOND),
        {CONTEXTS: SCALABLE_CONTEXT_ENOUGH, PASIDS: PASID_ENOUGH, TRANSLATIONS: SECOND_TABLE},
        "second-stage",
    ),
    "to pass-through": Change(
        "PASID entry: passes through now", to_pass_through, {PASIDS: PASID_ENOUGH}, "second-stage"
    ),
    "from pass-through": Change(
        "PASID entry: passed through before", from_pass_through, {PASIDS: PASID_ENOUGH},
        "second-stage",
    ),
    "first": Change("leaf", scalable(_FIRST, _leaf), {TRANSLATIONS: FIRST_LEAF}, "first-stage"),
    "first table": Change(
        "table", scalable(_FIRST, _table), {TRANSLATIONS: FIRST_TABLE}, "first-stage"
    ),
    "first split": Change(
        "large leaf becomes a table", scalable(_FIRST, _split), {TRANSLATIONS: FIRST_LEAF},
        "first-stage",
    ),
    "first PASID": Change(
        "PASID entry: other tables", pasid_entry(_FIRST),
        {PASIDS: PASID_ENOUGH, TRANSLATIONS: FIRST_TABLE}, "first-stage",
    ),
    "first directory": Change(
        "PASID directory entry", directory_entry(_FIRST),
        {PASIDS: PASID_ENOUGH, TRANSLATIONS: FIRST_TABLE}, "first-stage",
    ),
    "first context": Change(
        "context entry: other directory", scalable_context(_FIRST),
        {CONTEXTS: SCALABLE_CONTEXT_ENOUGH, PASIDS: PASID_ENOUGH, TRANSLATIONS: FIRST_TABLE},
        "first-stage",
    ),
    "nested first": Change(
        "first-stage leaf", nesting(nested_first_leaf), {TRANSLATIONS: NESTED_FIRST_LEAF}
    ),
    "nested first table": Change(
        "first-stage table", nesting(nested_first_table), {TRANSLATIONS: NESTED_FIRST_TABLE}
    ),
    "nested second": Change(
        "second-stage leaf of the page", nesting(nested_second_leaf), {TRANSLATIONS: SECOND_LEAF}
    ),
    "nested second table": Change(
        "second-stage table", nesting(nested_second_table), {TRANSLATIONS: SECOND_TABLE}
    ),
    "nested guest table": Change(
        "second-stage leaf of a first-stage table", nesting(nested_guest_table),
        {TRANSLATIONS: SECOND_LEAF},
    ),
    "nested PASID": Change(
        "PASID entry: other first stage", nested_entry,
        {PASIDS: PASID_ENOUGH, TRANSLATIONS: FIRST_TABLE},
    ),
}  # fmt: skip
"""Every change that is studied, by name; the first word is the stage."""
