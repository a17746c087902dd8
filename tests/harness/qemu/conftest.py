"""Machines for the tests of the package; each test begins with a reset of one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.qemu.pc import Pc
from harness.qemu.unit import DEVICES
from harness.targets.qemu_runner import QemuRunner
from tests.harness.qemu.bench import Bench


@pytest.fixture(scope="session")
def machine() -> Iterator[Pc]:
    with Pc(DEVICES) as pc:
        yield pc


@pytest.fixture
def bench(machine: Pc) -> Bench:
    machine.reset()
    return Bench(machine)


@pytest.fixture(scope="module")
def runner() -> Iterator[QemuRunner]:
    with QemuRunner() as found:
        yield found
