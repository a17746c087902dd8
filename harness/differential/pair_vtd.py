"""The two implementations of a VT-d unit, in step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, get_args

from decoders.errors import DecodeError
from decoders.events import (
    Access,
    Event,
    InterruptRequest,
    Observation,
    PageRequest,
    RegRead,
    RegWrite,
    Reset,
    Snapshot,
    Store,
)
from harness.differential.pair import Pair
from harness.findings import Finding
from harness.memory import PAGE_SIZE
from harness.model.config import UnitConfig
from harness.model.interrupts import Remapping
from harness.model.translate import Candidate
from harness.model.unit import InterruptVerdict, Verdict, VtdUnit
from harness.native import NativeUnit
from harness.native.loading import within_budget
from harness.native.plain import (
    candidate,
    finding,
    observation,
    plain_candidate,
    plain_finding,
    plain_observation,
    plain_outcome,
    plain_remapping,
    remapping,
)
from harness.targets.model import SOURCE_ID

_SILENT: Final = frozenset({"store", "snapshot", "adopt", "adopt_read", "load"})
"""Operations behind which a recording may still show what came of an earlier one."""


class VtdPair(Pair):
    """Apply operations or events to two VT-d units and compare their answers.

    The core's answers stay in its plain form, which is cheap to compare, until they differ.
    """

    def __init__(self, config: UnitConfig) -> None:
        super().__init__()
        self.model, self.native = VtdUnit(config), NativeUnit(config)
        self._core = self.native.core
        self.findings: Sequence[Finding] = ()
        self.emitted: Sequence[Observation] = ()
        self._expected: deque[Observation] = deque()
        self._stored: set[int] = set()
        self._done: dict[type[Event], Callable[[Any], Any]] = {
            Store: lambda e: self.operate("store", e.address, e.size, e.value),
            Snapshot: lambda e: self.operate("snapshot", e.address, e.data),
            RegWrite: lambda e: self.operate("write_register", e.offset, e.size, e.value),
            RegRead: self._read,
            Access: self._access,
            InterruptRequest: lambda e: self.operate(
                "interrupt", e.sid, e.address, e.data, e.outcome
            ),
            PageRequest: lambda e: self.operate("page_request", e),
            Reset: lambda e: self.operate("reset"),
            **dict.fromkeys(get_args(Observation), self._observe),
        }
        self._called: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
            name: (getattr(self.model, name), getattr(self.native, name))
            for name in (
                "reset", "load", "store", "snapshot", "read_register", "adopt_read",
                "write_register", "page_request", "adopt",
            )
        }  # fmt: skip

    def apply(self, event: Event) -> Any:
        """Apply an event to both; return the model's verdict, or what a register reads."""
        done = self._done.get(type(event))
        if done is not None:
            return done(event)
        self.events += 1  # of a virtio-iommu, or about the recording
        return None

    def operate(self, name: str, *arguments: Any) -> Any:
        """Call a method of both units and compare all that can be seen at once."""
        self.model.event = self._core.event = self.events
        if name not in _SILENT:
            self._expected.clear()
        answer: Any
        if name == "access":
            answer = self._verdict(*arguments)
        elif name == "interrupt":
            answer = self._interrupt(*arguments)
        else:
            ours, theirs = self._called[name]
            answer, other = self.both(lambda: ours(*arguments), lambda: theirs(*arguments))
            if answer != other:
                self.differ(f"{name}{arguments}", answer, other)
            if name == "store":
                self._stored.add(arguments[0] & -8)
        self._compare_seen()
        self.events += 1
        return answer

    def compare(self) -> None:
        """Compare what only a look inside shows: registers, memory and who wrote it."""
        model, native = self.model, self.native
        for offset, register in model.registers.map.items():
            ours = model.read_register(offset, register.size)
            theirs = native.read_register(offset, register.size)
            if ours != theirs:
                self.differ(f"register {register.name}", hex(ours), hex(theirs))
        for page in model.memory.pages():
            ours_data, theirs_data = model.load(page, PAGE_SIZE), native.load(page, PAGE_SIZE)
            if ours_data != theirs_data:
                self._differ_in_memory(page, ours_data, theirs_data)
        for address in self._stored:
            writers = model.memory.last_writer(address), native.last_writer(address)
            if writers[0] != writers[1]:
                self.differ(f"last writer of {address:#x}", *writers)

    # -- inside ------------------------------------------------------------------------------

    def _read(self, event: RegRead) -> int:
        """Read a register; one value that was recorded is taken over before."""
        if event.value is not None:
            self.operate("adopt_read", event.offset, event.size, event.value)
            self.events -= 1
        value: int = self.operate("read_register", event.offset, event.size)
        return value

    def _access(self, event: Access) -> Verdict:
        if event.sid > SOURCE_ID:
            place = f"trace.event[{self.events}].sid"
            raise DecodeError(place, f"{event.sid:#x} is not a 16-bit source id")
        verdict: Verdict = self.operate(
            *("access", event.sid, event.pasid, event.iova, event.kind),
            *(event.outcome, event.attributes),
        )
        return verdict

    def _observe(self, seen: Observation) -> None:
        """Let both take over what neither did of itself."""
        expected = self._expected
        if seen not in expected:
            self.operate("adopt", seen)
            return
        while expected.popleft() != seen:
            pass
        self.events += 1

    def _verdict(self, sid: int, pasid: int | None, iova: int, kind: Any, *more: Any) -> Verdict:
        recorded = plain_outcome(more[0]) if more else None
        attributes = int(more[1]) if len(more) > 1 else 0
        verdict, theirs = self.both(
            lambda: self.model.access(sid, pasid, iova, kind, *more),
            lambda: within_budget(
                lambda: self._core.access(sid, pasid, iova, int(kind), recorded, attributes)
            ),
        )
        self._alike("permitted outcomes", verdict.permitted, theirs, plain_candidate, candidate)
        found: Verdict = verdict
        return found

    def _interrupt(self, sid: int | None, address: int, data: int, *more: Any) -> InterruptVerdict:
        recorded = plain_outcome(more[0]) if more else None
        verdict, theirs = self.both(
            lambda: self.model.interrupt(sid, address, data, *more),
            lambda: within_budget(lambda: self._core.interrupt(sid, address, data, recorded)),
        )
        self._alike("permitted outcomes", verdict.permitted, theirs, plain_remapping, remapping)
        found: InterruptVerdict = verdict
        return found

    def _compare_seen(self) -> None:
        """Compare findings and observations; most often there is none of either."""
        ours, theirs = self.model.findings(), self._core.findings()
        if ours or theirs:
            self._alike("findings", ours, theirs, plain_finding, finding)
        seen, plain = self.model.emitted(), self._core.emitted()
        if seen or plain:
            self._alike("observations", seen, plain, plain_observation, observation)
        self.findings, self.emitted = ours, seen
        self._expected.extend(seen)

    def _alike(
        self,
        what: str,
        ours: Sequence[Candidate | Remapping | Finding | Observation],
        theirs: Sequence[Any],
        plain: Callable[[Any], Any],
        rich: Callable[[Any], Any],
    ) -> None:
        if len(ours) != len(theirs) or any(
            plain(one) != other for one, other in zip(ours, theirs, strict=True)
        ):
            self.differ(what, list(ours), [rich(one) for one in theirs])

    def _differ_in_memory(self, page: int, ours: bytes, theirs: bytes) -> None:
        at = next(n for n in range(0, PAGE_SIZE, 8) if ours[n : n + 8] != theirs[n : n + 8])
        words = (hex(int.from_bytes(one[at : at + 8], "little")) for one in (ours, theirs))
        self.differ(f"memory at {page + at:#x}", *words)
