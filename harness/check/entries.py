"""Rules about single table entries: reserved bits, what the unit does not have, domain ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from decoders.events import Role
from decoders.layout import Layout, layout
from decoders.vtd.paging import (
    LARGEST_LEAF,
    RESERVED_FIRST_STAGE,
    RESERVED_SECOND_STAGE,
    SNP_MASK,
    FirstStageEntry,
    SecondStageEntry,
)
from harness.check.queue import domains
from harness.check.rules import Rule
from harness.model.config import UnitConfig
from harness.model.lookup import (
    CONTEXT,
    DIRECTORY,
    DIRECTORY_MINIMUM_BITS,
    PASID,
    PASID_CAPABILITIES,
    PGTT_FIRST,
    PGTT_NESTED,
    PGTT_PASS_THROUGH,
    PGTT_SECOND,
    ROOT,
    SCALABLE_CONTEXT,
    SCALABLE_ROOT,
    TT_DEVICE_TLB,
    TT_PASS_THROUGH,
)
from harness.model.stages import ADDRESS_MASK, PRESENT

_SS_PS = layout(SecondStageEntry)["ps"].mask
_FS_PS = layout(FirstStageEntry)["ps"].mask
PAGE = 0x1000

RESERVED = Rule(
    "entry-reserved",
    "VT-d 9.1 to 9.6; faults LRT.3, LCT.3, SRT.3, SCT.3, SPD.3, SPT.3",
    "Reserved bits of a present root, context, PASID directory or PASID entry must be zero, those "
    "from the host address width on included. Every request that comes here is refused.",
)
INVALID = Rule(
    "entry-invalid",
    "VT-d 9.3, 9.4, 9.6; faults LCT.4, SCT.4, SPT.4",
    "A present context or PASID entry asks for what the unit does not have (translation type, "
    "address width, levels, an option without its capability). Every request that comes here is "
    "refused.",
)
PAGING_RESERVED = Rule(
    "paging-entry-reserved",
    "VT-d 9.7, 9.8; faults LSS.2, SSS.3, SFS.3",
    "Reserved bits of a present paging entry must be zero: address bits from the host address "
    "width on, address bits below a large page, PS where the unit has no such page, SNP without "
    "ECAP.SC. Every request that comes here is refused.",
)
DOMAIN = Rule(
    "entry-domain",
    "VT-d 9.3, 9.6, 11.4 (CAP.ND); 6.1 for caching mode",
    "A domain id must be below the number that CAP.ND gives, and must not be 0 in caching mode "
    "(CAP.CM = 1), where the unit tags with 0 the entries that are not present.",
)
RULES = (RESERVED, INVALID, PAGING_RESERVED, DOMAIN)

SIZES = {
    Role.ROOT: 16,
    Role.CONTEXT: 16,
    Role.SCALABLE_CONTEXT: 32,
    Role.PASID_DIRECTORY: 8,
    Role.PASID_TABLE: 64,
    Role.SECOND_STAGE: 8,
    Role.FIRST_STAGE: 8,
}
"""Bytes of an entry in a table of each role."""
STRUCTURES = {Role.CONTEXT, Role.SCALABLE_CONTEXT, Role.PASID_TABLE}
"""Roles whose entries have several quadwords and one bit that says present."""
STAGES = {Role.SECOND_STAGE, Role.FIRST_STAGE}

Found = Iterator[tuple[Rule, str]]
Words = Sequence[int]


def is_present(role: Role, words: Words) -> bool:
    """Say whether an entry leads anywhere; one of the two halves of a scalable root will do."""
    if role in STAGES:
        return bool(words[0] & PRESENT[role])
    return bool((words[0] | (words[1] if role is Role.ROOT else 0)) & 1)


def is_leaf(role: Role, level: int, entry: int) -> bool:
    """Say whether a present paging entry maps a page."""
    large = entry & (_SS_PS if role is Role.SECOND_STAGE else _FS_PS)
    return level == 1 or (level <= LARGEST_LEAF and bool(large))


def children(role: Role, level: int, words: Words, scalable: bool) -> list[int]:
    """Return the pages that a present entry leads to as tables."""
    match role:
        case Role.ROOT if scalable:
            halves = ((SCALABLE_ROOT[h + "p"], SCALABLE_ROOT[h + "ctp"]) for h in "lu")
            return [table.address(words) for present, table in halves if present.get(words)]
        case Role.ROOT:
            return [ROOT["ctp"].address(words)]
        case Role.CONTEXT:
            passes = CONTEXT["tt"].get(words) == TT_PASS_THROUGH
            return [] if passes else [CONTEXT["ssptptr"].address(words)]
        case Role.SCALABLE_CONTEXT:
            first = SCALABLE_CONTEXT["pasiddirptr"].address(words)
            size = 8 << SCALABLE_CONTEXT["pdts"].get(words) + DIRECTORY_MINIMUM_BITS
            return list(range(first, first + size, PAGE))
        case Role.PASID_DIRECTORY:
            return [DIRECTORY["smptblptr"].address(words)]
        case Role.PASID_TABLE:
            kind = PASID["pgtt"].get(words)
            stages = ((PASID["fsptptr"], PGTT_FIRST), (PASID["ssptptr"], PGTT_SECOND))
            return [root.address(words) for root, own in stages if kind in (own, PGTT_NESTED)]
        case Role.SECOND_STAGE | Role.FIRST_STAGE if not is_leaf(role, level, words[0]):
            return [words[0] & ADDRESS_MASK]
    return []


def entry_faults(role: Role, level: int, words: Words, config: UnitConfig, scalable: bool) -> Found:
    """Yield what is wrong with a present entry, the gravest first."""
    match role:
        case Role.SECOND_STAGE | Role.FIRST_STAGE:
            yield from _paging_faults(role, level, words[0], config)
        case Role.ROOT if scalable:
            yield from _reserved("root entry", SCALABLE_ROOT, words, (0, 1), config)
        case Role.ROOT:
            yield from _reserved("root entry", ROOT, words, (0,), config)
        case Role.CONTEXT:
            yield from _reserved("context entry", CONTEXT, words, (0,), config)
            yield from _context_faults(words, config)
            yield from _domain_faults(CONTEXT, words, config)
        case Role.SCALABLE_CONTEXT:
            yield from _reserved("context entry", SCALABLE_CONTEXT, words, (0,), config)
            if SCALABLE_CONTEXT["dte"].get(words) and not config.ecap("dt"):
                yield INVALID, "Context entry: DTE without ECAP.DT."
        case Role.PASID_DIRECTORY:
            yield from _reserved("PASID directory entry", DIRECTORY, words, (0,), config)
        case Role.PASID_TABLE:
            yield from _reserved("PASID entry", PASID, words, (0, 2), config)
            yield from _pasid_faults(words, config)
            yield from _domain_faults(PASID, words, config)


def _reserved(
    name: str, shape: Layout, words: Words, pointers: tuple[int, ...], config: UnitConfig
) -> Found:
    for index, (word, mask) in enumerate(zip(words, shape.reserved, strict=True)):
        bad = word & (mask | (config.beyond_host_pointer if index in pointers else 0))
        if bad:
            yield RESERVED, f"{name.capitalize()}: bits {bad:#x} of quadword {index} are set."


def _paging_faults(role: Role, level: int, entry: int, config: UnitConfig) -> Found:
    leaf = is_leaf(role, level, entry)
    if role is Role.SECOND_STAGE:
        mask = RESERVED_SECOND_STAGE.get((level, leaf), 0)
        if leaf and not config.ecap("sc"):
            mask |= SNP_MASK
        if leaf and level > 1 and not config.cap("sslps") >> (level - 2) & 1:
            mask |= _SS_PS
    else:
        mask = RESERVED_FIRST_STAGE.get((level, leaf), 0)
        if leaf and level == LARGEST_LEAF and not config.cap("fs1gp"):
            mask |= _FS_PS
    bad = entry & (mask | config.beyond_host)
    if bad:
        stage = "second" if role is Role.SECOND_STAGE else "first"
        yield PAGING_RESERVED, f"Bits {bad:#x} of a {stage}-stage entry of level {level} are set."


def _context_faults(words: Words, config: UnitConfig) -> Found:
    kind, width = CONTEXT["tt"].get(words), CONTEXT["aw"].get(words)
    needed = {TT_DEVICE_TLB: "dt", TT_PASS_THROUGH: "pt"}
    if kind == 3 or (kind in needed and not config.ecap(needed[kind])):
        yield INVALID, f"Context entry: translation type {kind}."
    elif not config.width_supported(width):
        yield INVALID, f"Context entry: address width {width}, CAP.SAGAW {config.cap('sagaw'):#x}."


def _pasid_faults(words: Words, config: UnitConfig) -> Found:
    kind = PASID["pgtt"].get(words)
    needed = {
        PGTT_FIRST: "fsts",
        PGTT_SECOND: "ssts",
        PGTT_NESTED: "nest",
        PGTT_PASS_THROUGH: "pt",
    }
    if kind not in needed or not config.ecap(needed[kind]):
        yield INVALID, f"PASID entry: translation type {kind}."
        return
    levels, width = PASID["fspm"].get(words), PASID["aw"].get(words)
    if kind in (PGTT_FIRST, PGTT_NESTED) and levels and (levels > 1 or not config.cap("fs5lp")):
        yield INVALID, f"PASID entry: first-stage paging mode {levels}."
    if kind in (PGTT_SECOND, PGTT_NESTED) and not config.width_supported(width):
        yield INVALID, f"PASID entry: address width {width}, CAP.SAGAW {config.cap('sagaw'):#x}."
    for name, capability in (*PASID_CAPABILITIES, ("ssade", "ssads")):
        if PASID[name].get(words) and not config.ecap(capability):
            yield INVALID, f"PASID entry: {name.upper()} without ECAP.{capability.upper()}."


def _domain_faults(shape: Layout, words: Words, config: UnitConfig) -> Found:
    domain = shape["did"].get(words)
    if domain >= domains(config):
        yield DOMAIN, f"Domain {domain:#x} of {domains(config):#x}."
    elif not domain and config.cap("cm"):
        yield DOMAIN, "Domain 0 in caching mode."
