"""The one exception every decoder raises."""

from __future__ import annotations


class DecodeError(Exception):
    """Report input that is not what it claims to be.

    path is where in the data the fault lies (``trace.block[3].event[17].size``), offset the byte
    (or, for line-oriented input, the line) it was found at; both appear in the message.
    """

    def __init__(self, path: str, problem: str, offset: int | None = None, unit: str = "offset"):
        self.path = path
        self.problem = problem
        self.offset = offset
        where = "" if offset is None else f", at {unit} {offset:#x}"
        if offset is not None and unit != "offset":
            where = f", at {unit} {offset}"
        super().__init__(f"{path}: {problem}{where}")
