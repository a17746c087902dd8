"""Rules about registers: global commands, the root table, register-based invalidation, faults."""

from __future__ import annotations

from decoders.events import RegRead, RegWrite
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.faults import FaultRecordRegister
from decoders.vtd.registers import (
    LEVEL_COMMANDS,
    ONE_SHOT_COMMANDS,
    ContextCommand,
    GlobalCommand,
    InvalidationQueueAddress,
    IotlbRegister,
    Iva,
    RootTableAddress,
    fault_record_count,
    fault_record_offset,
    iotlb_offset,
    iva_offset,
)
from harness.check.coverage import NEVER, Coverage, event_of, moment
from harness.check.rules import Notebook, Rule
from harness.model.lookup import TTM_LEGACY, TTM_SCALABLE
from harness.model.registers import touches
from harness.model.unit import VtdUnit

GCMD = layout(GlobalCommand)
RTADDR = layout(RootTableAddress)
CCMD = layout(ContextCommand)
IOTLB = layout(IotlbRegister)
IVA = layout(Iva)
IQA = layout(InvalidationQueueAddress)
RECORD = layout(FaultRecordRegister)
TTM_ABORT = 3

TWO_COMMANDS = Rule(
    "two-commands",
    "VT-d 11.4 (GCMD)",
    "One write of GCMD may start one command: software sets or clears one level bit, or sets one "
    "one-shot bit, and repeats the other level bits as they are. With two at once the order in "
    "which the unit does them is open, and the status that software waits for tells of neither.",
)
LEVEL_DROPPED = Rule(
    "level-bit-dropped",
    "VT-d 11.4 (GCMD); Linux keeps the level bits in intel_iommu.gcmd",
    "GCMD cannot be read, so that every command has to repeat the level bits (TE, QIE, IRE, EAFL, "
    "CFI) that stay in force. A command that leaves one out switches that function off: without TE "
    "every device reaches all of memory.",
)
COMMAND_NOT_AWAITED = Rule(
    "command-not-awaited",
    "VT-d 11.4 (GCMD, GSTS); Linux IOMMU_WAIT_OP",
    "After a command software must see its status in GSTS before it gives another one. The trace "
    "shows what software reads, and no read of GSTS between these two commands.",
)
QUEUE_TAIL = Rule(
    "queue-enabled-with-tail",
    "VT-d 6.5.2, 11.4 (IQT)",
    "The queue is empty when head and tail are equal, and enabling it begins at head 0. IQT has to "
    "be 0 before QIE is set; otherwise the unit takes whatever the ring holds for descriptors.",
)
QUEUE_MOVED = Rule(
    "queue-moved-while-enabled",
    "VT-d 11.4 (IQA)",
    "Base, size and descriptor width of the queue may change only while it is disabled (QIES = 0). "
    "What a unit does that is fetching from it is open.",
)
QUEUE_WIDTH = Rule(
    "queue-width-for-mode",
    "VT-d 11.4 (IQA.DW), 6.5.2",
    "Descriptors of 256 bits need ECAP.SMTS, and a unit in scalable mode (RTADDR.TTM = 1) needs "
    "them: PASID-based invalidations have no other form.",
)
ROOT_NOT_LATCHED = Rule(
    "root-not-latched",
    "VT-d 11.4 (RTADDR, GCMD.SRTP)",
    "RTADDR takes effect with the command SRTP. Translation was enabled while the register held "
    "another value than the one in force, or none had ever been taken over: devices go through "
    "tables that software did not mean.",
)
ROOT_MODE = Rule(
    "root-mode-unsupported",
    "VT-d 11.4 (RTADDR.TTM)",
    "The translation table mode must be one that the unit has: scalable needs ECAP.SMTS, abort "
    "ECAP.ADMS, 2 is reserved, and so are bits 9:0. All DMA is refused with fault 0x30.",
)
ROOT_NOT_FLUSHED = Rule(
    "root-not-flushed",
    "VT-d 11.4 (GCMD.SRTP); Linux iommu_set_root_entry",
    "Unless CAP.ESRTPS says that SRTP does it, software must invalidate globally after SRTP: "
    "context cache, PASID cache (scalable mode), IOTLB. Here translation is enabled and one of "
    "them is missing, so that entries of older tables may still be used.",
)
ROOT_FLUSH_ORDER = Rule(
    "root-flush-order",
    "VT-d 11.4 (GCMD.SRTP); Linux iommu_set_root_entry",
    "After SRTP the IOTLB comes last: what is invalidated before the context and PASID caches can "
    "be filled again from the entries that these still hold.",
)
INTERRUPTS_NOT_FLUSHED = Rule(
    "interrupt-root-not-flushed",
    "VT-d 11.4 (GCMD.SIRTP); Linux iommu_set_irq_remapping",
    "Unless CAP.ESIRTPS says that SIRTP does it, the interrupt entry cache must be invalidated "
    "globally after SIRTP and before interrupt remapping is enabled.",
)
REGISTER_WITH_QUEUE = Rule(
    "register-invalidation-with-queue",
    "VT-d 6.5.1",
    "While the invalidation queue is enabled the registers CCMD and IOTLB must not be used. QEMU "
    "leaves such a command undone; what was to be invalidated stays.",
)
REGISTER_NOT_AWAITED = Rule(
    "register-invalidation-not-awaited",
    "VT-d 11.4 (CCMD.ICC, IOTLB.IVT)",
    "Hardware clears ICC or IVT when the invalidation is done, and software must see that before "
    "it uses the register again. The trace shows what software reads, and no read of this register "
    "between the two commands.",
)
REGISTER_PAGES = Rule(
    "register-page-invalidation",
    "VT-d 11.4 (IVA)",
    "A page-selective invalidation needs CAP.PSI, an address mask up to CAP.MAMV and an address "
    "aligned to the 2^AM pages it names. Otherwise what is invalidated is less than was meant, or "
    "nothing.",
)
FAULT_NOT_READ = Rule(
    "fault-not-read",
    "VT-d 7.3, 11.4 (FRCD.F); Linux dmar_fault",
    "Writing 1 to F frees a fault record. Software did so without a look at it, though the trace "
    "shows its other reads: the fault is lost.",
)
RULES = (
    TWO_COMMANDS, LEVEL_DROPPED, COMMAND_NOT_AWAITED, QUEUE_TAIL, QUEUE_MOVED, QUEUE_WIDTH,
    ROOT_NOT_LATCHED, ROOT_MODE, ROOT_NOT_FLUSHED, ROOT_FLUSH_ORDER, INTERRUPTS_NOT_FLUSHED,
    REGISTER_WITH_QUEUE, REGISTER_NOT_AWAITED, REGISTER_PAGES, FAULT_NOT_READ,
)  # fmt: skip


def names(bits: int) -> str:
    """Return the commands of a GCMD value by their mnemonics."""
    return ", ".join(name.upper() for name, field in GCMD.fields.items() if bits & field.mask)


class Commands:
    """Watch registers; before() and after() surround what the unit makes of a write."""

    def __init__(self, unit: VtdUnit, notes: Notebook) -> None:
        self._unit = unit
        self._notes = notes
        self._reads = False
        self.reset()

    def reset(self) -> None:
        """Forget what was done before a reset; whether reads are recorded stays known."""
        self._status = 0
        self._command = self._latched = self._interrupts = NEVER
        self._root = NEVER  # the value of RTADDR that was taken over
        self._awaited: dict[int, int] = {}  # command register: event of a command nobody looked for
        self._unread: dict[int, int] = {}  # fault record: event that filled it

    def read(self, event: RegRead) -> None:
        """Learn what software looked at."""
        self._reads = True
        for place in [place for place in self._awaited if touches(event.offset, event.size, place)]:
            del self._awaited[place]
        for index in list(self._unread):
            base = fault_record_offset(self._unit.config.capability, index)
            if touches(event.offset, event.size, base, 16):
                del self._unread[index]

    def filled(self, index: int, number: int) -> None:
        """Learn that a fault record was filled."""
        if index < fault_record_count(self._unit.config.capability):
            self._unread[index] = number

    def before(self, event: RegWrite, number: int) -> None:
        """Look at a write before the unit does."""
        registers = self._unit.registers
        self._status = registers.load(vtd.GSTS)
        if touches(event.offset, event.size, vtd.IQA.offset, 8) and self._unit.queue.enabled:
            self._queue_moved(event, number)
        self._record_cleared(event, number)

    def _queue_moved(self, event: RegWrite, number: int) -> None:
        old = self._unit.registers.load(vtd.IQA)
        shift = 8 * (event.offset - vtd.IQA.offset)
        mask = (1 << 8 * event.size) - 1
        value = event.value << shift if shift >= 0 else event.value >> -shift
        mask = mask << shift if shift >= 0 else mask >> -shift
        if (old ^ value) & mask & (1 << 64) - 1:
            self._notes.note(QUEUE_MOVED, number, f"IQA was {old:#x}, and QIE is 1.")

    def _record_cleared(self, event: RegWrite, number: int) -> None:
        for index, filled in list(self._unread.items()):
            high = fault_record_offset(self._unit.config.capability, index) + 8
            flag = 8 * (high + 7 - event.offset) + 7  # F is bit 63
            if touches(event.offset, event.size, high + 7, 1) and event.value >> flag & 1:
                del self._unread[index]
                if self._reads:
                    detail = f"Fault record {index} is cleared unread."
                    self._notes.note(FAULT_NOT_READ, number, detail, filled=filled)

    def after(self, event: RegWrite, number: int, coverage: Coverage) -> None:
        """Judge a write that the unit has carried out."""
        offset, size = event.offset, event.size
        if touches(offset, size, vtd.GCMD.offset) and size in (4, 8) and offset % 4 == 0:
            self._global(self._unit.registers.load(vtd.GCMD), number, coverage)
        if offset == vtd.RTADDR.offset and event.value & RTADDR.reserved[0]:
            detail = f"Bits {event.value & RTADDR.reserved[0]:#x} are reserved."
            self._notes.note(ROOT_MODE, number, detail)
        if touches(offset, size, vtd.CCMD.offset + 4):
            self._context(event, number, coverage)
        place = iotlb_offset(self._unit.config.extended_capability)
        if touches(offset, size, place + 4):
            self._iotlb(event, number, coverage, place)

    # -- GCMD ----------------------------------------------------------------------------------

    def _global(self, value: int, number: int, coverage: Coverage) -> None:
        changed = (self._status ^ value) & LEVEL_COMMANDS
        started = changed & value | value & ONE_SHOT_COMMANDS
        dropped = changed & ~value
        if started and dropped:
            detail = f"The write starts {names(started)} and clears {names(dropped)}."
            self._notes.note(LEVEL_DROPPED, number, detail)
        elif (started | dropped).bit_count() > 1:
            detail = f"The write gives {names(started | dropped)} at once."
            self._notes.note(TWO_COMMANDS, number, detail)
        earlier = self._awaited.get(vtd.GSTS.offset)
        if earlier is not None and self._reads:
            detail = "The command before it was never looked for in GSTS."
            self._notes.note(COMMAND_NOT_AWAITED, number, detail, earlier=earlier)
        self._awaited[vtd.GSTS.offset] = number
        self._started(started, number, coverage)

    def _started(self, started: int, number: int, coverage: Coverage) -> None:
        config, registers = self._unit.config, self._unit.registers
        if started & GCMD["srtp"].mask:
            self._root, self._latched = registers.load(vtd.RTADDR), number
            self._check_mode(number)
        if started & GCMD["sirtp"].mask:
            self._interrupts = number
        if started & GCMD["qie"].mask:
            tail = registers.load(vtd.IQT)
            if tail:
                self._notes.note(QUEUE_TAIL, number, f"IQT is {tail:#x}.")
            if IQA["dw"].get((registers.load(vtd.IQA),)) and not config.ecap("smts"):
                self._notes.note(QUEUE_WIDTH, number, "IQA.DW is 1 without ECAP.SMTS.")
        if started & GCMD.mask("qie", "srtp"):
            self._check_width(number)
        if started & GCMD["te"].mask:
            self._check_root(number, coverage)
        if started & GCMD["ire"].mask and self._interrupts != NEVER and not config.cap("esirtps"):
            if coverage.of_interrupts() < moment(self._interrupts):
                detail = "Interrupt remapping is enabled."
                self._notes.note(INTERRUPTS_NOT_FLUSHED, number, detail, sirtp=self._interrupts)

    def _check_mode(self, number: int) -> None:
        config, mode = self._unit.config, RTADDR["ttm"].get((self._root,))
        allowed = {TTM_LEGACY}
        allowed |= {TTM_SCALABLE} if config.ecap("smts") else set()
        allowed |= {TTM_ABORT} if config.ecap("adms") else set()
        if mode not in allowed:
            self._notes.note(ROOT_MODE, number, f"RTADDR is {self._root:#x}.")

    def _check_width(self, number: int) -> None:
        queue = (self._unit.registers.load(vtd.IQA),)
        scalable = self._root != NEVER and RTADDR["ttm"].get((self._root,)) == TTM_SCALABLE
        usable = scalable and self._unit.config.ecap("smts") and self._unit.queue.enabled
        if usable and not IQA["dw"].get(queue):
            self._notes.note(QUEUE_WIDTH, number, "IQA.DW is 0 and RTADDR.TTM is 1.")

    def _check_root(self, number: int, coverage: Coverage) -> None:
        config, register = self._unit.config, self._unit.registers.load(vtd.RTADDR)
        if register != self._root:
            held = f"{self._root:#x} is" if self._root != NEVER else "nothing is"
            detail = f"RTADDR is {register:#x}, {held} in force."
            self._notes.note(ROOT_NOT_LATCHED, number, detail, latched=self._latched)
            return
        if config.cap("esrtps"):
            return
        since = moment(self._latched)
        caches = {"context cache": coverage.all_contexts, "IOTLB": coverage.all_translations}
        before = [coverage.contexts_before]
        if RTADDR["ttm"].get((self._root,)) == TTM_SCALABLE:
            caches["PASID cache"] = coverage.all_pasids
            before.append(coverage.pasids_before)
        missing = [name for name, when in caches.items() if when < since]
        if missing:
            detail = f"Not invalidated since SRTP: {', '.join(missing)}."
            self._notes.note(ROOT_NOT_FLUSHED, number, detail, srtp=self._latched)
        elif min(before) < since:
            flushed = event_of(coverage.all_translations)
            detail = "No invalidation of the IOTLB follows those of the other caches."
            self._notes.note(
                ROOT_FLUSH_ORDER, number, detail, srtp=self._latched, iotlb_invalidated=flushed
            )

    # -- register-based invalidation -----------------------------------------------------------

    def _begin(self, place: int, number: int) -> bool:
        """Judge how a command register is used; say whether the unit does what it says."""
        earlier = self._awaited.get(place)
        if self._unit.queue.enabled:
            self._notes.note(REGISTER_WITH_QUEUE, number, "QIE is 1.")
            return False
        if earlier is not None and self._reads:
            detail = "The command before it was never looked for in the register."
            self._notes.note(REGISTER_NOT_AWAITED, number, detail, earlier=earlier)
        self._awaited[place] = number
        return True

    def _written(self, event: RegWrite, place: int) -> int:
        """Return what was written to the register of 64 bits at place; 0 where nothing was."""
        shift = 8 * (event.offset - place)
        return event.value << shift if shift >= 0 else event.value >> -shift

    def _context(self, event: RegWrite, number: int, coverage: Coverage) -> None:
        if not CCMD["icc"].get((self._written(event, vtd.CCMD.offset),)):
            return
        if self._begin(vtd.CCMD.offset, number):
            words = (self._unit.registers.load(vtd.CCMD),)
            fields = [CCMD[name].get(words) for name in ("cirg", "did", "sid", "fm")]
            coverage.context(moment(number), *fields)

    def _iotlb(self, event: RegWrite, number: int, coverage: Coverage, place: int) -> None:
        if not IOTLB["ivt"].get((self._written(event, place),)):
            return
        if not self._begin(place, number):
            return
        config, registers = self._unit.config, self._unit.registers
        words = (registers.load(vtd.IOTLB, place),)
        iva = (registers.load(vtd.IVA, iva_offset(config.extended_capability)),)
        granularity, domain = IOTLB["iirg"].get(words), IOTLB["did"].get(words)
        address, mask = IVA["addr"].address(iva), IVA["am"].get(iva)
        if granularity == 3:
            wrong = page_selection_fault(config.cap("psi"), config.cap("mamv"), address, mask)
            if wrong:
                self._notes.note(REGISTER_PAGES, number, wrong)
                return
        coverage.iotlb(moment(number), granularity, domain, address, mask, bool(IVA["ih"].get(iva)))


def page_selection_fault(selective: int, largest: int, address: int, mask: int) -> str:
    """Say what is wrong with a page-selective invalidation; "" when nothing is.

    selective is CAP.PSI and largest CAP.MAMV.
    """
    if not selective:
        return "CAP.PSI is 0."
    if mask > largest:
        return f"AM is {mask}, CAP.MAMV {largest}."
    if address >> 12 & (1 << mask) - 1:
        return f"{address:#x} is not aligned to 2^{mask} pages."
    return ""
