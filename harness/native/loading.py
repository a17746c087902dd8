"""Find the extension module, and give it a unit's configuration in its own form."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast

from harness.errors import HarnessError
from harness.memory import MemoryBudgetError
from harness.model.config import UnitConfig
from harness.model.dialects import Dialect
from harness.model.queue import DescriptorBudgetError
from harness.model.virtio.config import MappingBudgetError
from harness.model.virtio.dialect import VirtioDialect

if TYPE_CHECKING:
    from harness.native import _core

MODULE = "harness.native._core"
CORE_VARIABLE = "DMAREWIND_CORE"
HOW_TO_BUILD = (
    "the native core is not built: pip install . builds it, or in a checkout "
    "cmake -S harness/native -B build/dev -DDMAREWIND_IN_PLACE=ON && cmake --build build/dev"
)

T = TypeVar("T")


def core() -> Any:
    """Return the extension module; raise HarnessError when it has not been built."""
    name = MODULE
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded
    path = os.environ.get(CORE_VARIABLE)
    if path:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise HarnessError(f"{CORE_VARIABLE}={path} is not a Python extension module")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
        return module
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise HarnessError(f"{HOW_TO_BUILD} ({error})") from error


def available() -> bool:
    """Say whether the core has been built."""
    try:
        core()
    except HarnessError:
        return False
    return True


def switches(dialect: type[Dialect | VirtioDialect]) -> tuple[str, ...]:
    """Return the names of a dialect's flags."""
    return tuple(member.name for member in fields(dialect) if member.type in ("bool", bool))


def native_config(config: UnitConfig) -> _core.Config:
    """Return a configuration in the core's form; the dialect's tables go with it."""
    dialect = config.dialect
    return cast(
        "_core.Config",
        core().Config(
            capability=config.capability,
            extended_capability=config.extended_capability,
            version=config.version,
            host_address_width=config.host_address_width,
            memory=list(config.memory),
            page_budget=config.page_budget,
            descriptor_budget=config.descriptor_budget,
            legacy_entries=bytes(astuple(dialect.legacy_entries)),
            scalable_entries=bytes(astuple(dialect.scalable_entries)),
            legacy_second_stage=bytes(astuple(dialect.legacy_second_stage)),
            scalable_second_stage=bytes(astuple(dialect.scalable_second_stage)),
            switches={name: getattr(dialect, name) for name in switches(type(dialect))},
            untraced_descriptors=sum(1 << kind for kind in dialect.untraced_descriptors),
            fault_record_ignored=dialect.fault_record_ignored,
            virtual_commands=config.virtual_commands,
            updates=int(config.updates),
        ),
    )


def within_budget(call: Callable[[], T]) -> T:
    """Call into the core; what it says about a budget becomes the model's error about it."""
    try:
        return call()
    except MemoryError as error:
        raise MemoryBudgetError(str(error)) from error
    except RuntimeError as error:
        if isinstance(error, core().DescriptorError):
            raise DescriptorBudgetError(str(error)) from error
        if isinstance(error, core().MappingError):
            raise MappingBudgetError(str(error)) from error
        raise
