"""The C++ core behind the same classes as the Python model; _core.pyi documents the module itself.

The core is the fast twin of harness.model: same permitted sets, findings, observations, registers
and memory. It is looked for beside this file, where the wheel and a development build put it, or
where the environment variable DMAREWIND_CORE says (the fuzzers' instrumented build).
"""

from harness.native.loading import available, core
from harness.native.replay import NativeReplay
from harness.native.unit import NativeUnit
from harness.native.virtio import NativeVirtioReplay, NativeVirtioUnit

__all__ = [
    "NativeReplay",
    "NativeUnit",
    "NativeVirtioReplay",
    "NativeVirtioUnit",
    "available",
    "core",
]
