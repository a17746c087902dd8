"""Leave out what is not needed, from the back, in chunks that grow while that works."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from harness.minimise.gate import Gate
from harness.minimise.pieces import Cut
from harness.minimise.trace import Trace

Make = Callable[[Collection[int]], Trace]
"""Makes the trace without some of the items."""


def deleted(items: Sequence[int], make: Make, gate: Gate) -> list[int]:
    """Return the items that are needed: without any one of them the finding does not show."""
    kept = list(items)
    gone: set[int] = set()
    while True:
        before = len(kept)
        kept = _one_round(kept, gone, make, gate)
        if len(kept) == before:
            return kept


def _one_round(kept: list[int], gone: set[int], make: Make, gate: Gate) -> list[int]:
    """Go from the back to the front once.

    A run of n items that are not needed takes O(log n) attempts, a needed one takes one.
    """
    end, size, grow = len(kept), 1, True
    while end > 0:
        size = min(size, end)
        if size == 1:
            # If this one is needed, the one before is next, and so on.
            hit = gate.first(make(gone | {kept[at]}) for at in range(end - 1, -1, -1))
            if hit is None:
                return kept
            end -= hit
            grow = grow or hit > 0
            at = end - 1
        else:
            at = end - size
            if gate.first([make(gone.union(kept[at:end]))]) is None:
                size, grow = size // 2, False
                continue
        gone.update(kept[at:end])
        del kept[at:end]
        end = at
        size = size * 2 if grow else max(1, size // 2)
        grow = grow or size == 1
    return kept


def shortened(gate: Gate) -> None:
    """Leave out what follows the piece with which the finding begins to show."""
    cut = Cut(gate.best)
    count = len(cut.pieces)

    def ends(at: int) -> bool:
        return gate.passes(cut.without(range(at, count)))

    # Mostly it is the last one: what is recorded ends there.
    if not ends(count - 1):
        return
    shows_not, shows = 0, count - 1
    while shows - shows_not > 1:
        middle = (shows_not + shows) // 2
        if ends(middle):
            shows = middle
        else:
            shows_not = middle


def without_pieces(gate: Gate) -> None:
    """Leave out whole pieces of the best trace, then single events."""
    for single in (False, True):
        cut = Cut(gate.best, single)
        deleted(range(len(cut.pieces)), cut.without, gate)


def applied(edits: Sequence[int], make: Callable[[Collection[int]], Trace], gate: Gate) -> set[int]:
    """Apply as many of some edits as can be together; return them.

    All are tried at once, then halves: independent ones that work cost little.
    """
    done: set[int] = set()
    stack: list[list[int]] = [list(edits)] if edits else []
    while stack:
        chunk = stack.pop()
        if gate.passes(make(done.union(chunk))):
            done.update(chunk)
        elif len(chunk) > 1:
            half = len(chunk) // 2
            stack += [chunk[half:], chunk[:half]]
    return done
