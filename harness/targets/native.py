"""The native core as a target: takes whole blocks, never enters Python per event."""

from __future__ import annotations

from harness.model.config import UnitConfig
from harness.native import NativeReplay, NativeVirtioReplay
from harness.targets.base import AnyConfig, ReplayTarget


def create(config: AnyConfig) -> ReplayTarget:
    """Build the target; raise HarnessError when the native core is not built."""
    return NativeReplay(config) if isinstance(config, UnitConfig) else NativeVirtioReplay(config)
