"""Ask what `dmarewind diff` asks a real VT-d unit, which looks harder than a replay does."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from decoders.events import Event
from harness.deviations_vtd import known_crash
from harness.differential.bare import Bare, of_end
from harness.differential.given_vtd import descriptor_bytes, machine_named, steps_of
from harness.differential.vtd import MODEL, Differential, Divergence
from harness.errors import HarnessError
from harness.generate.vtd_steps import Scene, Step
from harness.minimise.judges import Shown, identity_of, once
from harness.minimise.trace import Trace
from harness.model.dialects import dialect_named
from harness.qemu.pc import PROGRAM
from harness.qemu.process import LOST
from harness.qemu.vtd import VtdQemu
from harness.signature import of_finding

_LENGTH: Final = 1
"""Steps of a sequence that is made up; none is."""


class DiffJudge:
    """Do on a QEMU what the software and the devices of a trace do, and compare all that shows.

    Without deviations the unit is held to the specification alone. Traces are those that `dmarewind
    diff --unit vtd` and the fuzzers keep: they name their machine. Use as a context manager.
    """

    name = "diff"
    repeatable = False

    def __init__(self, program: str = PROGRAM, *, deviations: bool = True) -> None:
        self._program, self._deviations = program, deviations
        self._machines: dict[str, _Known | _Unknown] = {}
        self._asked = False
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    @property
    def identity(self) -> Sequence[str]:
        """Return the program, its content and what it says of its version, and who judges."""
        judged = "deviations" if self._deviations else "no deviations"
        return self.name, judged, *identity_of(self._program)

    def __call__(self, trace: Trace) -> list[Shown]:
        """Return what differs, or how QEMU ended; nothing for what its machine cannot do.

        Errors: HarnessError when it cannot do what the first trace says.
        """
        machine = self._machine(machine_named(trace.header))
        first, self._asked = not self._asked, True
        try:
            steps = steps_of(trace.events, machine.qemu, machine.scene)
        except HarnessError:
            if first:
                raise
            return []
        return once(machine.shown(steps, descriptor_bytes(trace.events)))

    def _machine(self, name: str) -> _Known | _Unknown:
        if name not in self._machines:
            qemu = self._cleanup.enter_context(VtdQemu(name, self._program))
            self._machines[name] = _Known(qemu) if self._deviations else _Unknown(qemu)
        return self._machines[name]


class _Known:
    """Permit what the deviations explain."""

    def __init__(self, qemu: VtdQemu) -> None:
        self.qemu = qemu
        own = dialect_named("qemu-{}.{}".format(*qemu.version))
        self._differential = Differential(qemu, (MODEL,), _LENGTH, own, own, avoided=())

    @property
    def scene(self) -> Scene:
        """Return what the machine has."""
        return self._differential.scene

    def shown(self, steps: Sequence[Step], slot: int) -> list[Shown]:
        """Run steps; return what shows."""
        try:
            found = self._differential.run(0, steps, slot)
        except LOST as error:
            self.qemu.restart()
            known = known_crash(str(error), self.qemu.version)
            return [] if known else [Shown(of_end(error))]
        return [
            Shown(of_finding(one.finding, event_at(one)))
            for one in found
            if self._differential.deviation(one) is None
        ]


def event_at(found: Divergence) -> Event | None:
    """Return the event that a divergence is about."""
    return found.events[found.finding.event] if found.finding.event >= 0 else None


class _Unknown:
    """Permit what the specification does."""

    def __init__(self, qemu: VtdQemu) -> None:
        self.qemu = qemu
        self._bare = Bare(qemu, _LENGTH)

    @property
    def scene(self) -> Scene:
        """Return what the machine has."""
        return self._bare.differential.scene

    def shown(self, steps: Sequence[Step], slot: int) -> list[Shown]:
        """Run steps; return what shows."""
        return [Shown(one.signature) for one in self._bare.run(steps, slot)]
