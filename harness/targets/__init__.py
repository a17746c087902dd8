"""What events can be applied to: one target per file."""

from harness.targets.base import Counters, ReplayTarget, target_named, target_names

__all__ = ["Counters", "ReplayTarget", "target_named", "target_names"]
