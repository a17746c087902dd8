"""Fuzz ACPI tables: decoders, validator and resolver, and the core that has to say the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Final

from decoders.acpi import read_tolerant, validate_table
from fuzzers.acpi_compare import BRIDGES, DEVICES, Group, Tally
from fuzzers.acpi_mutations import mutate
from fuzzers.acpi_seeds import Seed, corpus, seed
from fuzzers.target import MODEL, NONE, Found, Runner
from harness.acpi.topology import MmioDevice, NamedDevice, PciDevice
from harness.native.acpi import NativeResolver
from harness.signature import DISAGREEMENT, INVARIANT, Signature
from harness.signature_words import without_numbers

_ASKED: Final = (PciDevice(0, 8), MmioDevice(0xB000), NamedDevice("\\_SB.DEV0"))
"""Devices that the fastest way looks for."""


class AcpiTarget:
    """Run tables through everything that reads them."""

    against: Sequence[str] = (MODEL, NONE)
    mutated: Sequence[str] = (MODEL,)
    max_size = 4096

    def __init__(self, name: str, what: str, signatures: Sequence[bytes]) -> None:
        self.name, self.what = name, what
        self.traced: Sequence[str] = ("decoders.acpi", "harness.acpi")
        self._signatures = tuple(signatures)
        self._known: dict[bytes, Seed] = {}

    def seeds(self) -> Iterable[bytes]:
        """Return tables."""
        for one in corpus():
            if one.data[:4] in self._signatures and len(one.data) <= self.max_size:
                yield one.data

    def dictionary(self) -> Iterable[bytes]:
        """Return signatures and the lengths of small structures."""
        yield from self._signatures
        yield from (
            length.to_bytes(size, "little") for size in (2, 4) for length in (8, 16, 24, 48)
        )

    def runner(self, against: str) -> Runner:
        """Return what runs a table."""
        resolver = NativeResolver(_ASKED, BRIDGES)
        if against == NONE:
            return resolver.run
        group = Group(DEVICES, BRIDGES, NativeResolver(DEVICES, BRIDGES))
        return lambda data: _check(data, group)

    def mutate(self, data: bytes, max_size: int, seed_number: int) -> bytes:
        """Change fields, nodes and lengths; mend length and checksum mostly."""
        known = self._known.get(data)
        if known is None:
            if len(self._known) > 256:
                self._known.clear()
            known = self._known[data] = seed("input", data)
        return mutate(known, Random(seed_number))[:max_size]

    def cross(self, first: bytes, second: bytes, max_size: int, seed_number: int) -> bytes:
        """Put nodes of one table behind the beginning of another."""
        random = Random(seed_number)
        ours, theirs = seed("first", first), seed("second", second)
        at = random.choice([end for _, end in ours.nodes] or [len(first)])
        start = random.choice([start for start, _ in theirs.nodes] or [0])
        made = bytearray(first[:at] + second[start:])
        if len(made) >= 8 and random.random() < 0.8:
            made[4:8] = len(made).to_bytes(4, "little")
        return bytes(made[:max_size])


def _check(data: bytes, group: Group) -> None:
    """Read, validate, write and resolve a table; raise Found where something is not as promised."""
    table = read_tolerant(data)
    if table.encode() != data:
        _broken("a table is written back as it was", data)
    for violation in validate_table(table, data):
        if not 0 <= violation.offset <= len(data):
            _broken(f"a violation lies within the table: {violation.path}", data)
    tally = Tally()
    tally.compare("input", data, group)
    if tally.differences:
        what = tally.differences[0].rpartition(";")[0]
        raise Found(
            Signature(DISAGREEMENT, "", without_numbers(what)[:120]), "\n".join(tally.differences)
        )


def _broken(promise: str, data: bytes) -> None:
    raise Found(Signature(INVARIANT, "", without_numbers(promise)), f"{promise}\n{data.hex()}")


def create() -> AcpiTarget:
    """Build the target of all kinds of tables."""
    signatures = (b"VIOT", b"DMAR", b"IORT", b"IVRS")
    return AcpiTarget("acpi", "VIOT, DMAR, IORT and IVRS tables", signatures)
