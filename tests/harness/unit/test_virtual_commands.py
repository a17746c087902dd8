"""Virtual commands: PASIDs are handed out and given back, in both layouts (VT-d VCMD_REG)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from decoders.layout import layout
from decoders.vtd.registers import VIRTUAL_COMMAND_A, VIRTUAL_COMMAND_B, VIRTUAL_COMMANDS, Register
from tests.harness.unit.conftest import MakePlatform
from tests.writers.platform import Platform, quadword

ALLOCATE, FREE = 1, 2
PLACES = tuple(VIRTUAL_COMMANDS)
EXHAUSTED = {
    VIRTUAL_COMMAND_A["VCCAP"].offset: 2,
    VIRTUAL_COMMAND_B["VCCAP"].offset: 16,
}
"""Status of a command about a PASID that cannot be done, by the place of VCCAP."""


@dataclass
class Commands:
    """The virtual command registers of a platform."""

    platform: Platform
    registers: dict[str, Register]

    def write(self, command: int, operand: int = 0) -> None:
        """Give a command."""
        register = self.registers["VCMD"]
        assert register.fields is not None
        self.platform.program(register, quadword(register.fields, cmd=command, operand=operand))

    def response(self) -> tuple[int, int, int]:
        """Return IP, status and result."""
        register = self.registers["VCRSP"]
        assert register.fields is not None
        shape, value = layout(register.fields), (self.platform.register(register),)
        return shape["ip"].get(value), shape["sc"].get(value), shape["rslt"].get(value)

    def run(self, command: int, operand: int = 0) -> tuple[int, int]:
        """Give a command; return status and result, which are there at once."""
        self.write(command, operand)
        pending, status, result = self.response()
        assert not pending
        return status, result

    def recorded(self, pasid: int) -> None:
        """Say that a recording read a PASID from the response."""
        register = self.registers["VCRSP"]
        assert register.fields is not None
        value = quadword(register.fields, rslt=pasid)
        self.platform.unit.adopt_read(register.offset, register.size, value)


@pytest.fixture(params=PLACES, ids=hex)
def place(request: pytest.FixtureRequest) -> int:
    """Return where VCCAP is."""
    assert isinstance(request.param, int)
    return request.param


@pytest.fixture
def commands(make_platform: MakePlatform, place: int) -> Commands:
    """Make a unit with virtual commands."""
    return Commands(make_platform(vcs=1, virtual_commands=place), VIRTUAL_COMMANDS[place])


def test_the_capability_offers_pasids(commands: Commands) -> None:
    assert commands.platform.register(commands.registers["VCCAP"]) == 1


def test_pasids_are_handed_out_from_one_on(commands: Commands) -> None:
    assert [commands.run(ALLOCATE) for _ in range(3)] == [(0, 1), (0, 2), (0, 3)]


def test_a_pasid_that_is_given_back_is_handed_out_again(commands: Commands) -> None:
    for _ in range(4):
        commands.run(ALLOCATE)
    assert [commands.run(FREE, pasid) for pasid in (3, 2)] == [(0, 0), (0, 0)]
    assert [commands.run(ALLOCATE)[1] for _ in range(3)] == [2, 3, 5]


@pytest.mark.parametrize("pasid", [0, 7, 0xFFFFF])
def test_what_was_not_handed_out_cannot_be_given_back(
    commands: Commands, place: int, pasid: int
) -> None:
    assert commands.run(FREE, pasid) == (EXHAUSTED[place], 0)


def test_nothing_is_given_back_twice(commands: Commands, place: int) -> None:
    commands.run(ALLOCATE)
    assert commands.run(FREE, 1) == (0, 0)
    assert commands.run(FREE, 1) == (EXHAUSTED[place], 0)


@pytest.mark.parametrize("command", [0, 3, 255])
def test_other_commands_are_not_known(commands: Commands, command: int) -> None:
    assert commands.run(command) == (1, 0)


def test_a_reset_takes_every_pasid_back(commands: Commands) -> None:
    commands.run(ALLOCATE)
    commands.platform.unit.reset()
    assert commands.response() == (0, 0, 0)
    assert commands.run(ALLOCATE) == (0, 1)


def test_the_lower_half_of_the_register_gives_the_command(commands: Commands) -> None:
    offset = commands.registers["VCMD"].offset
    commands.platform.unit.write_register(offset + 4, 4, 0)
    assert commands.response() == (0, 0, 0)
    commands.platform.unit.write_register(offset, 4, ALLOCATE)
    assert commands.response() == (0, 0, 1)


def test_a_response_cannot_be_written(commands: Commands) -> None:
    commands.run(ALLOCATE)
    commands.platform.program(commands.registers["VCRSP"], (1 << 64) - 1)
    assert commands.response() == (0, 0, 1)


@pytest.mark.parametrize("options", [{"vcs": 0, "virtual_commands": PLACES[0]}, {"vcs": 1}])
def test_a_unit_may_have_none(make_platform: MakePlatform, options: dict[str, int]) -> None:
    commands = Commands(make_platform(**options), VIRTUAL_COMMAND_A)
    assert commands.platform.register(commands.registers["VCCAP"]) == 0
    assert commands.run(ALLOCATE) == (0, 0)


# -- what a recorded unit handed out ---------------------------------------------------------------


def test_a_recorded_unit_may_hand_out_any_free_pasid(commands: Commands) -> None:
    commands.run(ALLOCATE)
    commands.write(ALLOCATE)
    commands.recorded(2000)
    assert commands.response() == (0, 0, 2000)
    assert commands.run(FREE, 2000) == (0, 0)
    assert commands.run(ALLOCATE) == (0, 2)


def test_a_pasid_is_handed_out_once(commands: Commands) -> None:
    commands.run(ALLOCATE)
    commands.write(ALLOCATE)
    commands.recorded(1)
    assert commands.response() == (0, 0, 2)


def test_one_handed_out_ahead_is_passed_over(commands: Commands) -> None:
    commands.write(ALLOCATE)
    commands.recorded(2)
    assert [commands.run(ALLOCATE)[1] for _ in range(2)] == [1, 3]


@pytest.mark.parametrize("pasid", [0, 1 << 20])
def test_what_is_no_pasid_is_not_believed(commands: Commands, pasid: int) -> None:
    commands.write(ALLOCATE)
    commands.recorded(pasid)
    assert commands.response() == (0, 0, 1)


def test_only_an_allocation_leaves_a_choice(commands: Commands) -> None:
    commands.run(ALLOCATE)
    commands.write(FREE, 1)
    commands.recorded(9)
    assert commands.response() == (0, 0, 0)


def test_pasids_run_out(make_platform: MakePlatform) -> None:
    place = PLACES[0]
    commands = Commands(make_platform(vcs=1, virtual_commands=place), VIRTUAL_COMMANDS[place])
    register = commands.registers["VCMD"]
    for _ in range((1 << 20) - 1):
        commands.platform.unit.write_register(register.offset, 4, ALLOCATE)
    assert commands.response() == (0, 0, 0xFFFFF)
    assert commands.run(ALLOCATE) == (EXHAUSTED[place], 0)
    assert commands.run(FREE, 77) == (0, 0)
    assert commands.run(ALLOCATE) == (0, 77)
