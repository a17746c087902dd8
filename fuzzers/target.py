"""What a fuzz target is, and which ones there are: one target per file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import Final, Protocol, cast, runtime_checkable

from decoders.events import Event
from harness.errors import HarnessError
from harness.signature import Signature
from harness.trace import Header

NONE: Final = "none"
"""Only the native core runs, and only crashes, leaks and hangs count: the fastest way."""

MODEL: Final = "model"
"""The native core has to say what the model says, and both have to keep the oracle's promises."""

QEMU: Final = "qemu"
"""What a real unit does has to be permitted, or known (harness.deviations*)."""

BARE: Final = "qemu-bare"
"""What a real unit does has to be what the specification says: no deviation is known."""

AGAINST: Final = (NONE, MODEL, QEMU)

AS_ASKED: Final = {BARE: "qemu with --no-deviations"}
"""How a command line says what is no member of AGAINST."""


Trace = tuple[Header, Sequence[Event]]


class Found(Exception):  # noqa: N818 -- nothing went wrong
    """Tell of a finding: its signature, and what it is about.

    trace is what a unit went through, where the target's own `events` would not tell; beside are
    findings of the same input.
    """

    def __init__(
        self,
        signature: Signature,
        text: str,
        trace: Trace | None = None,
        beside: Sequence[Found] = (),
    ) -> None:
        super().__init__(text)
        self.signature, self.text, self.trace = signature, text, trace
        self.beside = tuple(beside)


Runner = Callable[[bytes], object]


def judged_by(against: str | None, *, deviations: bool) -> str | None:
    """Return what targets are compared with: without deviations a real unit, and nothing known.

    Errors: HarnessError where that is not asked of a real unit.
    """
    if deviations:
        return against
    if against not in (None, QEMU):
        raise HarnessError(f"--no-deviations is about a real unit, not about {against}")
    return BARE


class FuzzTarget(Protocol):
    """Turn bytes into what a part of the project has to cope with."""

    name: str
    what: str
    """What is fuzzed, in a few words."""

    against: Sequence[str]
    """Members of AGAINST that it knows, the default first."""

    traced: Sequence[str]
    """Python packages whose coverage counts, beside that of the core."""

    max_size: int
    """Bytes of the longest input that says something new."""

    def seeds(self) -> Iterable[bytes]:
        """Return inputs to begin with."""
        ...

    def dictionary(self) -> Iterable[bytes]:
        """Return words that inputs consist of."""
        ...

    def runner(self, against: str) -> Runner:
        """Return what runs an input; it raises Found, and whatever else is a crash."""
        ...


@runtime_checkable
class Mutating(Protocol):
    """Change inputs in ways that keep their structure."""

    mutated: Sequence[str]
    """Members of AGAINST for which that pays: a change may cost more than a run of the core."""

    def mutate(self, data: bytes, max_size: int, seed: int) -> bytes:
        """Return another input."""
        ...

    def cross(self, first: bytes, second: bytes, max_size: int, seed: int) -> bytes:
        """Return an input made of parts of two."""
        ...


@runtime_checkable
class Traced(Protocol):
    """Show inputs as traces, which is how they are minimised, exported and kept."""

    def events(self, data: bytes) -> tuple[Header, list[Event]]:
        """Return what an input makes a unit go through."""
        ...


@runtime_checkable
class Alike(Protocol):
    """Write one input in several ways."""

    def alike(self, data: bytes, number: int) -> bytes:
        """Return the input of a number that means the same as this one, if there are so many."""
        ...


def changes_inputs(target: FuzzTarget, against: str) -> bool:
    """Say whether a target changes inputs itself, in place of libFuzzer."""
    return isinstance(target, Mutating) and against in target.mutated


_TARGETS: Final = {
    "descriptors": "fuzzers.targets.descriptors",
    "pasid": "fuzzers.targets.pasid",
    "pagetables": "fuzzers.targets.pagetables",
    "viot": "fuzzers.targets.viot",
    "acpi": "fuzzers.targets.acpi",
    "trace": "fuzzers.targets.trace",
    "stateful": "fuzzers.targets.stateful",
    "virtio": "fuzzers.targets.virtio",
    "capture": "fuzzers.targets.capture",
}
"""Module of each target, which has a `create()`."""

_OWN: Final = {"planted": "fuzzers.targets.planted", "empty": "fuzzers.targets.empty"}
"""Targets about fuzzing itself: whether it finds anything, and how fast it could be."""


def target_names() -> tuple[str, ...]:
    """Return the names of all targets that are worth running."""
    return tuple(_TARGETS)


def target_named(name: str) -> FuzzTarget:
    """Return a target; raise HarnessError when there is none of that name."""
    module = (_TARGETS | _OWN).get(name)
    if module is None:
        raise HarnessError(f"no fuzz target {name!r}; there are {', '.join(_TARGETS)}")
    return cast(FuzzTarget, import_module(module).create())


def run(target: FuzzTarget, data: bytes, against: str) -> None:
    """Run one input; raise Found, or whatever a crash raises."""
    target.runner(against)(data)


def every_target() -> Iterator[FuzzTarget]:
    """Yield all targets."""
    return map(target_named, _TARGETS)
