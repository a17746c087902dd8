"""Let a real QEMU go through what an input says, and have the model judge what it did.

What a row of the deviations explains is known, and no finding.
"""

from __future__ import annotations

import os
from typing import Final

from fuzzers.choices import ByteRandom
from fuzzers.target import Found, Trace
from harness.deviations import known_crash as virtio_crash
from harness.deviations_vtd import known_crash as vtd_crash
from harness.differential.bare import Bare
from harness.differential.engine import Differential as VirtioDifferential
from harness.differential.real import Qemu
from harness.differential.vtd import Differential
from harness.generate.virtio import Generator as VirtioGenerator
from harness.generate.vtd import Generator
from harness.model.dialects import dialect_named
from harness.model.virtio.dialect import SPECIFICATION
from harness.qemu.process import EndedError
from harness.qemu.unit import QemuUnit
from harness.qemu.vtd import VtdQemu
from harness.signature import CRASH, Signature, of_crash, of_finding

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
        self._qemu = VtdQemu(machine)
        major, minor, *_ = self._qemu.version
        own = dialect_named(f"qemu-{major}.{minor}")
        self._differential = Differential(self._qemu, JUDGES, steps, own, own)

    def run(self, data: bytes) -> None:
        """Run one input; raise Found for what the deviations do not explain."""
        differential = self._differential
        generator = Generator(differential.scene, ByteRandom(data))
        steps = generator.sequence(self._steps)
        try:
            divergences = differential.run(0, steps, generator.slot)
        except EndedError as error:
            self._qemu.restart()
            if vtd_crash(str(error), self._qemu.version) is None:
                raise _ended(error, (differential.header, differential.events)) from error
            return
        for one in divergences:
            if differential.deviation(one) is None:
                event = one.events[one.finding.event] if one.finding.event >= 0 else None
                text = f"{one.finding}\n{one.facts}"
                trace = differential.header, one.events
                raise Found(of_finding(one.finding, event), text, trace)


class BareVtdJudge:
    """Run sequences on a VT-d unit of a QEMU of which nothing is known."""

    def __init__(self, steps: int, machine: str = "second-stage") -> None:
        _alone()
        self._bare = Bare(VtdQemu(machine), steps)

    def run(self, data: bytes) -> None:
        """Run one input; raise Found for all that the specification does not permit."""
        bare = self._bare
        life = bare.made(ByteRandom(data))
        found: list[Found] = []
        for one in bare.run(life.steps, life.slot):
            text = one.ended or f"{one.divergence and one.divergence.finding}"
            found.append(Found(one.signature, text, (bare.header, one.events)))
        if found:
            first, *more = found
            raise Found(first.signature, first.text, first.trace, more)

    def close(self) -> None:
        """End QEMU."""
        self._bare.qemu.close()


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
        except EndedError as error:
            self._unit.restart()
            known = self._deviations and virtio_crash(str(error), self._unit.version)
            if not known:
                raise _ended(error, (self._unit.header, self._differential.events)) from error
            return
        if divergence is not None:
            event = divergence.events[divergence.finding.event]
            trace = self._unit.header, divergence.events
            raise Found(of_finding(divergence.finding, event), str(divergence.finding), trace)


def _ended(error: EndedError, trace: Trace) -> Found:
    signature = of_crash(str(error))
    if signature.kind == CRASH:
        signature = Signature(CRASH, "QEMU", signature.subject, signature.outcome)
    return Found(signature, str(error), trace)
