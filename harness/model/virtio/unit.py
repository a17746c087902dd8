"""One virtio-iommu: what its driver does to it, and what it may answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from decoders.bytewise import packed
from decoders.errors import DecodeError
from decoders.events import AccessKind, Fault, FaultReport, Outcome, Translation
from decoders.virtio_iommu.config import BYPASS_OFFSET, written_bypass
from decoders.virtio_iommu.constants import FaultFlag, Feature, RequestType, Status
from decoders.virtio_iommu.properties import read_properties
from decoders.virtio_iommu.requests import HEAD_SIZE, TAIL_SIZE, status_of
from decoders.virtio_iommu.structures import RequestTail
from harness.findings import FINDINGS_KEPT, Finding, FindingKind
from harness.model.virtio.access import Permitted, permitted
from harness.model.virtio.config import Parameters, VirtioConfig
from harness.model.virtio.domain import Mapping
from harness.model.virtio.requests import Handler
from harness.model.virtio.rules import DOUBTFUL, RULES, UNWRITTEN, Condition
from harness.model.virtio.state import Region, State
from harness.oracle import compatible, same_place
from harness.trace.checks import ANSWER_LIMIT

SEARCHES = FINDINGS_KEPT
"""Times that ended mappings are searched for one that explains a finding: no more are kept."""

_NO_RESERVED = bytes(3)
_NOT_WHOLE = {Condition.NO_HEAD_OR_TAIL, Condition.UNKNOWN_TYPE, Condition.SHORT_BODY}


class VirtioUnit:
    """Answer requests and accesses as one virtio-iommu may.

    Where more than one answer is permitted, the recorded one is taken over; a recorded answer that
    is not permitted is a finding, and taken over as well.
    """

    name = "model"

    def __init__(self, config: VirtioConfig):
        self.config = config
        self._state = State(config)
        self._handler = Handler(self._state)
        self._space = bytearray(config.config)
        self._known = config.known
        self._boot_bypass = self._state.parameters.bypass
        self._emitted: list[FaultReport] = []
        self._flags: set[int] = set()
        self._findings: list[Finding] = []
        self._searches = 0

    @property
    def event(self) -> int:
        """The number the next findings are reported under."""
        return self._state.event

    @event.setter
    def event(self, number: int) -> None:
        self._state.event = number

    @property
    def broken(self) -> bool:
        """Say whether the unit answers nothing until it is reset."""
        return self._state.broken

    def emitted(self) -> list[FaultReport]:
        """Return and forget the fault reports since the last call."""
        emitted, self._emitted = self._emitted, []
        return emitted

    def findings(self) -> list[Finding]:
        """Return and forget the findings since the last call."""
        findings, self._findings = self._findings, []
        return findings

    # --- life of the device --------------------------------------------------------------------

    def reset(self) -> None:
        """Return to power-on state; endpoints stay declared."""
        self._state.forget()
        self._set_bypass(self._boot_bypass)

    def device_reset(self) -> None:
        """Reset the device as its driver does: config.bypass survives."""
        self._state.device_reset()

    def features(self, offered: int, accepted: int) -> None:
        """Learn what was offered, and what the driver has accepted."""
        self._state.offered, self._state.accepted = offered, accepted

    def endpoint(self, endpoint: int, regions: tuple[Region, ...]) -> None:
        """Learn that an endpoint is there, and its reserved regions."""
        self._state.declare(endpoint, regions)

    def config_space(self, data: bytes) -> None:
        """Compare the config space as the driver sees it, and take it over.

        Only bypass belongs to the driver; the device may change everything else by itself.
        """
        there = len(data) > BYPASS_OFFSET
        if self._known and there and data[BYPASS_OFFSET] != self._state.parameters.bypass:
            expected = bytes(self._space[BYPASS_OFFSET : BYPASS_OFFSET + 1])
            seen = data[BYPASS_OFFSET : BYPASS_OFFSET + 1]
            self._diverged("config", seen, (expected,))
        if not self._known and there:
            self._boot_bypass = data[BYPASS_OFFSET]
        self._known = True
        self._space[:] = data
        self._state.parameters = Parameters.of(data)

    def read_register(self, offset: int, size: int) -> int:
        """Return what the driver reads from the config space; zero beyond its end."""
        return int.from_bytes(self._space[offset : offset + size], "little")

    def write_register(self, offset: int, size: int, value: int) -> None:
        """Write the config space: only bypass can be, and only to 0 or 1.

        A unit that breaks (`VirtioDialect.breaks`) does so when another value is new to it.
        """
        wanted = written_bypass(offset, size, value)
        state = self._state
        if wanted in (0, 1) and state.in_use(Feature.BYPASS_CONFIG):
            self._set_bypass(wanted)
        elif wanted is not None and wanted != state.parameters.bypass:
            state.broken |= self.config.dialect.breaks

    def _set_bypass(self, value: int) -> None:
        self._state.parameters.bypass = value
        if len(self._space) > BYPASS_OFFSET:
            self._space[BYPASS_OFFSET] = value

    # --- requests ------------------------------------------------------------------------------

    def request(self, data: bytes, room: int, recorded: bytes | None = None) -> tuple[bytes, ...]:
        """Answer a request with what is permitted, the expected answer first.

        With a recorded answer, judge it and take it over. data is what the device may read, room
        how many bytes it may write; an answer is what it writes. Nothing is permitted to a unit
        that is broken; one that answers is not. Nothing is returned, judged or taken over, either,
        where an answer is longer than any that a trace holds: ANSWER_LIMIT.
        """
        handler = self._handler
        conditions = handler.conditions(data, room)
        whole = not {*conditions} & _NOT_WHOLE
        probe = len(data) >= HEAD_SIZE and data[0] == RequestType.PROBE
        if self.config.dialect.breaks and Condition.NO_HEAD_OR_TAIL in conditions:
            self._state.broken = True
        if self._state.broken and recorded is None:
            return ()
        statuses = list(dict.fromkeys(self._statuses(data, conditions, whole)))
        if self._state.broken:
            self._state.broken, statuses = False, []
        short = not probe or self._answer_size(room) <= ANSWER_LIMIT
        if not short and any(status != UNWRITTEN for status in statuses):
            return ()
        all_of_it = probe and whole and short and self._has_room(room)
        payload = handler.payload(data) if all_of_it else b""
        answers = tuple(self._answer(status, probe, room, payload) for status in statuses)
        answer = answers[0] if recorded is None else recorded
        unforeseen = payload is None and Status.OK in statuses and self._is_probed(answer)
        if answer not in answers and not unforeseen:
            self._diverged("request", answer, answers)
        status = status_of(answer)
        if status == Status.OK:
            handler.succeed(data, answer)
        else:
            handler.fail(data, conditions, status)
        return answers

    def _statuses(self, data: bytes, conditions: Sequence[Condition], whole: bool) -> Iterator[int]:
        dialect = self.config.dialect
        statuses = [dialect.statuses.get(one, RULES[one].status) for one in conditions]
        if dialect.first_decides:
            # What is doubtful decides nothing.
            firm = [index for index, one in enumerate(conditions) if one not in DOUBTFUL]
            yield from statuses[: firm[0] + 1] if firm else [*statuses, Status.OK]
            if firm:
                yield from self._others(conditions[firm[0]])
            decided = conditions[:1] not in ([], [Condition.ATTACH_BYPASS])
        else:
            yield from [
                status
                for status, one in zip(statuses, conditions, strict=True)
                if RULES[one].binding
            ] or [Status.OK]
            yield from statuses
            for one in conditions:
                yield from self._others(one)
            decided = False
        if whole:
            if not decided and self._handler.may_be_absent(data):
                yield Status.NOENT
            yield from sorted(dialect.trouble)

    def _others(self, condition: Condition) -> list[int]:
        """Return what else a condition may be answered, if the unit's own status is not known."""
        known = condition in self.config.dialect.statuses
        return [] if known else sorted(RULES[condition].others)

    def _has_room(self, room: int) -> bool:
        """Say whether all of a PROBE's answer can be written."""
        return room >= self._state.parameters.probe_size + TAIL_SIZE

    def _answer_size(self, room: int) -> int:
        """Return the length of what a PROBE is answered, whatever its status."""
        if self._has_room(room):
            return self._state.parameters.probe_size + TAIL_SIZE
        return TAIL_SIZE if self.config.dialect.short_probe_tail_first else room

    def _answer(self, status: int, probe: bool, room: int, payload: bytes | None) -> bytes:
        if status == UNWRITTEN:
            return b""
        tail = packed(RequestTail).pack(status, _NO_RESERVED)
        if not probe:
            return tail
        if status == Status.OK and payload:
            return payload + tail
        return tail.rjust(self._answer_size(room), b"\0")

    def _is_probed(self, answer: bytes) -> bool:
        """Say whether an answer holds properties of an endpoint of which nothing is known."""
        size = self._state.parameters.probe_size
        if len(answer) != size + TAIL_SIZE or any(answer[size:]):
            return False
        try:
            for _ in read_properties(answer[:size], "probe"):
                pass
        except DecodeError:
            return False
        return True

    # --- accesses ------------------------------------------------------------------------------

    def access(
        self, endpoint: int, iova: int, kind: AccessKind, recorded: Outcome | None = None
    ) -> tuple[Outcome, ...]:
        """Answer a DMA access with what is permitted, the expected outcome first.

        With a recorded outcome, judge it. A permitted fault is reported in the event queue.
        """
        candidates = permitted(self._state, endpoint, iova, kind)
        outcomes = tuple(dict.fromkeys(candidate.outcome for candidate in candidates))
        fitting = candidates
        self._flags = set()
        if recorded is not None:
            fitting = [one for one in candidates if compatible(recorded, one.outcome, iova)]
            if not fitting:
                self._judge(endpoint, iova, recorded, candidates, outcomes)
                return outcomes
        chosen = fitting[0]
        # What fits both a mapping and its end shows neither.
        certain = all((one.mapping, one.gone) == (chosen.mapping, chosen.gone) for one in fitting)
        if recorded is not None and certain and chosen.mapping is not None:
            self._settle(endpoint, chosen.mapping, gone=chosen.gone)
        if isinstance(chosen.outcome, Fault) and not self._state.broken:
            report = FaultReport(chosen.outcome.reason, chosen.flags, endpoint, iova)
            self._emitted.append(report)
            self._flags = {one.flags for one in fitting if one.outcome == chosen.outcome}
        return outcomes

    def _settle(self, endpoint: int, mapping: Mapping, *, gone: bool) -> None:
        """Take over what an outcome shows of a mapping that may be gone."""
        number = self._state.attached[endpoint]
        if gone:
            self._state.drop(number, mapping)
        else:
            self._state.domains[number].doubtful.discard(mapping.start)

    def same_report(self, expected: FaultReport, seen: FaultReport) -> bool:
        """Say whether a fault report may be the expected one, that of the last access."""
        ignored = self.config.dialect.fault_flags_ignored
        same_place = expected.address == seen.address or not seen.flags & FaultFlag.ADDRESS
        same_cause = (expected.reason, expected.endpoint) == (seen.reason, seen.endpoint)
        known = any(
            not (flags ^ seen.flags) & ~int(ignored) for flags in {expected.flags, *self._flags}
        )
        return same_place and same_cause and known

    def _judge(
        self,
        endpoint: int,
        iova: int,
        recorded: Outcome,
        candidates: Sequence[Permitted],
        outcomes: tuple[Outcome, ...],
    ) -> None:
        state = self._state
        domains = {state.attached.get(endpoint, -1), state.left.get(endpoint, -1)}
        if isinstance(recorded, Translation) and self._searches < SEARCHES:
            self._searches += 1
            for dropped in reversed(state.dropped):
                mapping = dropped.mapping
                inside = mapping.start <= iova <= mapping.end
                if dropped.domain in domains and inside:
                    was = Translation(mapping.address(iova), 0)
                    if same_place(recorded, was, iova):
                        self._findings.append(
                            Finding(
                                self.event,
                                FindingKind.STALE_AFTER_INVALIDATION,
                                "access",
                                recorded,
                                outcomes,
                                (),
                                "domain",
                                dropped.domain,
                                mapping.event,
                                -1,
                                dropped.event,
                            )
                        )
                        return
        source = candidates[0].mapping
        self._findings.append(
            Finding(
                self.event,
                FindingKind.DIVERGENCE,
                "access",
                recorded,
                outcomes,
                (),
                "",
                state.attached.get(endpoint, -1),
                -1 if source is None else source.event,
            )
        )

    def _diverged(self, subject: str, observed: bytes, expected: tuple[bytes, ...]) -> None:
        self._findings.append(
            Finding(self.event, FindingKind.DIVERGENCE, subject, observed, expected)
        )

    # --- inspection ----------------------------------------------------------------------------

    def domains(self) -> dict[int, tuple[bool, tuple[int, ...], tuple[tuple[int, ...], ...]]]:
        """Return each domain: bypass, endpoints, and (start, end, physical, flags) of mappings."""
        return {
            number: (
                domain.bypass,
                tuple(sorted(domain.endpoints)),
                tuple((one.start, one.end, one.physical, one.flags) for one in domain),
            )
            for number, domain in sorted(self._state.domains.items())
        }
