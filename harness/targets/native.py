"""The native core as a target: takes whole blocks, never enters Python per event."""

from __future__ import annotations

from harness.model.config import UnitConfig
from harness.native import NativeReplay


def create(config: UnitConfig) -> NativeReplay:
    """Build the target; raise HarnessError when the native core is not built."""
    return NativeReplay(config)
