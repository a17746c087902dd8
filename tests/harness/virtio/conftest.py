"""One suite, two engines: every test here runs on the model and on the native core."""

from __future__ import annotations

from typing import Any, Protocol

import pytest

from harness.errors import HarnessError
from harness.model.virtio.unit import VirtioUnit
from harness.native import NativeVirtioUnit, core
from tests.harness.virtio.bench import DISK, MOVED, NIC, Bench, Engine, config


class MakeBench(Protocol):
    """Make a bench with three endpoints; arguments are those of bench.config."""

    def __call__(self, dialect: str = "spec", **options: Any) -> Bench: ...


@pytest.fixture(params=["model", "native"])
def target(request: pytest.FixtureRequest) -> str:
    """Name a target."""
    if request.param == "native":
        try:
            core()
        except HarnessError as error:
            pytest.skip(str(error))
    return str(request.param)


@pytest.fixture
def engine(target: str) -> Engine:
    """Build a unit from its configuration."""
    return VirtioUnit if target == "model" else NativeVirtioUnit


@pytest.fixture
def make_bench(engine: Engine) -> MakeBench:
    """Make benches."""

    def make(dialect: str = "spec", **options: Any) -> Bench:
        return Bench(engine(config(dialect, **options))).declare(NIC, DISK, MOVED)

    return make


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """Make a bench with a unit as the specification has it."""
    return make_bench()
