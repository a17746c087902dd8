"""Fuzz what reads files: logs of QEMU, the recorder's lines, qtest logs, traces and their text."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from decoders.capture import FORMATS, detect
from decoders.capture.qemu_log import QemuLogDecoder
from decoders.errors import DecodeError
from decoders.events import Event, RegWrite
from fuzzers import machines as m
from fuzzers.target import MODEL, Found, Runner
from harness.signature import INVARIANT, Signature
from harness.trace import Header, TraceReader, TraceWriter, parse_text, write_text
from harness.trace.codec import storable
from harness.trace.text import TITLE

_TEXT: Final = TITLE.encode()
_LOGS: Final = (
    b"vtd_reg_write_gcmd status 0x0 val 0x80000000\n"
    b"vtd_inv_desc iotlb global invalidation desc high 0x0 low 0x12\n"
    b"vtd_iotlb_page_hit IOTLB page hit sid 0x18 iova 0x1000 slpte 0x2003 domain 0x1\n",
    b"dmr begin 1\ndmr reg 18 4 80000000\ndmr snap 1000 0 0 0:2001\ndmr st 1000 8 2001\n"
    b"dmr rd 34 4 0\ndmr rel 1000\ndmr lost on purpose\n",
    b"virtio_iommu_attach domain=1 endpoint=8\n"
    b"virtio_iommu_map domain=1 virt_start=0x0 virt_end=0xfff phys_start=0x0 flags=3\n"
    b"dmr vreq 0100000001000000+c 4 00000000\ndmr vfeat 77\ndmr vcfg 24 1 0\ndmr vrst\n",
    b"[I 0.0] OPENED\n[R +0.001] writeq 0xfed90020 0x1000\n[S +0.002] OK\n",
)
_WORDS: Final = (
    b"dmr ", b"reg ", b"snap ", b"st ", b"rd ", b"rel ", b"lost ", b"vreq ", b"vfeat ", b"vcfg ",
    b"vtd_reg_write", b"vtd_inv_desc ", b"vtd_dmar_", b"vtd_fault_disabled", b"virtio_iommu_",
    b" 0x0", b" 0xffffffffffffffff", b"\n", b"access ", b"store ", b"snapshot ", b"reg.write ",
    b"descriptor ", b"DMBK", b"DMIX", b"DMREND\0\0", b"[R +", b"[S +", b"writeq ", b"OK ",
)  # fmt: skip


class Capture:
    """Run bytes through the reader of whatever format they claim to be in."""

    name = "capture"
    what = "logs, recorder streams and trace files"
    against: Sequence[str] = (MODEL,)
    traced: Sequence[str] = ("decoders.capture", "harness.trace")
    max_size = 4096

    def seeds(self) -> Iterable[bytes]:
        """Return a small file of each form."""
        yield from _LOGS
        events: list[Event] = [RegWrite(0x18, 4, 1 << 31), m.access(0)]
        text = io.StringIO()
        write_text(text, m.header(), events)
        yield text.getvalue().encode()
        with TemporaryDirectory() as directory:
            path = Path(directory) / "seed"
            with TraceWriter.create(path, m.header()) as writer:
                for event in events:
                    writer.append(event)
            yield path.read_bytes()

    def dictionary(self) -> Iterable[bytes]:
        """Return words of all forms."""
        return _WORDS

    def runner(self, against: str) -> Runner:
        """Return what reads a file."""
        return read


def read(data: bytes) -> None:
    """Read a file as its first bytes say; raise Found when a promise is broken."""
    if data.startswith(_TEXT):
        _read_text(data)
    elif data.startswith(b"DMRTRACE"):
        _read_trace(data)
    else:
        _read_log(data)


def _read_log(data: bytes) -> None:
    """Decode a log whole and cut in two: both give the same, and account for each line."""
    name = detect(data)
    made = next((one.decoder for one in FORMATS if one.name == name), None) or QemuLogDecoder
    whole = made()
    events = [*whole.feed(data), *whole.finish()]
    parts = made()
    half = len(data) // 2
    again = [*parts.feed(data[:half]), *parts.feed(data[half:]), *parts.finish()]
    if events != again:
        _broken("a log that comes in parts says the same", f"{events}\n{again}")
    told = sum(whole.counts.values()) + sum(whole.malformed.values()) + sum(whole.unknown.values())
    if told + whole.blank != whole.lines:
        _broken("every line is accounted for", f"{told} and {whole.blank} of {whole.lines}")
    for event in events:
        storable(event)


def _read_text(data: bytes) -> None:
    try:
        header, events = parse_text(data.decode("utf-8", "surrogatepass"))
    except (DecodeError, UnicodeDecodeError):
        return
    _same_text(header, events)


def _read_trace(data: bytes) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "input"
        path.write_bytes(data)
        try:
            with TraceReader(path) as reader:
                header, events = reader.header, list(reader)
        except DecodeError:
            return
    _same_text(header, events)


def _same_text(header: Header, events: list[Event]) -> None:
    text = io.StringIO()
    write_text(text, header, events)
    if parse_text(text.getvalue()) != (header, events):
        _broken("what was read can be written and read again", text.getvalue())


def _broken(promise: str, text: str) -> None:
    raise Found(Signature(INVARIANT, "", promise), f"broken: {promise}\n{text}")


def create() -> Capture:
    """Build the target."""
    return Capture()
