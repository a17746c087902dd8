"""What events can be applied to: one target per file."""

from harness.targets.base import (
    REAL_TARGETS,
    Counters,
    Machine,
    ReplayTarget,
    real_target_named,
    target_named,
    target_names,
)

__all__ = [
    "REAL_TARGETS",
    "Counters",
    "Machine",
    "ReplayTarget",
    "real_target_named",
    "target_named",
    "target_names",
]
