"""From a source id to a paging root: root, context, PASID directory and PASID table entries.

VT-d specification 3.4 and 9; each check names its fault reason. Present is tested before reserved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from decoders.events import AccessKind, Attribute, Role
from decoders.layout import Layout, layout
from decoders.vtd.faults import Reason
from decoders.vtd.tables import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from harness.memory import Memory
from harness.model.config import UnitConfig, Updates
from harness.model.stages import NO_PASID, Host, PagingRoot
from harness.model.walk import Step

ROOT = layout(RootEntry)
SCALABLE_ROOT = layout(ScalableRootEntry)
CONTEXT = layout(ContextEntry)
SCALABLE_CONTEXT = layout(ScalableContextEntry)
DIRECTORY = layout(PasidDirectoryEntry)
PASID = layout(PasidEntry)

TTM_LEGACY, TTM_SCALABLE, TTM_ABORT = 0, 1, 3
TT_UNTRANSLATED, TT_DEVICE_TLB, TT_PASS_THROUGH = 0, 1, 2
PGTT_FIRST, PGTT_SECOND, PGTT_NESTED, PGTT_PASS_THROUGH = 1, 2, 3, 4
DIRECTORY_SHIFT = 6
"""PASID bits below the directory index: a PASID table holds 64 entries."""
DIRECTORY_MINIMUM_BITS = 7
FIRST_STAGE_LEVELS = {0: 4, 1: 5}
"""Levels by FSPM."""
PASID_CAPABILITIES = (
    ("sre", "srs"),
    ("ere", "ers"),
    ("eafe", "eafs"),
    ("pgsnp", "sc"),
    ("cd", "mts"),
    ("emte", "mts"),
    ("emt", "mts"),
)
"""Fields of a PASID entry that need a capability, and its name in ECAP."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A valid entry and the quadwords that were read to reach it."""

    words: tuple[int, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Blocked:
    """A lookup that ends in a fault; fault_disable is the FPD bit in force.

    kept says that the last entry read is the reason: in caching mode it may be cached.
    """

    reason: int
    fault_disable: bool
    steps: tuple[Step, ...]
    kept: bool = False


def second_stage_levels(aw: int) -> int:
    """Return the levels an AW code means (1: 3, 2: 4, 3: 5)."""
    return aw + 2


def _read(
    memory: Memory, address: int, words: int, role: Role
) -> tuple[tuple[int, ...], tuple[Step, ...]] | None:
    values: list[int] = []
    steps: list[Step] = []
    for at in range(address, address + 8 * words, 8):
        value = memory.quadword(at)
        if value is None:
            return None
        values.append(value)
        steps.append(Step(role, 0, at, value))
    return tuple(values), tuple(steps)


def _reserved(
    shape: Layout, words: tuple[int, ...], pointers: tuple[int, ...], beyond: int
) -> bool:
    """Test reserved bits; pointers lists the quadwords that hold an address."""
    return any(
        word & (mask | (beyond if index in pointers else 0))
        for index, (word, mask) in enumerate(zip(words, shape.reserved, strict=True))
    )


REFUSED_BY_CONTEXT: Final = frozenset(
    (
        Reason.SM_PASID_DISABLED,
        Reason.SM_PASID_BEYOND_DIRECTORY,
        Reason.SM_RID_PASID_BEYOND_DIRECTORY,
    )
)
"""What a scalable context entry says alone, before a PASID entry is looked for."""


class Lookup:
    """Read the structures that RTADDR leads to."""

    def __init__(self, config: UnitConfig, memory: Memory):
        self._config = config
        self._memory = memory
        self.root_pointer = 0
        self.mode = TTM_LEGACY
        reasons = config.dialect.scalable_second_stage
        table = int(Reason.FS_TABLE_BEYOND_SECOND_STAGE)
        self._top_reasons = replace(
            reasons, beyond_width=table, no_read=int(Reason.FS_ROOT_NO_READ)
        )
        self._table_reasons = replace(
            reasons, beyond_width=table, no_read=int(Reason.FS_TABLE_NO_READ)
        )

    def latch(self, pointer: int, mode: int) -> None:
        """Take over what RTADDR says."""
        self.root_pointer = pointer
        if not self._config.dialect.root_mode_checked:
            mode = TTM_SCALABLE if mode & 1 and self._config.ecap("smts") else TTM_LEGACY
        self.mode = mode

    @property
    def aborting(self) -> bool:
        """Say whether the unit aborts every request, and reports none (RTADDR.TTM 3)."""
        return self.mode == TTM_ABORT and bool(self._config.ecap("adms"))

    def context(self, sid: int) -> Entry | Blocked:
        """Return the context entry of a source id, or why it blocks the request."""
        config = self._config
        usable = self.mode == TTM_LEGACY
        if self.mode == TTM_SCALABLE and config.ecap("smts"):
            usable = True
        if config.dialect.root_pointer_checked and self.root_pointer & config.beyond_host_pointer:
            usable = False
        return self._context(sid) if usable else Blocked(Reason.ROOT_TABLE_ADDRESS, False, ())

    def _context(self, sid: int) -> Entry | Blocked:
        scalable = self.mode == TTM_SCALABLE
        dialect, beyond = self._config.dialect, self._config.beyond_host_pointer
        reasons = dialect.scalable_entries if scalable else dialect.legacy_entries
        bus, function = sid >> 8, sid & 0xFF
        root = self.root_pointer & ~beyond
        found = _read(self._memory, root + 16 * bus, 2, Role.ROOT)
        if found is None:
            return Blocked(reasons.root_read, False, ())
        words, steps = found
        if scalable:
            half = "u" if function >> 7 else "l"
            present = SCALABLE_ROOT.fields[half + "p"].get(words)
            table = SCALABLE_ROOT.fields[half + "ctp"].address(words)
            bad = _reserved(SCALABLE_ROOT, words, (0, 1), beyond)
            role, size = Role.SCALABLE_CONTEXT, SCALABLE_CONTEXT.words
            function &= 0x7F
        else:
            present = ROOT.fields["p"].get(words)
            table = ROOT.fields["ctp"].address(words)
            bad = _reserved(ROOT, words, (0,), beyond)
            role, size = Role.CONTEXT, CONTEXT.words
        if not present:
            return Blocked(reasons.root_not_present, False, steps, kept=True)
        if bad:
            return Blocked(reasons.root_reserved, False, steps, kept=True)
        found = _read(self._memory, table + 8 * size * function, size, role)
        if found is None:
            return Blocked(reasons.context_read, False, steps)
        words, more = found
        steps += more
        shape = SCALABLE_CONTEXT if scalable else CONTEXT
        disable = bool(shape.fields["fpd"].get(words))
        if not shape.fields["p"].get(words):
            return Blocked(reasons.context_not_present, disable, steps, kept=True)
        if _reserved(shape, words, (0,), beyond):
            return Blocked(reasons.context_reserved, disable, steps, kept=True)
        if not scalable and not self._legacy_context_valid(words):
            return Blocked(reasons.context_invalid, disable, steps, kept=True)
        return Entry(words, steps)

    def context_words(self) -> int:
        """Return the quadwords of a context entry in this mode."""
        return (CONTEXT if self.mode == TTM_LEGACY else SCALABLE_CONTEXT).words

    def context_disables(self, context: tuple[int, ...]) -> bool:
        """Return FPD of a context entry."""
        shape = CONTEXT if self.mode == TTM_LEGACY else SCALABLE_CONTEXT
        return bool(shape.fields["fpd"].get(context))

    def type_fault(self, context: tuple[int, ...], attributes: Attribute) -> int:
        """Return why a context entry blocks requests of a device TLB, 0 when it does not."""
        if not attributes & (Attribute.TRANSLATION_REQUEST | Attribute.TRANSLATED):
            return 0
        if self._config.dialect.device_requests_unchecked:
            return 0
        if self.mode == TTM_LEGACY:
            allowed = CONTEXT.fields["tt"].get(context) == TT_DEVICE_TLB
            return 0 if allowed else Reason.REQUEST_TYPE_BLOCKED
        dte = SCALABLE_CONTEXT.fields["dte"].get(context)
        return 0 if dte else Reason.SM_DEVICE_TLB_DISABLED

    def privileged(
        self, context: tuple[int, ...], pasid: int | None, attributes: Attribute
    ) -> bool:
        """Say whether a request is a supervisor's: it says so, or RID_PRIV does for its device."""
        if attributes & Attribute.PRIVILEGED:
            return True
        stands_in = pasid is None and self._config.ecap("rprivs")
        return bool(stands_in and SCALABLE_CONTEXT.fields["rid_priv"].get(context))

    def _legacy_context_valid(self, words: tuple[int, ...]) -> bool:
        config, aw = self._config, CONTEXT.fields["aw"].get(words)
        if not config.width_supported(aw):
            return False
        match CONTEXT.fields["tt"].get(words):
            case 0:
                return True
            case 1:
                return bool(config.ecap("dt"))
            case 2:
                wide = aw == config.widest or config.dialect.pass_through_any_width
                return bool(config.ecap("pt")) and wide
            case _:
                return False

    def legacy_root(self, words: tuple[int, ...]) -> PagingRoot:
        """Return the paging root a valid legacy context entry describes."""
        passes = CONTEXT.fields["tt"].get(words) == TT_PASS_THROUGH
        return PagingRoot(
            domain=CONTEXT.fields["did"].get(words),
            pasid=NO_PASID,
            stage=None if passes else Role.SECOND_STAGE,
            pointer=CONTEXT.fields["ssptptr"].address(words),
            levels=second_stage_levels(CONTEXT.fields["aw"].get(words)),
            fault_disable=bool(CONTEXT.fields["fpd"].get(words)),
            reasons=self._config.dialect.legacy_second_stage,
        )

    def effective_pasid(self, context: tuple[int, ...], pasid: int | None) -> int:
        """Return the PASID a request uses: its own, or RID_PASID where the unit has it."""
        if pasid is not None:
            return pasid
        if self._config.ecap("rps") or self._config.dialect.honours_rid_pasid:
            return SCALABLE_CONTEXT.fields["rid_pasid"].get(context)
        return 0

    def pasid(self, context: Entry, pasid: int | None) -> Entry | Blocked:
        """Return the PASID table entry of a request in scalable mode, or why it blocks it."""
        fields = SCALABLE_CONTEXT.fields
        disable = bool(fields["fpd"].get(context.words))
        steps = context.steps
        checked = self._config.dialect.pasid_structures_checked
        if checked and pasid is not None and not fields["paside"].get(context.words):
            return Blocked(Reason.SM_PASID_DISABLED, disable, steps)
        number = self.effective_pasid(context.words, pasid)
        bits = fields["pdts"].get(context.words) + DIRECTORY_MINIMUM_BITS + DIRECTORY_SHIFT
        if checked and number >> bits:
            beyond = (
                Reason.SM_RID_PASID_BEYOND_DIRECTORY
                if pasid is None
                else Reason.SM_PASID_BEYOND_DIRECTORY
            )
            return Blocked(beyond, disable, steps)
        directory = fields["pasiddirptr"].address(context.words)
        found = _read(
            self._memory, directory + 8 * (number >> DIRECTORY_SHIFT), 1, Role.PASID_DIRECTORY
        )
        if found is None:
            return Blocked(Reason.PASID_DIRECTORY_ACCESS, disable, steps)
        words, more = found
        steps += more
        disable = disable or bool(DIRECTORY.fields["fpd"].get(words))
        if not DIRECTORY.fields["p"].get(words):
            return Blocked(Reason.PASID_DIRECTORY_NOT_PRESENT, disable, steps, kept=True)
        if checked and _reserved(DIRECTORY, words, (0,), self._config.beyond_host_pointer):
            return Blocked(Reason.PASID_DIRECTORY_RESERVED, disable, steps, kept=True)
        table = DIRECTORY.fields["smptblptr"].address(words)
        index = number & (1 << DIRECTORY_SHIFT) - 1
        found = _read(self._memory, table + 8 * PASID.words * index, PASID.words, Role.PASID_TABLE)
        if found is None:
            return Blocked(Reason.PASID_ACCESS, disable, steps)
        words, more = found
        steps += more
        disable = disable or bool(PASID.fields["fpd"].get(words))
        reason = self._pasid_fault(words)
        return Blocked(reason, disable, steps, kept=True) if reason else Entry(words, steps)

    def _pasid_fault(self, words: tuple[int, ...]) -> int:
        fields, config = PASID.fields, self._config
        if not fields["p"].get(words):
            early = config.dialect.pasid_type_before_present and not self._type_usable(words)
            return Reason.PASID_INVALID if early else Reason.PASID_NOT_PRESENT
        checked = config.dialect.pasid_structures_checked
        if checked and _reserved(PASID, words, (0, 2), config.beyond_host_pointer):
            return Reason.PASID_RESERVED
        if not self._type_usable(words) or (checked and self._unsupported(words)):
            return Reason.PASID_INVALID
        return 0

    @staticmethod
    def pasid_refuses(words: tuple[int, ...], kind: AccessKind, privileged: bool) -> int:
        """Return why a valid PASID entry blocks this request, 0 when it does not."""
        fields = PASID.fields
        if kind == AccessKind.EXECUTE and not fields["ere"].get(words):
            return Reason.PASID_EXECUTE_DISABLED
        if privileged and not fields["sre"].get(words):
            return Reason.PASID_SUPERVISOR_DISABLED
        return 0

    def _unsupported(self, words: tuple[int, ...]) -> bool:
        """Say whether a PASID entry asks for what ECAP does not offer."""
        return any(
            PASID.fields[name].get(words) and not self._config.ecap(capability)
            for name, capability in PASID_CAPABILITIES
        )

    def _type_usable(self, words: tuple[int, ...]) -> bool:
        config = self._config
        match PASID.fields["pgtt"].get(words):
            case 1:
                return bool(config.ecap("fsts")) and self._first_stage_usable(words)
            case 2:
                return bool(config.ecap("ssts")) and self._second_stage_usable(words)
            case 3:
                both = self._first_stage_usable(words) and self._second_stage_usable(words)
                return bool(config.ecap("nest")) and both and not config.dialect.nested_unsupported
            case 4:
                return bool(config.ecap("pt"))
            case _:
                return False

    def _first_stage_usable(self, words: tuple[int, ...]) -> bool:
        five_levels = PASID.fields["fspm"].get(words)
        return five_levels == 0 or (five_levels == 1 and bool(self._config.cap("fs5lp")))

    def _second_stage_usable(self, words: tuple[int, ...]) -> bool:
        fields, config = PASID.fields, self._config
        dirty = not fields["ssade"].get(words) or bool(config.ecap("ssads"))
        dirty = dirty or not config.dialect.dirty_tracking_checked
        return config.width_supported(fields["aw"].get(words)) and dirty

    def scalable_root(
        self, context: tuple[int, ...], entry: Entry, pasid: int, privileged: bool
    ) -> PagingRoot:
        """Return the paging root a valid PASID entry describes."""
        fields, words = PASID.fields, entry.words
        domain = fields["did"].get(words)
        # FPD is in force when any of the three entries that led here has it.
        disable = bool(SCALABLE_CONTEXT.fields["fpd"].get(context) or fields["fpd"].get(words))
        disable = disable or any(
            step.role == Role.PASID_DIRECTORY and DIRECTORY.fields["fpd"].get((step.value,))
            for step in entry.steps
        )
        reasons = self._config.dialect.scalable_second_stage
        updates = self._config.updates
        if updates == Updates.NOT_SNOOPED and fields["pwsnp"].get(words):
            updates = Updates.DONE
        second = PagingRoot(
            domain,
            NO_PASID,
            Role.SECOND_STAGE,
            fields["ssptptr"].address(words),
            second_stage_levels(fields["aw"].get(words)),
            disable,
            reasons,
            execute_enable=bool(fields["ssee"].get(words)),
            accessed_dirty=bool(fields["ssade"].get(words) and self._config.ecap("ssads")),
            updates=updates,
        )
        host = None
        match fields["pgtt"].get(words):
            case 2:
                return second
            case 3:
                host = Host(
                    replace(second, reasons=self._top_reasons),
                    replace(second, reasons=self._table_reasons),
                    second,
                )
            case 4:
                return PagingRoot(domain, NO_PASID, None, 0, 0, disable, reasons)
        return PagingRoot(
            domain,
            pasid,
            Role.FIRST_STAGE,
            fields["fsptptr"].address(words),
            FIRST_STAGE_LEVELS[fields["fspm"].get(words)],
            disable,
            reasons,
            extended_accessed=bool(self._config.ecap("eafs") and fields["eafe"].get(words)),
            no_execute_enable=bool(fields["nxe"].get(words)),
            privileged=privileged,
            write_protect=bool(fields["wpe"].get(words)),
            execute_prevention=bool(fields["smep"].get(words)),
            updates=updates,
            host=host,
        )
