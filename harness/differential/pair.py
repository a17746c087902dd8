"""Lead the Python model and the native core through the same life, and compare after each event.

What is compared is all that shows: permitted sets with their steps, findings, observations, what
registers read, errors about budgets. Other replays compare what they find in a recording; here
nothing has to be recorded for a difference to show.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from decoders.errors import DecodeError
from decoders.events import Event
from harness.memory import MemoryBudgetError
from harness.model.config import UnitConfig
from harness.model.queue import DescriptorBudgetError
from harness.model.virtio.config import MappingBudgetError, VirtioConfig

BUDGETS: Final = (MemoryBudgetError, DescriptorBudgetError, MappingBudgetError)
"""What ends a life: behind such an error nothing is said of a unit."""

Operation = tuple[str, tuple[Any, ...]]
"""Name of a unit's method and its arguments."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Hold what the two say of one thing, and the number of the event they say it of."""

    event: int
    what: str
    model: Any
    native: Any

    def __str__(self) -> str:
        return (
            f"event {self.event}, {self.what}:\n"
            f"  model       {self.model}\n"
            f"  native      {self.native}"
        )


class DisagreementError(AssertionError):
    """Report the first disagreement of a pair; behind it nothing else counts."""

    def __init__(self, disagreement: Disagreement) -> None:
        super().__init__(str(disagreement))
        self.disagreement = disagreement


class Pair(ABC):
    """Apply operations or events to both units; `events` counts those so far.

    Errors: DisagreementError, and those of BUDGETS when both raise it.
    """

    def __init__(self) -> None:
        self.events = 0

    @abstractmethod
    def apply(self, event: Event) -> Any:
        """Apply an event to both; return what they answered, None for what has no answer.

        Errors: DecodeError for an event that no unit can take.
        """

    @abstractmethod
    def operate(self, name: str, *arguments: Any) -> Any:
        """Call a method of both units; return what the model answered."""

    @abstractmethod
    def compare(self) -> None:
        """Compare what only a look inside shows."""

    def differ(self, what: str, model: Any, native: Any) -> NoReturn:
        """Report that the two are not alike."""
        raise DisagreementError(Disagreement(self.events, what, model, native))

    def both(self, model: Callable[[], Any], native: Callable[[], Any]) -> tuple[Any, Any]:
        """Return what two calls return; an error about a budget has to be one of both."""
        error: Exception | None = None
        refused: Exception | None = None
        ours = theirs = None
        try:
            ours = model()
        except BUDGETS as raised:
            error = raised
        try:
            theirs = native()
        except BUDGETS as raised:
            refused = raised
        if error is None and refused is None:
            return ours, theirs
        said = [None if one is None else f"{type(one).__name__}: {one}" for one in (error, refused)]
        if said[0] != said[1]:
            self.differ("budget", *said)
        assert error is not None
        raise error


def pair_for(config: UnitConfig | VirtioConfig) -> Pair:
    """Return a pair of units of a configuration; raise HarnessError without the native core."""
    from harness.differential.pair_virtio import VirtioPair
    from harness.differential.pair_vtd import VtdPair

    return VtdPair(config) if isinstance(config, UnitConfig) else VirtioPair(config)


def compare(config: UnitConfig | VirtioConfig, events: Sequence[Event]) -> Disagreement | None:
    """Return where model and native part, if they do in a life of these events.

    It ends early at an event that both refuse because of a budget, or that no unit can take.
    """
    pair = pair_for(config)
    try:
        for event in events:
            pair.apply(event)
        pair.compare()
    except DisagreementError as error:
        return error.disagreement
    except (DecodeError, *BUDGETS):
        pass
    return None
