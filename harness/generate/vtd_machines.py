"""Machines that no emulator has, for comparing the model with its faster twin, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Final

from decoders.events import AccessKind
from decoders.layout import Layout, layout
from decoders.vtd.registers import VIRTUAL_COMMANDS, Capability, ExtendedCapability
from harness.generate.vtd_steps import Device, Scene
from harness.model.config import UnitConfig, Updates
from harness.model.dialects import DIALECTS, SPECIFICATION, Dialect

_CAP: Final = layout(Capability)
_ECAP: Final = layout(ExtendedCapability)
_OFFERED: Final[dict[str, int]] = {
    "nd": 6, "sagaw": 0b1110, "mgaw": 56, "fro": 0x22, "sslps": 0b11, "psi": 1, "nfr": 3,
    "mamv": 18, "fs1gp": 1, "fs5lp": 1, "c": 1, "qi": 1, "dt": 1, "ir": 1, "eim": 1, "mhmv": 15,
    "pt": 1, "iro": 0xF, "ers": 1, "srs": 1, "eafs": 1, "pss": 19, "pasid": 1, "smts": 1,
    "ssads": 1, "ssts": 1, "fsts": 1, "rps": 1, "sc": 1, "mts": 1, "prs": 1, "pds": 1,
}  # fmt: skip
"""Fields of CAP and ECAP that a machine has unless it says otherwise."""

_MAY_VARY: Final[dict[str, tuple[int, ...]]] = {
    "cm": (0, 0, 1), "nfr": (0, 3), "mamv": (9, 18, 63), "rps": (0, 1), "rprivs": (0, 1),
    "ssads": (0, 1), "sc": (0, 1), "esrtps": (0, 1), "esirtps": (0, 1), "pi": (0, 1),
    "mhmv": (3, 15), "eafs": (0, 1), "srs": (0, 1), "ers": (0, 1), "pds": (0, 1), "mts": (0, 1),
}  # fmt: skip

_SIDS: Final = (0x18, 0x20, 0x85, 0x0110)
_START, _PAGES = 0x3C_0000, 64
_MEMORY: Final = ((0, 0xA_0000), (0x10_0000, 0x30_0000))
_KINDS: Final = (
    *(AccessKind.READ, AccessKind.WRITE) * 3,
    AccessKind.EXECUTE,
    AccessKind.UNKNOWN,
)


@dataclass(frozen=True, slots=True)
class Simulated:
    """Describe machines of one kind: what they offer otherwise, and what changes between them."""

    what: str
    offered: Mapping[str, int]
    dialects: tuple[str, ...] = (SPECIFICATION.name,)
    mixed: bool = False
    """Switches of dialects are set by chance."""


MACHINES: Final[dict[str, Simulated]] = {
    "legacy": Simulated("legacy mode only", {"smts": 0}, tuple(DIALECTS)),
    "caching": Simulated("caching mode", {"cm": 1}),
    "second": Simulated("second stage by PASID", {"fsts": 0}),
    "first": Simulated("first stage of 4 levels", {"ssts": 0, "fs5lp": 0}),
    "first-5": Simulated("first stage of 4 and 5 levels", {"ssts": 0}),
    "nested": Simulated("both stages, nested", {"nest": 1, "fs5lp": 0}),
    "nested-5": Simulated("both stages, nested, up to 5 levels each", {"nest": 1}),
    "abort": Simulated("abort mode", {"adms": 1}),
    "virtual": Simulated("virtual commands", {"vcs": 1}),
    "qemu": Simulated("as QEMU has it", {"eafs": 0, "srs": 0, "ers": 0}, tuple(DIALECTS)),
    "mixture": Simulated("dialects that nobody speaks", {"nest": 1}, tuple(DIALECTS), True),
}
"""Kinds of machines by name; sequences take turns."""


def simulated(name: str, random: Random) -> Scene:
    """Return a machine of a kind."""
    kind = MACHINES[name]
    offered = dict(_OFFERED)
    if random.random() < 0.7:
        for field, values in _MAY_VARY.items():
            if random.random() < 0.4:
                offered[field] = random.choice(values)
    offered |= kind.offered
    virtual = 0
    if offered.get("vcs"):
        virtual = random.choice(tuple(VIRTUAL_COMMANDS))
    config = UnitConfig(
        capability=_packed(_CAP, offered),
        extended_capability=_packed(_ECAP, offered),
        host_address_width=random.choice((39, 46, 46, 52)),
        memory=_MEMORY if random.random() < 0.7 else (),
        dialect=_dialect(kind, random),
        updates=random.choice((*[Updates.DONE] * 12, *Updates)),
        virtual_commands=virtual,
    )
    devices = [Device(sid, 64, _KINDS, 1) for sid in _SIDS]
    return Scene(config, devices, _START, _PAGES)


def _packed(shape: Layout, offered: Mapping[str, int]) -> int:
    words = [0]
    for name, value in offered.items():
        place = shape.fields.get(name)
        if place is not None:
            place.put(words, value)
    return words[0]


def _dialect(kind: Simulated, random: Random) -> Dialect:
    dialect = DIALECTS[random.choice(kind.dialects)]
    if kind.mixed:
        flags = {
            member.name: random.random() < 0.5
            for member in fields(Dialect)
            if member.type in ("bool", bool)
        }
        dialect = replace(dialect, **flags)  # type: ignore[arg-type]
    return dialect
