"""Report everything that is wrong with a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from decoders.acpi import dmar_rules, iort_rules, ivrs_rules, viot_rules
from decoders.acpi.checking import Checks
from decoders.acpi.structures import Header, checksum
from decoders.acpi.tables import read_tolerant
from decoders.acpi.tree import Node, Rule, Table, Violation

_RULES: Final[dict[str, tuple[Callable[[Checks], None], frozenset[int]]]] = {
    "VIOT": (viot_rules.check, viot_rules.REVISIONS),
    "IORT": (iort_rules.check, iort_rules.REVISIONS),
    "DMAR": (dmar_rules.check, dmar_rules.REVISIONS),
    "IVRS": (ivrs_rules.check, ivrs_rules.REVISIONS),
}


def validate(data: bytes) -> list[Violation]:
    """Return every violation in one table, in the order of their offsets; raise nothing."""
    return validate_table(read_tolerant(data), data)


def validate_table(table: Table, data: bytes) -> list[Violation]:
    """Return every violation in a table that `read_tolerant` made of data."""
    found = list(table.faults)
    inner: Table | None = table
    while inner is not None:
        checks = Checks(inner)
        _header(checks, data)
        for node in inner.lead:
            checks.reserved(node)
        rules = _RULES.get(inner.signature)
        if rules is not None and inner.inner is None:
            rules[0](checks)
        found += checks.violations
        inner = inner.inner
    return sorted(found, key=lambda violation: violation.offset)


def _header(checks: Checks, data: bytes) -> None:
    node: Node | None = checks.table.lead[0] if checks.table.lead else None
    if node is None or not isinstance(node.body, Header):
        return
    header = node.body
    start, end = node.offset, node.offset + header.length
    total = checksum(data[start:end])
    if end <= len(data) and total:
        right = (header.checksum - total) & 0xFF
        problem = f"{header.checksum:#04x}, the other bytes ask for {right:#04x}"
        checks.field(Rule.CHECKSUM, node, "checksum", problem)
    rules = _RULES.get(checks.table.signature)
    if rules is not None and header.revision not in rules[1]:
        known = ", ".join(map(str, sorted(rules[1])))
        problem = f"{header.revision} is not known, {known} are"
        checks.field(Rule.REVISION, node, "revision", problem)
