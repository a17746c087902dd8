"""A log of a virtio-iommu becomes a trace whose header says what it was, and which replays."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import cli
from harness.trace import open_events
from tests.harness.recording import read, replayed

LOG = Path(__file__).parents[1] / "golden/qemu-virtio-iommu.log"


@pytest.mark.parametrize("recorder", [True, False], ids=["recorded", "plain"])
def test_a_log_describes_its_unit(recorder: bool, tmp_path: Path) -> None:
    log, out = tmp_path / "vm.log", tmp_path / "vm.trace"
    lines = LOG.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(line for line in lines if recorder or not line.startswith(b"dmr ")))
    assert cli.main(["-q", "convert", str(log), "-o", str(out)]) == 0
    with open_events(out) as source:
        (unit,) = source.header.units
        assert source.header.dialect == "qemu-10.0"
        assert not {"unit", "features", "config"} & source.header.source.keys()
    assert (unit.kind, unit.base, unit.capability) == ("virtio-iommu", 0, 0x10179000077)
    assert len(unit.config) == 40 and unit.config[36] == 1
    # The first lines of the log are whole; behind them something was cut out.
    events, damage = read(out)
    assert damage is None
    (result,) = replayed(out, ["model"])
    cut = next(index for index, event in enumerate(events) if "RegWrite" in repr(event))
    assert [finding for finding in result.findings if finding.event < cut] == []


def test_options_win(tmp_path: Path) -> None:
    out = tmp_path / "vm.trace"
    words = ["--features", "0x57", "--config", "00" * 40, "--unit", "virtio-iommu"]
    assert cli.main(["-q", "convert", str(LOG), "-o", str(out), *words]) == 0
    with open_events(out) as source:
        (unit,) = source.header.units
    assert (unit.capability, unit.config) == (0x57, bytes(40))
