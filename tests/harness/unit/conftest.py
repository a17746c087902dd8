"""One suite, two engines: every test here runs on the model and on the native core."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.errors import HarnessError
from harness.model.unit import VtdUnit
from harness.native import NativeUnit, core
from tests.writers.platform import Engine, Platform, unit_config

MakePlatform = Callable[..., Platform]


@pytest.fixture(params=["model", "native"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Build a unit from its configuration."""
    if request.param == "model":
        return VtdUnit
    try:
        core()
    except HarnessError as error:
        pytest.skip(str(error))
    return NativeUnit


@pytest.fixture
def make_platform(engine: Engine) -> MakePlatform:
    """Make platforms; arguments are those of unit_config, among them any field of CAP and ECAP."""

    def make(**options: int | bool | str) -> Platform:
        config = unit_config(**options)  # type: ignore[arg-type]
        return Platform(engine(config), config)

    return make


@pytest.fixture
def platform(make_platform: MakePlatform) -> Platform:
    """Make a platform whose unit has all that the tests do not ask for by name."""
    return make_platform()
