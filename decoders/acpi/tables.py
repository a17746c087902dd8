"""Decode a table of any kind."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from decoders.acpi import dmar, iort, ivrs, viot
from decoders.acpi.reading import LARGEST_TABLE, NodeLists, Reading
from decoders.acpi.structures import HEADER_SIZE, Header
from decoders.acpi.tree import Rule, Table
from decoders.bytewise import size_of
from decoders.errors import DecodeError

_Reader = Callable[[Reading, str, int, int], NodeLists]

READERS: Final[dict[bytes, _Reader]] = {
    b"VIOT": viot.read_nodes,
    b"IORT": iort.read_nodes,
    b"DMAR": dmar.read_nodes,
    b"IVRS": ivrs.read_nodes,
}
"""Tables that are decoded; of any other only the header is."""

_WRAPPED: Final[dict[bytes, _Reader]] = {
    **READERS,
    b"IORT": functools.partial(iort.read_nodes, draft=True),
}

NO_HEADER: Final = frozenset({b"FACS"})
"""Tables with a signature and a length, but without the rest of the header."""


def read(data: bytes) -> Table:
    """Decode one table; raise DecodeError when a part of it cannot be.

    What is merely wrong (a checksum, a reference to nowhere) is for `validate` to find.
    """
    table = read_tolerant(data)
    error = why_incomplete(table)
    if error is not None:
        raise error
    return table


def why_incomplete(table: Table) -> DecodeError | None:
    """Return what keeps a table from being decoded to its end, if anything does."""
    for fault in table.faults:
        if fault.fatal:
            return DecodeError(fault.path, fault.problem, fault.offset)
    return None


def read_tolerant(data: bytes) -> Table:
    """Decode as much of a table as there is; its faults say what could not be.

    Whatever data is, encoding the result gives data again.
    """
    reading = Reading(bytes(data))
    size = len(data)
    signature = text(data[:4])
    path = _path_of(signature)
    if size > LARGEST_TABLE:
        problem = f"{size} bytes, more than the {LARGEST_TABLE} that are read"
        reading.fail(Rule.BOUND, path, problem, LARGEST_TABLE)
        table = Table(signature, path, 0, reading.rest(f"{path}.rest", 0, size))
    else:
        table = _table(reading, path, 0, size, READERS)
    faults = sorted(reading.violations, key=lambda fault: fault.offset)
    return replace(table, faults=tuple(faults))


def text(data: bytes) -> str:
    """Return a signature or an id as text that can be printed, whatever it is."""
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in data.rstrip(b"\0")
    )


def _path_of(signature: str) -> str:
    return signature.lower() if signature.isalnum() else "table"


def _table(
    reading: Reading, path: str, start: int, stop: int, readers: dict[bytes, _Reader]
) -> Table:
    """Read the table at start; what lies between its end and stop becomes its tail."""
    signature = reading.data[start : start + 4]
    name = text(signature)
    if signature in NO_HEADER:
        return Table(name, path, start, reading.rest(path, start, stop))
    header = reading.node(Header, path, start, stop)
    if header is None:
        return Table(name, path, start, reading.rest(f"{path}.rest", start, stop))
    length: int = header.body.length
    end = start + length
    if not HEADER_SIZE <= length <= stop - start:
        problem = f"{length} bytes, less than a header"
        if end > stop:
            problem = f"the table has {length} bytes, the data ends after {stop - start}"
        reading.fail(Rule.LENGTH, f"{path}.length", problem, header.locate("length"))
        end = stop
    trailing = reading.rest(f"{path}.trailing", end, stop)
    if trailing:
        problem = f"{stop - end} bytes follow the table"
        reading.note(Rule.TRAILING, f"{path}.trailing", problem, end)
    behind = start + HEADER_SIZE
    if signature == b"VIOT" and signature in readers and viot.is_draft(reading.data[start:end]):
        fixed = reading.node(viot.DraftViot, path, behind, end)
        at = behind + size_of(viot.DraftViot)
        if fixed is not None:
            inner = _path_of(text(reading.data[at : at + 4]))
            wrapped = _table(reading, f"{path}.{inner}", at, end, _WRAPPED)
            return Table(name, path, start, (header, fixed), (), trailing, wrapped)
    read_nodes = readers.get(signature)
    if read_nodes is None:
        body = reading.rest(f"{path}.data", behind, end)
        return Table(name, path, start, (header, *body), (), trailing)
    lead, nodes, rest = read_nodes(reading, path, start, end)
    return Table(name, path, start, (header, *lead), nodes, rest + trailing)
