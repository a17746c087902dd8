"""Every replay runs on the model and on the native core."""

from __future__ import annotations

import pytest

from harness.errors import HarnessError
from harness.native import core


@pytest.fixture(params=["model", "native"])
def target(request: pytest.FixtureRequest) -> str:
    """Name a target."""
    if request.param == "native":
        try:
            core()
        except HarnessError as error:
            pytest.skip(str(error))
    return str(request.param)
