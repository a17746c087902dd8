"""Print ACPI tables: their structures, what is wrong with them, and who is behind which IOMMU."""

from __future__ import annotations

from pathlib import Path

from decoders.acpi import (
    READERS,
    Found,
    Header,
    Table,
    read_file,
    read_tolerant,
    validate_table,
)
from decoders.acpi.files import LARGEST_FILE
from decoders.errors import DecodeError
from harness.acpi.resolve import resolve
from harness.acpi.show_nodes import as_json, show_node, show_violation, text_of
from harness.acpi.topology import PciDevice
from harness.errors import HarnessError
from harness.report import Report

FINE, FINDING = 0, 1


def show(report: Report, file: Path, device: int | None) -> int:
    """Print the tables of a file; return 1 when there are violations.

    Raise HarnessError when a table, or the file, cannot be decoded: after what can be is printed.
    device is the requester id of a PCI function whose IOMMU is wanted.
    """
    broken: list[str] = []
    violations = 0
    with file.open("rb") as stream:
        data = stream.read(LARGEST_FILE + 1)
    try:
        for index, found in enumerate(read_file(data)):
            table = read_tolerant(found.data)
            wrong = validate_table(table, found.data)
            _table(report, index, found, table)
            for violation in wrong:
                show_violation(report, violation, table=index)
            if device is not None and found.data[:4] in READERS:
                _device(report, index, table, PciDevice(0, device))
            broken += [str(violation) for violation in wrong if violation.fatal]
            violations += len(wrong)
    except DecodeError as error:
        broken.append(str(error))
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise HarnessError(f"{file}: {broken[0]}{more}")
    return FINDING if violations else FINE


def _table(report: Report, index: int, found: Found, table: Table) -> None:
    if report.json:
        members = {"table": index, "signature": table.signature, "place": found.place}
        report.emit(**members, bytes=len(found.data))
        for node in table.walk():
            report.emit(table=index, **as_json(node))
        return
    header = table.head(Header)
    made_by = ""
    if header is not None:
        maker = f"{text_of(header.oem_id)!r} {text_of(header.oem_table_id)!r}"
        made_by = f", revision {header.revision}, {maker}"
    report.heading(f"{table.signature}  {len(found.data)} bytes{made_by}")
    for node in table.walk():
        if not (isinstance(node.body, Header) and node.path == table.path):
            show_node(report, node, table.path)


def _device(report: Report, index: int, table: Table, device: PciDevice) -> None:
    answer = resolve(table, device)
    if report.json:
        report.emit(table=index, device=str(device), answer=str(answer))
    else:
        report.line(f"{device}: {answer}")
