"""The native core as a target: takes whole blocks, never enters Python per event."""

from __future__ import annotations

from harness.errors import HarnessError
from harness.model.config import UnitConfig
from harness.native import NativeReplay
from harness.targets.base import AnyConfig, ReplayTarget


def create(config: AnyConfig) -> ReplayTarget:
    """Build the target; raise HarnessError when the native core is not built."""
    if isinstance(config, UnitConfig):
        return NativeReplay(config)
    raise HarnessError("the native core has no virtio-iommu yet")
