"""State: everything that runs. Consumes events, knows targets, never imports fuzzers."""

from harness.errors import HarnessError

__all__ = ["HarnessError"]
