"""Know where the fault registers of a repeated unit cannot be what was recorded.

Some faults are recorded and not repeated, or the other way round. Until software has cleared what
they left, neither registers nor interrupts can be compared. Sources: VT-d specification 7.3 and
11.4.9, and for what is stricter (FECTL.IP goes when FSTS is written, not before) QEMU 10.0.2
hw/i386/intel_iommu.c, vtd_handle_fsts_write. Such a unit has one fault record.
"""

from __future__ import annotations

from typing import Final

from decoders.events import RegRead, RegWrite
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.faults import FaultRecordRegister
from decoders.vtd.registers import FaultEventControl, FaultStatus
from harness.model.registers import touches

_F: Final = layout(FaultRecordRegister)["f"].mask
_STATUS: Final = layout(FaultStatus)
_PENDING: Final = _STATUS.mask("pfo", "ppf", "iqe", "ice", "ite")
_PFO: Final = _STATUS["pfo"].mask
_IM: Final = layout(FaultEventControl)["im"].mask
_RECORD_BYTES: Final = 16


class OtherFaults:
    """Say what may differ, given the offset of the fault record.

    After each change, status and control are what the repeated unit's FSTS and FECTL hold then.
    """

    def __init__(self, record: int) -> None:
        self._record = record
        self._upper = record + vtd.FRCD_HIGH.offset
        self.reset()

    def reset(self) -> None:
        """Begin with units that are alike."""
        self._f = False  # F of the record, with PPF
        self._content = False  # the rest of the record, which outlives F
        self._pfo = False
        self._ip = False
        self._sending = False  # IP differed when software unmasked the event

    @property
    def pending(self) -> bool:
        """Say whether another fault may be pending in one of the two."""
        return self._f or self._pfo

    @property
    def interrupts(self) -> bool:
        """Say whether one of the two may raise an interrupt that the other does not."""
        return self.pending or self._ip or self._sending

    def came(self, control: int) -> None:
        """Take note of a fault that one of the two did not have, or may have recorded elsewhere."""
        self._f = self._content = self._pfo = True
        self._ip |= bool(control & _IM)

    def recorded(self, status: int, control: int) -> None:
        """Take note of a record of the recorded unit alone; behind an overflow none is made."""
        self.came(control)
        self._pfo = bool(status & _PFO)

    def same_record(self) -> None:
        """Take note of a record that both have made: neither had another one, nor an overflow."""
        self._f = self._content = self._pfo = False

    def written(self, event: RegWrite, status: int, control: int) -> None:
        """Take note of a register write that both have seen."""
        self._sending = False
        wide = (event.offset, event.size) == (self._upper, 8) and event.value & _F
        half = (event.offset, event.size) == (self._upper + 4, 4) and event.value & _F >> 32
        self._f &= not (wide or half)
        if event.offset == vtd.FSTS.offset:
            self._pfo &= not event.value & _PFO
            self._ip &= self.pending or bool(status & _PENDING)
        if event.offset == vtd.FECTL.offset and not control & _IM:
            self._sending, self._ip = self._ip, False
        # What else is pending may have raised the event in one of the two only.
        self._ip |= self.pending and bool(control & _IM)

    def read(self, event: RegRead, now: int) -> None:
        """Take note of what FSTS was, and is now: an overflow that there is not ends nothing."""
        if (event.offset, event.size) == (vtd.FSTS.offset, vtd.FSTS.size):
            assert event.value is not None
            self._pfo &= bool((event.value ^ now) & _PFO)

    def reaches(self, event: RegRead) -> bool:
        """Say whether a read reaches what may differ."""
        places = (
            (vtd.FSTS.offset, vtd.FSTS.size, self.pending),
            (vtd.FECTL.offset, vtd.FECTL.size, self._ip),
            (self._record, _RECORD_BYTES, self._f or self._content),
        )
        return any(
            differs and touches(event.offset, event.size, at, length)
            for at, length, differs in places
        )
