"""Read the trace log of QEMU's emulated VT-d unit or virtio-iommu, with the recorder's lines in it.

One file, written by QEMU's log backend (`-trace 'vtd_*' -D FILE`, or `'virtio_iommu_*'`), holds
both in the order of execution. A line starts with nothing, with ``tid@seconds.microseconds:``
(`-msg timestamp=on`, QEMU up to 10.0, trace lines only) or with an ISO 8601 time (the same option
from 10.1, all lines).

A log is hostile input: lines may be torn, glued or invented. No line raises, and every line is
counted exactly once.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from decoders.capture import recorder
from decoders.capture.interrupt_log import InterruptLog
from decoders.capture.lines import CLOCK_STEP, OVERLONG, LineDecoder, beginning, first_word
from decoders.capture.qemu_events import EVENT_LINES, INTERNAL_LINES
from decoders.capture.virtio_events import VIRTIO_LINES
from decoders.capture.virtio_log import VirtioLog
from decoders.events import (
    DeviceReset,
    Event,
    Gap,
    InterruptRequest,
    Message,
    RegRead,
    RegWrite,
    Request,
)

NAME: Final = "qemu-log"

_UNCONFIRMED_LIMIT: Final = 64
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_thread_prefix = re.compile(rb"[0-9]{1,10}@([0-9]{1,12})\.([0-9]{6}):(.*)", re.DOTALL).fullmatch
_fraction = re.compile(rb"\.([0-9]{6})Z").fullmatch


def _instant(text: bytes) -> int | None:
    """Read an ISO 8601 time as microseconds since 1970."""
    try:
        moment = datetime.fromisoformat(text.decode("ascii"))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def _is_known(name: bytes) -> bool:
    return name in EVENT_LINES or name in VIRTIO_LINES or name in INTERNAL_LINES or name == b"dmr"


def _split_prefix(name: bytes, rest: bytes) -> tuple[str, int, bytes, bytes] | None:
    """Take the time off a line: the style, the microseconds, the name and what follows it."""
    match = _thread_prefix(name)
    if match is not None:
        return "thread", int(match[1]) * 1_000_000 + int(match[2]), match[3], rest
    moment = _instant(name)
    if moment is None:
        return None
    name, _, rest = rest.partition(b" ")
    return "iso", moment, name, rest


class QemuLogDecoder(LineDecoder):
    """Turn the bytes of a QEMU log, cut anywhere, into events.

    A recorder line's name in the counts is ``dmr VERB``. A RegRead is held back until the next
    event, in case the recorder tells its value. `problems` lists what the unit and the recorder
    tell differently. `style` is how lines bear their time: ``none``, ``thread`` or ``iso``.
    `virtio` reads the lines of a virtio-iommu.
    """

    def __init__(self) -> None:
        super().__init__()
        self.style = "none"
        self.grammar: int | None = None
        self._second = b""
        self._second_start = 0
        self._recorded = False
        self._held: RegRead | None = None
        self._unconfirmed: deque[tuple[int, RegWrite]] = deque()
        self.virtio = VirtioLog(self._tick, self._problem)
        self._interrupts = InterruptLog()

    @property
    def internal(self) -> Counter[str]:
        """Count the well-formed lines that tell of the emulator's inside only."""
        names = self._counts.keys() & INTERNAL_LINES
        return Counter({name.decode("ascii"): self._counts[name] for name in names})

    def _decode(self, lines: list[bytes], now_us: int | None) -> list[Event]:
        # The hot path: one dictionary lookup on the first word and, for lines that matter, one
        # regular expression. Everything rare lives in methods of its own.
        out: list[Event] = []
        counts = self._counts
        event_lines = EVENT_LINES
        internal_lines = INTERNAL_LINES
        virtio_lines = VIRTIO_LINES
        interrupts = self._interrupts
        limit = self.line_limit
        for line in lines:
            self.lines += 1
            if len(line) > limit:
                self._count_unknown(OVERLONG, line)
                continue
            name, _, rest = line.partition(b" ")
            parse = event_lines.get(name)
            if (
                parse is None
                and name not in virtio_lines
                and name not in internal_lines
                and name != b"dmr"
            ):
                bare = self._take_time(name, rest, line)
                if bare is None:
                    continue
                name, rest = bare
                parse = event_lines.get(name)
            elif now_us is not None and self.style == "none":
                self._set_time(now_us)
            if parse is not None:
                event = parse(rest)
                if event is None:
                    # A log that came by way of another system may end its lines in CR LF.
                    event = parse(rest.rstrip(b"\r"))
                    if event is None:
                        self._count_malformed(name, line, out)
                        continue
                counts[name] = counts.get(name, 0) + 1
            elif name in virtio_lines:
                self._virtio_line(name, rest, line, out)
                continue
            elif name in internal_lines:
                # Two lines run together would hide the second one.
                if b"vtd_" in rest or b"virtio_iommu_" in rest or b"dmr " in rest:
                    self._count_malformed(name, line, out)
                    continue
                counts[name] = counts.get(name, 0) + 1
                if name == b"vtd_inv_desc_wait_write_fail":
                    self._problem(f"the status write just before failed: {beginning(rest)}")
                continue
            else:
                event = self._recorder_line(rest, line, out)
                if event is None:
                    continue
            if interrupts.busy or type(event) is InterruptRequest:
                for done in interrupts.take(event):
                    self._pass_on(done, out)
            else:
                self._pass_on(event, out)
        return out

    def _pass_on(self, event: Event, out: list[Event]) -> None:
        if self.virtio.busy:
            self.virtio.push(event, out)
            return
        # A delivered interrupt changes no register: a read may still wait for its value.
        passes = type(event) is InterruptRequest and type(event.outcome) is Message
        if self._held is not None and not passes:
            out.append(self._held)
            self._held = None
        if self._zero is not None and self._now >= self._clock + CLOCK_STEP:
            self._tick(out)
        if type(event) is RegRead:
            self._held = event
            return
        if type(event) is RegWrite:
            self._await_confirmation(event)
        out.append(event)

    def _take_time(self, name: bytes, rest: bytes, line: bytes) -> tuple[bytes, bytes] | None:
        """Take the time off a line and remember it; None when the line is accounted for."""
        if not line or line == b"\r":
            self.blank += 1
            return None
        # Consecutive lines mostly share their second: only its fraction is read again.
        if name[:19] == self._second and (fraction := _fraction(name[19:])) is not None:
            style, moment = "iso", self._second_start + int(fraction[1])
            name, _, rest = rest.partition(b" ")
        else:
            split = _split_prefix(name, rest) if line[:1].isdigit() else None
            if split is None:
                self._count_unknown(first_word(line), line)
                return None
            if split[0] == "iso" and (fraction := _fraction(name[19:])) is not None:
                self._second, self._second_start = name[:19], split[1] - int(fraction[1])
            style, moment, name, rest = split
        if not _is_known(name):
            self._count_unknown(first_word(name), line)
            return None
        if self.style != style:
            # Times of another kind (given by the caller, say) have another zero.
            self.style = style
            self._zero = moment - self._now
        self._set_time(moment)
        return name, rest

    def _virtio_line(self, name: bytes, rest: bytes, line: bytes, out: list[Event]) -> None:
        part = VIRTIO_LINES[name](rest.rstrip(b"\r"))
        if part is None:
            self._count_malformed(name, line, out)
            return
        self._count(name)
        self._give_read(out)
        self.virtio.take(part, self.lines, out)

    def _recorder_line(self, rest: bytes, line: bytes, out: list[Event]) -> Event | None:
        """Parse what follows `dmr `, and give the event it is, if it is one."""
        verb, _, fields = rest.rstrip(b"\r").partition(b" ")
        parse = recorder.VERBS.get(verb)
        name = b"dmr " + verb
        if parse is None:
            self._count_unknown(beginning(name[:64]), line)
            return None
        parsed = parse(fields)
        if parsed is None:
            self._count_malformed(name, line, out)
            return None
        if isinstance(parsed, recorder.Begin) and parsed.grammar != recorder.GRAMMAR:
            self._problem(f"the recorder speaks grammar {parsed.grammar}, not {recorder.GRAMMAR}")
            self._count_malformed(name, line, out)
            return None
        self._count(name)
        self._recorded = True
        if isinstance(parsed, recorder.RegStore):
            self._confirm(parsed)
            return None
        if isinstance(parsed, recorder.RegLoad):
            self._attach(parsed, out)
            return None
        if isinstance(parsed, recorder.Begin):
            again = self.grammar is not None
            self.grammar = parsed.grammar
            self._unconfirmed.clear()
            self.virtio.lose(out)
            self.virtio.recording = True
            return Gap("recorder restarted") if again else None
        if isinstance(parsed, Request | recorder.ConfigStore | recorder.Accepted | DeviceReset):
            self._give_read(out)
            self._virtio_told(parsed, out)
            return None
        if isinstance(parsed, Gap):
            # Confirmations may be among what was lost.
            self._unconfirmed.clear()
            self.virtio.lose(out)
        return parsed

    def _virtio_told(
        self,
        told: Request | recorder.ConfigStore | recorder.Accepted | DeviceReset,
        out: list[Event],
    ) -> None:
        if isinstance(told, Request):
            self.virtio.request(told, self.lines, out)
        elif isinstance(told, recorder.ConfigStore):
            self.virtio.stored(told, self.lines, out)
        elif isinstance(told, recorder.Accepted):
            self.virtio.accepted(told.features, self.lines, out)
        else:
            self.virtio.reset(self.lines, out)

    def _await_confirmation(self, write: RegWrite) -> None:
        self._unconfirmed.append((self.lines, write))
        if len(self._unconfirmed) > _UNCONFIRMED_LIMIT:
            self._give_up(self._unconfirmed.popleft())

    def _give_up(self, waiting: tuple[int, RegWrite]) -> None:
        if self._recorded:
            line, write = waiting
            self._problem(f"{write} of line {line} was not seen by the recorder")

    def _end(self) -> Iterator[Event]:
        yield from super()._end()
        # The last write's confirmation may be what the recording was cut off before.
        while len(self._unconfirmed) > 1:
            self._give_up(self._unconfirmed.popleft())

    def _confirm(self, store: recorder.RegStore) -> None:
        """Strike off the write that store confirms.

        Several processors may have writes under way, so the order is not binding; when nothing
        equals it, the oldest write to the same register is taken for its other half.
        """
        told = RegWrite(store.offset, store.size, store.value)
        for found in self._unconfirmed:
            if found[1] == told:
                self._unconfirmed.remove(found)
                return
        for found in self._unconfirmed:
            if found[1].offset == told.offset:
                self._unconfirmed.remove(found)
                self._problem(f"{found[1]} of line {found[0]} was recorded as {told}")
                return
        self._problem(f"the recorder saw {told}, the unit did not")

    def _attach(self, load: recorder.RegLoad, out: list[Event]) -> None:
        """Complete the read that waits for its value."""
        told = RegRead(load.offset, load.size, load.value)
        held = self._held
        if held is not None and (held.offset, held.size) == (told.offset, told.size):
            self._held = None
            out.append(told)
            return
        self._problem(f"the recorder saw {told}, the unit {'nothing' if held is None else held}")

    def _flush(self, out: list[Event]) -> None:
        for event in self._interrupts.finish():
            self._pass_on(event, out)
        self._give_read(out)
        self.virtio.finish(out)

    def _lose(self, gap: Gap, out: list[Event]) -> None:
        self._interrupts.doubt()
        if self.virtio.busy:
            self.virtio.lost(gap, out)
        else:
            self._give_read(out)
            self.virtio.finish(out)
            out.append(gap)

    def _give_read(self, out: list[Event]) -> None:
        if self._held is not None:
            out.append(self._held)
            self._held = None

    def _known_name(self, line: bytes) -> bytes | None:
        name, _, rest = line.partition(b" ")
        if not _is_known(name):
            split = _split_prefix(name, rest)
            if split is None or not _is_known(split[2]):
                return None
            _, _, name, rest = split
        if name != b"dmr":
            return name
        verb = rest.partition(b" ")[0]
        return b"dmr " + verb if verb in recorder.VERBS else None

    def _is_event(self, name: bytes, line: bytes) -> bool:
        if name not in INTERNAL_LINES:
            return True
        # Only the second of two lines run together can have been one.
        rest = line[line.find(name) + len(name) :]
        names = (*EVENT_LINES, *VIRTIO_LINES, b"dmr ")
        return any(event in rest for event in names)


def detect(head: bytes) -> bool:
    """Say whether a file that begins with head looks like such a log."""
    for line in head.split(b"\n")[:200]:
        name, _, rest = line.partition(b" ")
        if not _is_known(name):
            split = _split_prefix(name, rest) if line[:1].isdigit() else None
            if split is None or not _is_known(split[2]):
                continue
        return True
    return False


def hints(decoder: QemuLogDecoder) -> dict[str, str]:
    """Guess what wrote the log from which lines it has seen so far.

    The dialect is the oldest release that has all of them. (Which event came when: the
    `trace-events` files of the releases; the change of the time's form: `util/log.c`.)
    """
    names = decoder.counts.keys()
    found = {"time": decoder.style}
    if decoder.grammar is not None:
        found["recorder"] = str(decoder.grammar)
    if any("pasid_cache" in name or "_hwpt" in name for name in names):
        found["dialect"] = "qemu-11.0"
    elif decoder.style == "iso":
        found["dialect"] = "qemu-10.1"
    elif "vtd_reset_exit" in names or "virtio_iommu_device_reset_exit" in names:
        found["dialect"] = "qemu-10.0"
    elif any(name.startswith(("vtd_", "virtio_iommu_")) for name in names):
        found["dialect"] = "qemu"
    if any(name.startswith("virtio_iommu_") for name in names):
        found["unit"] = "virtio-iommu"
    if decoder.virtio.offered is not None:
        found["features"] = f"{decoder.virtio.offered:#x}"
    if decoder.virtio.config is not None:
        found["config"] = decoder.virtio.config.hex()
    return found
