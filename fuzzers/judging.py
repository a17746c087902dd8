"""Judge what a unit does with an input: native is model, and the oracle keeps its promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from decoders.errors import DecodeError
from decoders.events import Access, Event
from decoders.layout import layout
from decoders.vtd.paging import FirstStageEntry, SecondStageEntry
from fuzzers.scaffold import Scaffold, Scaffolds
from fuzzers.target import Found
from harness.differential.pair import BUDGETS, DisagreementError
from harness.differential.pair_vtd import VtdPair
from harness.findings import Finding
from harness.model.unit import Verdict
from harness.signature import DISAGREEMENT, INVARIANT, Signature, of_difference

if TYPE_CHECKING:
    from harness.native import _core

_PAGE: Final = 4096
_SET: Final = layout(FirstStageEntry).mask("a", "d", "ea") | layout(SecondStageEntry).mask("a", "d")
"""What a walk may set in a paging entry."""


def judge(scaffolds: Scaffolds, native: _core.ScaffoldRuns) -> Callable[[bytes], None]:
    """Return what runs an input and raises Found where something is wrong."""

    def run(data: bytes) -> None:
        scaffold, inner = scaffolds.split(data)
        native.run(data)
        said = native.counters(), native.findings()
        compare(scaffold, scaffold.events(inner))
        _again(scaffolds, data, said)

    return run


def compare(scaffold: Scaffold, events: Sequence[Event]) -> None:
    """Lead model and core through events; raise Found at a difference or a broken promise."""
    pair = VtdPair(scaffold.config)
    # Up to there every input has the same events.
    first = len(scaffold.memory) + len(scaffold.before)
    behind = len(events) - len(scaffold.fresh)
    event: Event | None = None
    tables: dict[int, bytes] | None = None
    own = False  # changes behind the invalidation of everything: A and D where another table lies
    try:
        for number, event in enumerate(events):
            looked_at = number >= first and isinstance(event, Access)
            if looked_at and tables is None:
                tables = _tables(pair)
            answer = pair.apply(event)
            if looked_at and tables is not None and isinstance(event, Access):
                now = _tables(pair)
                _check_access(event, answer, tables, now, number >= behind and not own)
                own = number >= behind and (own or now != tables)
                tables = now
            else:
                tables = None
            for finding in pair.findings:
                _check_finding(finding, number, event)
        pair.compare()
    except DisagreementError as error:
        found = error.disagreement
        signature = of_difference(DISAGREEMENT, event, found.what, found.model, found.native)
        raise Found(signature, str(found)) from None
    except (DecodeError, *BUDGETS):
        return


def _tables(pair: VtdPair) -> dict[int, bytes]:
    memory = pair.model.memory
    return {page: memory.read(page, _PAGE) for page in memory.pages()}


def _check_access(
    event: Access,
    verdict: Verdict,
    before: dict[int, bytes],
    after: dict[int, bytes],
    flushed: bool,
) -> None:
    if flushed and len(verdict.permitted) > 1:
        others = "; ".join(map(str, verdict.permitted))
        _broken("only the fresh outcome behind an invalidation of everything", event, others)
    for page, content in before.items():
        now = after[page]
        if now == content:
            continue
        for at in range(0, _PAGE, 8):
            old, new = (int.from_bytes(one[at : at + 8], "little") for one in (content, now))
            if old & ~new or (new & ~old) & ~_SET:
                _broken(
                    "an access sets A and D bits only",
                    event,
                    f"{page + at:#x}: {old:#x} became {new:#x}",
                )


def _check_finding(finding: Finding, number: int, event: Event) -> None:
    named = (finding.event, finding.filled_by, finding.changed_by, finding.covered_by)
    if any(one > number for one in named):
        _broken("findings name events that have been", event, str(finding))


def _again(scaffolds: Scaffolds, data: bytes, said: object) -> None:
    """Compare with a core that has run nothing before."""
    native = scaffolds.alone(data)
    native.run(data)
    fresh = native.counters(), native.findings()
    if fresh != said:
        _broken("a second run gives the same", None, f"first {fresh}\nthen {said}")


def _broken(promise: str, event: Event | None, text: str) -> None:
    kind = "" if event is None else type(event).__name__
    raise Found(Signature(INVARIANT, kind, promise), f"broken: {promise}\nat {event}\n{text}")
