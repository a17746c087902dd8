"""The virtual command registers: PASIDs that a virtual unit hands out (VT-d VCMD_REG)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from heapq import heappop, heappush

from decoders.layout import Layout, layout
from decoders.vtd.registers import VIRTUAL_COMMAND_A, VIRTUAL_COMMANDS, Register
from harness.model.config import UnitConfig
from harness.model.registers import RegisterFile, touches

UNDEFINED = 1
"""Status of a command that is not known (QEMU's shared virtual memory series, v3.1)."""
FIRST_PASID, LAST_PASID = 1, (1 << 20) - 1


class Command(IntEnum):
    """Name the commands."""

    ALLOCATE = 1
    FREE = 2


@dataclass(frozen=True, slots=True)
class _Failure:
    """Status of a command that fails, by the place of VCCAP; Linux 5.13 and 5.14 read these."""

    no_pasid: int
    not_allocated: int


FAILURES = {
    place: _Failure(2, 2) if registers is VIRTUAL_COMMAND_A else _Failure(16, 16)
    for place, registers in VIRTUAL_COMMANDS.items()
}


class VirtualCommands:
    """Execute a command as it is written; the response is there at once, so IP is never seen."""

    def __init__(self, config: UnitConfig, registers: RegisterFile):
        self._registers = registers
        offered = config.virtual_commands if config.ecap("vcs") else 0
        self._group: dict[str, Register] = VIRTUAL_COMMANDS[offered] if offered else {}
        if offered:
            self._failures = FAILURES[offered]
            self._command = _layout(self._group["VCMD"])
            self._response = _layout(self._group["VCRSP"])
        self.reset()

    def reset(self) -> None:
        """Forget every PASID."""
        self._used: set[int] = set()
        self._freed: list[int] = []  # lowest first
        self._next = FIRST_PASID
        self._guessed = 0  # a PASID that the last command allocated
        if self._group:
            capability = self._group["VCCAP"]
            self._registers.put(capability, _layout(capability)["pas"], 1)

    def registers_written(self, offset: int, size: int) -> None:
        """Execute the command that a software write has left in the lower half of VCMD."""
        if not self._group or not touches(offset, size, self._group["VCMD"].offset):
            return
        content = (self._registers.load(self._group["VCMD"]),)
        operand = self._command["operand"].get(content) & LAST_PASID
        self._guessed = 0
        match self._command["cmd"].get(content):
            case Command.ALLOCATE:
                self._guessed = self._allocate()
                self._answer(0 if self._guessed else self._failures.no_pasid, self._guessed)
            case Command.FREE:
                self._answer(0 if self._free(operand) else self._failures.not_allocated)
            case _:
                self._answer(UNDEFINED)

    def adopt_read(self, offset: int, size: int, value: int) -> None:
        """Take over the PASID that the recorded unit handed out: any free one will do."""
        if not self._guessed or (offset, size) != (self._group["VCRSP"].offset, 8):
            return
        given = self._response["rslt"].get((value,))
        if FIRST_PASID <= given <= LAST_PASID and given not in self._used:
            self._free(self._guessed)
            self._used.add(given)
            self._guessed = given
            self._answer(0, given)

    # -- inside ------------------------------------------------------------------------------

    def _allocate(self) -> int:
        """Return the lowest PASID that is free, 0 when there is none."""
        while True:
            if self._freed:
                found = heappop(self._freed)
            elif self._next <= LAST_PASID:
                found, self._next = self._next, self._next + 1
            else:
                return 0
            if found not in self._used:
                self._used.add(found)
                return found

    def _free(self, pasid: int) -> bool:
        if pasid not in self._used:
            return False
        self._used.remove(pasid)
        if pasid < self._next:
            heappush(self._freed, pasid)
        return True

    def _answer(self, status: int, result: int = 0) -> None:
        words = [0]
        self._response["sc"].put(words, status)
        self._response["rslt"].put(words, result)
        self._registers.poke(self._group["VCRSP"], words[0])


def _layout(register: Register) -> Layout:
    assert register.fields is not None
    return layout(register.fields)
