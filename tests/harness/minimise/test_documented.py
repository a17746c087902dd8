"""The example in docs/minimise.md: a script that asks a QEMU, and what is left."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from decoders.events import RegWrite
from decoders.vtd import registers as vtd
from harness.cli import main
from harness.minimise.trace import read

ROOT = Path(__file__).parents[3]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.qemu
def test_a_queue_that_stands_still_becomes_what_makes_it(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "minimise.md").read_text()
    section = text.split("## A script as judge\n")[1].split("\n## ")[0]
    make, judge = BLOCK.findall(section)
    long, small, script = (tmp_path / name for name in ("long.txt", "small.txt", "judge.sh"))
    made = make.replace(">long.txt", f">{long}")
    subprocess.run(["sh", "-ec", made], cwd=ROOT, check=True, timeout=60)
    assert len(read(long).events) == 803
    script.write_text(judge)
    script.chmod(0o755)
    words = ["minimise", str(long), "-o", str(small), "--test", str(script), "--attempts", "1"]
    assert main([*words, "--budget", "100", "-q"]) == 0
    left = read(small).events
    places = [event.offset for event in left if isinstance(event, RegWrite)]
    assert places == [vtd.GCMD.offset, vtd.IQT.offset, vtd.FSTS.offset], left
