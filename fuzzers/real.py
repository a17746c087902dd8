"""Let a real QEMU go through what an input says, and have the model judge what it did.

What a row of the deviations explains is known, and no finding.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from fuzzers.choices import ByteRandom
from fuzzers.target import Found, Trace
from harness.deviations import known_crash as virtio_crash
from harness.deviations_vtd import known_crash as vtd_crash
from harness.differential.bare import Bare, of_end
from harness.differential.engine import Differential as VirtioDifferential
from harness.differential.real import Qemu
from harness.differential.vtd import Differential, Totals
from harness.errors import HarnessError
from harness.generate.virtio import Generator as VirtioGenerator
from harness.generate.vtd import Generator
from harness.generate.vtd_steps import Scene, Step
from harness.model.dialects import dialect_named
from harness.model.virtio.dialect import SPECIFICATION
from harness.qemu.process import LOST
from harness.qemu.unit import QemuUnit
from harness.qemu.vtd import VtdQemu
from harness.signature import of_finding
from harness.trace import Header

_INHERITED: Final = ("LD_PRELOAD", "ASAN_OPTIONS", "PYTHONMALLOC")
"""What this process runs in and a QEMU must not."""

JUDGES: Final = ("model",)
"""Who judges a real unit; the core is compared with the model elsewhere."""


def _alone() -> None:
    for name in _INHERITED:
        os.environ.pop(name, None)


class VtdJudge:
    """Run sequences on a VT-d unit of a QEMU; machine is one of harness.qemu.vtd's."""

    def __init__(self, steps: int, machine: str = "second-stage") -> None:
        self._steps = steps
        _alone()
        self.qemu = VtdQemu(machine)
        major, minor, *_ = self.qemu.version
        own = dialect_named(f"qemu-{major}.{minor}")
        self._differential = Differential(self.qemu, JUDGES, steps, own, own)

    @property
    def scene(self) -> Scene:
        """Return what the machine has."""
        return self._differential.scene

    @property
    def header(self) -> Header:
        """Return the header of its traces."""
        return self._differential.header

    @property
    def totals(self) -> Totals:
        """Return what was run."""
        return self._differential.totals

    def run(self, data: bytes) -> None:
        """Run one input; raise Found for what the deviations do not explain."""
        generator = Generator(self.scene, ByteRandom(data))
        self.judge(generator.sequence(self._steps), generator.slot)

    def judge(self, steps: Sequence[Step], slot: int) -> None:
        """Run steps with descriptors of so many bytes; raise Found as run() does."""
        differential = self._differential
        try:
            divergences = differential.run(0, steps, slot)
        except LOST as error:
            self.qemu.restart()
            if vtd_crash(str(error), self.qemu.version) is None:
                raise _ended(error, (differential.header, differential.events)) from error
            return
        for one in divergences:
            if differential.deviation(one) is None:
                event = one.events[one.finding.event] if one.finding.event >= 0 else None
                text = f"{one.finding}\n{one.facts}"
                trace = differential.header, one.events
                raise Found(of_finding(one.finding, event), text, trace)

    def close(self) -> None:
        """End QEMU."""
        self.qemu.close()


class BareVtdJudge:
    """Run sequences on a VT-d unit of a QEMU of which nothing is known."""

    def __init__(self, steps: int, machine: str = "second-stage") -> None:
        _alone()
        self.qemu = VtdQemu(machine)
        self._bare = Bare(self.qemu, steps)

    @property
    def scene(self) -> Scene:
        """Return what the machine has."""
        return self._bare.differential.scene

    @property
    def header(self) -> Header:
        """Return the header of its traces."""
        return self._bare.header

    def run(self, data: bytes) -> None:
        """Run one input; raise Found for all that the specification does not permit."""
        life = self._bare.made(ByteRandom(data))
        self.judge(life.steps, life.slot)

    def judge(self, steps: Sequence[Step], slot: int) -> None:
        """Run steps with descriptors of so many bytes; raise Found as run() does."""
        bare = self._bare
        found: list[Found] = []
        for one in bare.run(steps, slot):
            text = one.ended or f"{one.divergence and one.divergence.finding}"
            found.append(Found(one.signature, text, (bare.header, one.events)))
        if found:
            first, *more = found
            raise Found(first.signature, first.text, first.trace, more)

    def close(self) -> None:
        """End QEMU."""
        self.qemu.close()


class VirtioJudge:
    """Run sequences on a virtio-iommu of a QEMU, of which nothing is known without deviations."""

    def __init__(self, steps: int, *, deviations: bool = True) -> None:
        self._steps, self._deviations = steps, deviations
        _alone()
        self._unit = Qemu(QemuUnit())
        if not deviations:
            self._unit.hold_to(SPECIFICATION)
        self._differential = VirtioDifferential(self._unit, JUDGES, steps)

    def run(self, data: bytes) -> None:
        """Run one input; raise Found for what QEMU's dialect does not permit."""
        steps = VirtioGenerator(self._unit.scene, ByteRandom(data)).sequence(self._steps)
        try:
            divergence = self._differential.run(0, steps)
        except LOST as error:
            self._unit.restart()
            known = self._deviations and virtio_crash(str(error), self._unit.version)
            if not known:
                raise _ended(error, (self._unit.header, self._differential.events)) from error
            return
        if divergence is not None:
            event = divergence.events[divergence.finding.event]
            trace = self._unit.header, divergence.events
            raise Found(of_finding(divergence.finding, event), str(divergence.finding), trace)


def _ended(error: HarnessError, trace: Trace) -> Found:
    return Found(of_end(error), str(error), trace)
