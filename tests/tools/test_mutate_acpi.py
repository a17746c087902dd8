"""The comparison of changed ACPI tables finds differences, and is the same every time."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from random import Random

import pytest

from decoders.acpi import LARGEST_TABLE
from decoders.errors import DecodeError
from fuzzers import acpi_mutations as mutations
from fuzzers.acpi_compare import Group, Tally
from fuzzers.acpi_seeds import bombs, corpus
from harness.acpi.answers import Answer, Behind
from harness.acpi.topology import PciDevice
from harness.native import available
from harness.native.acpi import NativeResolver
from tools.mutate_acpi import __main__ as command

SEEDS = {one.name: one for one in corpus()}
DEVICE = PciDevice(0, 0x20)


def test_the_same_seed_gives_the_same_table() -> None:
    one = SEEDS["rich.iort"]
    made = [mutations.mutate(one, Random("1")) for _ in range(2)]
    assert made[0] == made[1] != one.data
    assert mutations.mutate(one, Random("2")) != made[0]


@pytest.mark.parametrize(
    "change", dict.fromkeys(mutations.CHANGES), ids=lambda change: change.__name__
)
def test_every_change_changes_something(change: mutations.Change) -> None:
    different = 0
    for number in range(20):
        for one in SEEDS.values():
            data = bytearray(one.data)
            change(data, one, Random(number))
            different += data != one.data
            change(bytearray(), one, Random(number))  # what another change left may be nothing
    assert different > len(SEEDS)


def test_seeds_are_what_they_say() -> None:
    largest = max(bombs(), key=lambda one: len(one.data))
    assert len(largest.data) > LARGEST_TABLE
    for one in SEEDS.values():
        for start, end in one.nodes:
            assert one.start < start < end <= len(one.data), one.name
    assert any(one.start for one in SEEDS.values())  # drafts


class Lying(NativeResolver):
    """Answer wrongly in one respect."""

    def __init__(self, what: str) -> None:
        super().__init__([DEVICE])
        self.what = what

    def ask(self, data: bytes) -> tuple[DecodeError | None, list[Answer]]:  # type: ignore[override]
        problem, answers = super().ask(data)
        answer = answers[0]
        if self.what == "endpoint" and isinstance(answer, Behind):
            return problem, [replace(answer, endpoint=answer.endpoint + 1)]
        if self.what == "accepted":
            return None, answers
        if self.what == "offset" and problem is not None:
            return DecodeError(problem.path, problem.problem, 1), answers
        if self.what == "words" and problem is not None:
            return DecodeError(problem.path, "no", problem.offset), answers
        return problem, answers


@pytest.mark.skipif(not available(), reason="the native core is not built")
@pytest.mark.parametrize(
    ("what", "cut", "places"),
    [("endpoint", 0, 0), ("accepted", 5, 0), ("offset", 5, 0), ("words", 5, 1)],
)
def test_differences_are_found(what: str, cut: int, places: int) -> None:
    data = SEEDS["x86-virtio.viot"].data
    data = data[: len(data) - cut]
    sound, lying = Tally(), Tally()
    sound.compare("sound", data, Group((DEVICE,), None, NativeResolver([DEVICE])))
    assert (sound.differences, sound.refused, sound.same_text) == ([], cut // 5, cut // 5)
    lying.compare("lying", data, Group((DEVICE,), None, Lying(what)))
    assert len(lying.differences) == 1
    assert lying.differences[0].endswith(data.hex())
    assert (lying.same_place, lying.same_text) == (places, 0)


@pytest.mark.skipif(not available(), reason="the native core is not built")
def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--count", "30", "--seed", "a", "--json"]
    monkeypatch.setattr(sys, "argv", ["mutate_acpi", *arguments])
    monkeypatch.setattr(command, "bombs", list)  # they take a while
    command._prepared.cache_clear()
    try:
        assert command.main() == 0
    finally:
        command._prepared.cache_clear()
    printed = json.loads(capsys.readouterr().out)
    assert printed["tables"] > 30
    assert printed["differences"] == []
    assert set(printed["worst"]) == {"native", "python"}
