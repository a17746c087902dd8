"""The native core. It speaks in plain values; harness.native turns them into dataclasses.

Outcomes are ("translation", address, mask) or ("fault", reason); of interrupts also ("message",
address, data) or ("posted", descriptor, vector, urgent); None is no outcome. Observations
are ("descriptor", words), ("fault-record", index, low, high), ("status-write", address, value),
("interrupt", address, data), ("fault-report", reason, flags, endpoint, address),
("page-request-record", address, words), ("page-response", sid, pasid, group, code) or
("device-tlb", sid, pasid, address, mask, every_pasid). Steps are (role, level, address, value).
Numbers of events and domains are -1 where there is none. Addresses, sizes and masks are unsigned
64-bit.

Methods that write guest memory raise MemoryError when they would touch more pages than the
configuration's page budget, and those that run the invalidation queue raise DescriptorError when
it executes more descriptors than the descriptor budget and eight for each event. Those of a
virtio-iommu raise MappingError when it remembers more than the mapping budget. Buffers are any
object with the buffer protocol; width and signedness of its elements must match, or the call raises
TypeError.
"""

import builtins
from collections.abc import Sequence
from typing import TypeAlias

from typing_extensions import Buffer

Outcome: TypeAlias = tuple[str, int, int] | tuple[str, int] | tuple[str, int, int, bool]
Step: TypeAlias = tuple[int, int, int, int]
Observation: TypeAlias = (
    tuple[str, tuple[int, ...]]
    | tuple[str, int, int]
    | tuple[str, int, int, int]
    | tuple[str, int, int, int, int]
    | tuple[str, int, tuple[int, ...]]
    | tuple[str, int, int | None, int, int]
    | tuple[str, int, int | None, int, int, bool]
)
Candidate: TypeAlias = tuple[Outcome, tuple[Step, ...], bool, str, int, int, int]
"""outcome, steps, fault_disable, cache ("" for the fresh one), domain, filled_by, changed_by."""
Remapping: TypeAlias = tuple[Outcome, tuple[Step, ...], bool, int, str, int, int]
"""The members of harness.model.interrupts.Remapping, in their order."""
Finding: TypeAlias = tuple[
    int,
    str,
    str,
    Outcome | Observation | bytes | int | None,
    tuple[Outcome | Observation | bytes | int, ...],
    tuple[Step, ...],
    str,
    int,
    int,
    int,
    int,
]
"""The members of harness.findings.Finding, in their order."""

instrumented: bool
"""Whether the core was built for libFuzzer: coverage, address and undefined sanitizers."""

NO_PASID: int
"""Stands for a request without PASID in Unit.translate."""

class MemoryError(builtins.MemoryError):  # noqa: A001
    """The page budget of guest memory is used up."""

class DescriptorError(RuntimeError):
    """The budget of invalidation descriptors is used up."""

class MappingError(RuntimeError):
    """The budget of mappings, domains and endpoints of a virtio-iommu is used up."""

class Config:
    """What a unit is built from.

    memory lists (start, length) of RAM. The four tables of fault reasons are one byte per member,
    in the order harness.model.dialects declares them; switches are all of the dialect's flags.
    Bit n of untraced_descriptors stands for descriptors of type n.
    """

    def __init__(
        self,
        *,
        capability: int,
        extended_capability: int,
        version: int,
        host_address_width: int,
        memory: Sequence[tuple[int, int]],
        page_budget: int,
        descriptor_budget: int,
        legacy_entries: bytes,
        scalable_entries: bytes,
        legacy_second_stage: bytes,
        scalable_second_stage: bytes,
        switches: dict[str, bool],
        untraced_descriptors: int,
        fault_record_ignored: int,
        updates: int,
        virtual_commands: int,
    ) -> None: ...

class Unit:
    """One VT-d unit, as harness.model.unit.VtdUnit describes it."""

    event: int
    """The number the next findings are reported under."""

    def __init__(self, config: Config) -> None: ...
    def reset(self) -> None:
        """Return to power-on state; guest memory survives."""

    def store(self, address: int, size: int, value: int, /) -> None:
        """Store 1, 2, 4 or 8 little-endian bytes."""

    def snapshot(self, address: int, data: Buffer, /) -> None:
        """Learn a page's content; bytes that data lacks are zero."""

    def load(self, address: int, length: int, /) -> bytes:
        """Return guest memory."""

    def last_writer(self, address: int, /) -> int | None:
        """Return the event that last wrote the quadword at address."""

    def read_register(self, offset: int, size: int, /) -> int:
        """Return what software reads from the register page."""

    def write_register(self, offset: int, size: int, value: int, /) -> None:
        """Apply a software write and what it sets off."""

    def access(
        self,
        sid: int,
        pasid: int | None,
        iova: int,
        kind: int,
        recorded: Outcome | None = None,
        attributes: int = 0,
    ) -> tuple[Candidate, ...]:
        """Answer a DMA request with what is permitted, the fresh outcome first.

        With a recorded outcome, judge it and take it over.
        """

    def interrupt(
        self, sid: int | None, address: int, data: int, recorded: Outcome | None = None
    ) -> tuple[Remapping, ...]:
        """Answer an interrupt request with what is permitted, the fresh outcome first.

        With a recorded outcome, judge it and take it over. sid None is not checked.
        """

    def page_request(
        self, sid: int, pasid: int | None, address: int, flags: int, group: int
    ) -> None:
        """Queue what a device asks for, or refuse it."""

    def adopt_read(self, offset: int, size: int, value: int, /) -> None:
        """Take over what a recorded register read shows of a choice that the unit was free in."""

    def translate(
        self,
        sids: Buffer,
        pasids: Buffer,
        iovas: Buffer,
        kinds: Buffer,
        addresses: Buffer,
        statuses: Buffer,
        attributes: Buffer | None,
        *,
        cold: bool,
    ) -> None:
        """Translate many requests at once: one outcome each, nothing recorded but A/D bits.

        sids u16, pasids u32 (NO_PASID for none), iovas u64, kinds u8 (AccessKind) and attributes u8
        (Attribute; None where there are none) are read; addresses u64 and statuses u8 (0, or the
        fault reason; 0x30 when aborted) are written. cold
        walks from the root for each request; otherwise a finite translation cache is asked first,
        which the unit's invalidations reach. Errors: ValueError when the lengths differ.
        """

    def use_wide_registers(self, wide: bool, /) -> None:
        """Allow translate what only some processors have (as it does by itself), or forbid it."""

    def adopt(self, seen: Observation, /) -> None:
        """Take over something the recorded unit did and this one did not."""

    def emitted(self) -> tuple[Observation, ...]:
        """Return and forget what the unit was seen doing."""

    def findings(self) -> tuple[Finding, ...]:
        """Return and forget the findings."""

class Replay:
    """Replay the raw content of blocks without entering Python for each event.

    One thread at a time; the GIL is released while events are applied.
    """

    def __init__(self, config: Config, findings_kept: int, bytes_kept: int) -> None: ...
    def feed(self, raw: Buffer) -> tuple[int, int, str] | None:
        """Apply the events of a block.

        Damage ends it, after the events before: the number of the event (counted over all that
        were fed), its offset in raw and the problem.
        """

    def finish(self) -> None:
        """Say that the trace has ended: what is still expected is missing."""

    def counters(self) -> dict[str, int]:
        """Return the counts, by the names of harness.targets.Counters."""

    def findings(self, start: int = 0) -> tuple[Finding, ...]:
        """Return the findings kept so far, from the one numbered start on."""

class VirtioConfig:
    """What a virtio-iommu is built from.

    statuses is one byte for each Condition; others is one number, whose bit n permits status n as
    well. Bit n of binding, doubtful and ignored stands for condition n. Switches are all of the
    dialect's flags.
    """

    def __init__(
        self,
        *,
        features: int,
        config: bytes,
        known: bool,
        mapping_budget: int,
        statuses: bytes,
        others: Sequence[int],
        binding: int,
        doubtful: int,
        ignored: int,
        trouble: bytes,
        unattached_reasons: bytes,
        fault_flags_ignored: int,
        endpoint_bits: int,
        switches: dict[str, bool],
    ) -> None: ...

class VirtioUnit:
    """One virtio-iommu, as harness.model.virtio.unit.VirtioUnit describes it."""

    event: int
    """The number the next findings are reported under."""

    def __init__(self, config: VirtioConfig) -> None: ...
    def reset(self) -> None:
        """Return to power-on state."""

    def device_reset(self) -> None:
        """Reset the device as its driver does."""

    def features(self, offered: int, accepted: int, /) -> None:
        """Learn which features are offered and accepted."""

    def endpoint(self, endpoint: int, regions: Sequence[tuple[int, int, int]], /) -> None:
        """Learn that an endpoint is there; regions are (subtype, start, end)."""

    def config_space(self, data: bytes, /) -> None:
        """Compare the config space with what was expected, and take it over."""

    def read_register(self, offset: int, size: int, /) -> int:
        """Return what the driver reads from the config space."""

    def write_register(self, offset: int, size: int, value: int, /) -> None:
        """Write the config space."""

    def request(self, data: bytes, room: int, recorded: bytes | None = None) -> tuple[bytes, ...]:
        """Answer a request with what is permitted; with a recorded answer, judge it."""

    def access(
        self, endpoint: int, iova: int, kind: int, recorded: Outcome | None = None
    ) -> tuple[Outcome, ...]:
        """Answer a DMA access with what is permitted; with a recorded outcome, judge it."""

    def same_report(self, expected: Observation, seen: Observation, /) -> bool:
        """Say whether a fault report may be the expected one."""

    def emitted(self) -> tuple[Observation, ...]:
        """Return and forget the fault reports."""

    def findings(self) -> tuple[Finding, ...]:
        """Return and forget the findings."""

    def domains(self) -> dict[int, tuple[bool, tuple[int, ...], tuple[tuple[int, ...], ...]]]:
        """Return each domain: bypass, endpoints, and (start, end, physical, flags) of mappings."""

class VirtioReplay:
    """Replay blocks on a virtio-iommu, as Replay does on a VT-d unit."""

    def __init__(self, config: VirtioConfig, findings_kept: int, bytes_kept: int) -> None: ...
    def feed(self, raw: Buffer) -> tuple[int, int, str] | None:
        """Apply the events of a block."""

    def finish(self) -> None:
        """Say that the trace has ended."""

    def counters(self) -> dict[str, int]:
        """Return the counts."""

    def findings(self, start: int = 0) -> tuple[Finding, ...]:
        """Return the findings kept so far, from the one numbered start on."""

AcpiDevice: TypeAlias = (
    tuple[str, int, int] | tuple[str, int] | tuple[str, bytes, bytes, bytes | None, int]
)
"""("pci", segment, bdf), ("mmio", address) or ("named", name, uid, number, id).

Names are UTF-8. number is what uid says as a decimal, little-endian and without zeros at its end;
None for one that is no decimal.
"""
AcpiProblem: TypeAlias = tuple[str, str, int]
"""The members of decoders.errors.DecodeError, in their order."""
AcpiAnswer: TypeAlias = (
    tuple[str, str, int, int, int, int, int, str, bool | None] | tuple[str, str, str, str]
)
"""("behind", kind, node, base, segment, bdf, endpoint, path, ats) or ("nowhere", why, path, text):
the members of harness.acpi.answers, in their order, the five after the tag those of Iommu."""

class AcpiQuestions:
    """Devices, and the bridges of their machine, that are looked for in any number of tables."""

    def __init__(
        self,
        devices: Sequence[AcpiDevice],
        bridges: Sequence[tuple[int, int, int, str]] | None,
    ) -> None:
        """Bridges are (segment, bdf, secondary, kind); None when they are not known.

        ValueError for a number that does not fit 32, 16 or 8 bits (an address 64).
        """

    def ask(self, data: Buffer) -> tuple[AcpiProblem | None, tuple[AcpiAnswer, ...]]:
        """Read a table; return why it cannot be read to its end, and an answer for each device."""

    def run(self, data: Buffer) -> None:
        """Do the same, and return nothing."""

class Scaffold:
    """What stands around an input, as fuzzers.scaffold.Scaffold describes it.

    memory, before and after are the raw content of blocks; pieces are (address, size).
    """

    def __init__(
        self,
        *,
        config: Config,
        memory: bytes,
        before: bytes,
        pieces: Sequence[tuple[int, int]],
        tail_offset: int,
        tail_step: int,
        after: bytes,
    ) -> None: ...

class ScaffoldRuns:
    """Run inputs in units that begin at the same point each time."""

    def __init__(self, scaffolds: Sequence[Scaffold]) -> None: ...
    def run(self, input: Buffer) -> None:  # noqa: A002
        """Run an input; its first byte chooses the scaffold."""

    def counters(self) -> dict[str, int]:
        """Return the counts of the last run."""

    def findings(self) -> tuple[Finding, ...]:
        """Return the first findings of the last run."""

class VirtioScaffold:
    """What stands around an input for a virtio-iommu, which is events itself."""

    def __init__(self, *, config: VirtioConfig, before: bytes, after: bytes) -> None: ...

class VirtioScaffoldRuns:
    """Run inputs in virtio-iommus, as ScaffoldRuns does."""

    def __init__(self, scaffolds: Sequence[VirtioScaffold]) -> None: ...
    def run(self, input: Buffer) -> None:  # noqa: A002
        """Run an input; its first byte chooses the scaffold."""

    def counters(self) -> dict[str, int]:
        """Return the counts of the last run."""

    def findings(self) -> tuple[Finding, ...]:
        """Return the first findings of the last run."""

def planted(input: Buffer) -> None:  # noqa: A002
    """Make a mistake that fuzzers must find; an instrumented build has this only."""

def settle() -> None:
    """Show libFuzzer what a run has reached that is new; an instrumented build has this only.

    Without DMAREWIND_NOVELTY in the environment libFuzzer sees all by itself.
    """

def plant(name: str) -> None:
    """Make a defect from now on; a bench build has this only. Errors: ValueError."""

def defects() -> list[tuple[str, str, str, str]]:
    """Return name, fuzz targets, source and meaning of each defect; a bench build has this only."""
