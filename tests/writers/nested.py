"""Build nested translation: a first stage whose tables and pages lie in a second stage's input."""

from __future__ import annotations

from dataclasses import dataclass

from decoders.events import Role
from tests.writers.platform import AW, DEVICE, DOMAIN, PAGE, Platform, Space

GUEST = 1 << 32
"""Guest addresses of pages begin here, where no table lies."""


@dataclass
class Nested:
    """The two stages of a PASID. Tables of the first lie where the second maps them to."""

    first: Space
    second: Space

    def tables(self, iova: int, level: int = 1) -> list[int]:
        """Return the first-stage tables on the way to an entry, the root first."""
        levels = range(self.first.levels, level - 1, -1)
        return [self.first.entry(iova, one) & -PAGE for one in levels]

    def map(self, iova: int, address: int, *, level: int = 1, **fields: int) -> None:
        """Map a page of a level at iova through a guest address; fields are of the first stage."""
        self.first.map(iova, GUEST + iova, level, **fields)
        for table in self.tables(iova, level):
            self.second.map(table, table)
        self.second.map(GUEST + iova, address)


def nested(
    platform: Platform, pasid: int = 1, sid: int = DEVICE, *,
    domain: int = DOMAIN, levels: int = 4, host_levels: int = 4, **fields: int,
) -> Nested:  # fmt: skip
    """Give a PASID nested tables of its own; fields are of its entry."""
    first = Space(platform, Role.FIRST_STAGE, platform.page(), levels)
    second = Space(platform, Role.SECOND_STAGE, platform.page(), host_levels)
    entry = {
        "fspm": levels - 4,
        "fsptptr": first.root >> 12,
        "aw": AW[host_levels],
        "ssptptr": second.root >> 12,
        "did": domain,
    }
    platform.pasid_entry(pasid, sid, pgtt=3, **(entry | fields))
    return Nested(first, second)
