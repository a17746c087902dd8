"""Damaged traces on the command line: what is intact is printed, then an error, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import cli
from harness.trace import TraceReader, open_events
from tests.harness.trace.samples import BLOCKS, EVENTS, write
from tests.harness.trace.test_damage import ALTERATIONS

ROOT = Path(__file__).parents[2]


class Whole:
    """Hold the bytes of a good trace, and how many events stand before each of them."""

    def __init__(self, path: Path) -> None:
        write(path)
        self.content = path.read_bytes()
        with TraceReader(path) as reader:
            self.start = reader._start
            self.ends = [place.end for place in reader._places()]

    def before(self, offset: int) -> int:
        """Count the events of the blocks that end at or before an offset."""
        return max(
            (n for end, n in zip(self.ends, BLOCKS, strict=True) if end <= offset), default=0
        )


@pytest.fixture
def whole(tmp_path: Path) -> Whole:
    return Whole(tmp_path / "whole.trace")


def show(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[int], str]:
    """Return the exit code, the numbers of the events printed, and the errors."""
    code = cli.main(["show", "--json", str(path)])
    out, err = capsys.readouterr()
    return code, [json.loads(line)["event"] for line in out.splitlines()], err


def check(code: int, numbers: list[int], err: str, path: Path, intact: int) -> None:
    assert numbers == list(range(intact))
    assert "Traceback" not in err
    if code == 0:
        assert intact == len(EVENTS) or err == ""
        assert err == ""
    else:
        assert code == 2
        assert err.startswith(f"error: {path}: trace.")
        assert err.count("\n") == 1


def test_show_cut_at_every_byte(
    tmp_path: Path, whole: Whole, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.trace"
    codes = []
    boundaries = {whole.start + n for n in range(3)} | {e + n for e in whole.ends for n in range(3)}
    for length in range(len(whole.content)):
        path.write_bytes(whole.content[:length])
        code, numbers, err = show(path, capsys)
        check(code, numbers, err, path, whole.before(length))
        assert (code == 0) is (length in boundaries or length >= whole.ends[-1]), length
        codes.append(code)
    assert codes.count(2) > whole.ends[-1] * 0.9


@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS.keys())
def test_show_with_every_byte_altered(
    tmp_path: Path, whole: Whole, capsys: pytest.CaptureFixture[str], alter: Callable[[int], int]
) -> None:
    path = tmp_path / "altered.trace"
    for offset, changed in altered(whole.content, alter):
        path.write_bytes(changed)
        code, numbers, err = show(path, capsys)
        in_index = offset >= whole.ends[-1]
        check(code, numbers, err, path, len(EVENTS) if in_index else whole.before(offset))
        assert code == 2 or in_index, offset


def altered(content: bytes, alter: Callable[[int], int]) -> Iterator[tuple[int, bytes]]:
    for offset, byte in enumerate(content):
        if alter(byte) != byte:
            yield offset, content[:offset] + bytes([alter(byte)]) + content[offset + 1 :]


def test_other_verbs_with_every_byte_altered(
    tmp_path: Path, whole: Whole, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "altered.trace", tmp_path / "out.txt"
    for offset, changed in altered(whole.content, lambda byte: byte ^ 0x10):
        path.write_bytes(changed)
        intact = len(EVENTS) if offset >= whole.ends[-1] else whole.before(offset)
        readable = offset >= whole.start

        code = cli.main(["stats", "--json", str(path)])
        printed, err = capsys.readouterr()
        assert (code == 2) is err.startswith("error: ")
        assert code == 2 or intact == len(EVENTS)
        if readable:
            assert json.loads(printed)["events"] == intact

        code = cli.main(["info", "--check", "--json", str(path)])
        printed, err = capsys.readouterr()
        assert (code == 2) is err.startswith("error: ")
        assert code == 2 or json.loads(printed)["events"] == len(EVENTS)

        out.unlink(missing_ok=True)
        code = cli.main(["convert", str(path), "-o", str(out), "-q"])
        _, err = capsys.readouterr()
        assert (code == 2) is err.startswith("error: ")
        assert code == 2 or intact == len(EVENTS)
        assert out.exists() is readable
        if readable:
            with open_events(out) as reader:
                assert list(reader) == EVENTS[:intact]


def test_convert_saves_what_precedes_damage(
    tmp_path: Path, whole: Whole, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "cut.trace", tmp_path / "saved.trace"
    path.write_bytes(whole.content[: whole.ends[1] + 40])
    assert cli.main(["convert", str(path), "-o", str(out)]) == 2
    assert f"{out} holds the 11 events before" in capsys.readouterr().err
    with open_events(out) as reader:
        assert list(reader) == EVENTS[:11]
    assert cli.main(["show", str(path)]) == 2
    assert "`dmarewind convert` keeps the events before it" in capsys.readouterr().err


def test_as_a_program(tmp_path: Path, whole: Whole) -> None:
    """A few in processes of their own, where nothing is caught on the way out."""
    path = tmp_path / "damaged.trace"
    middle = whole.ends[0] + 30
    damaged = {
        whole.content[:5]: 0,
        whole.content[: whole.start - 1]: 0,
        whole.content[:middle]: BLOCKS[0],
        whole.content[:middle] + b"\xff" + whole.content[middle + 1 :]: BLOCKS[0],
        whole.content[: whole.ends[1]] + b"\0" * 50: BLOCKS[1],
    }
    for content, intact in damaged.items():
        path.write_bytes(content)
        done = subprocess.run(
            [sys.executable, "-m", "harness", "show", "--json", str(path)],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        numbers = [json.loads(line)["event"] for line in done.stdout.splitlines()]
        assert done.returncode == 2
        check(done.returncode, numbers, done.stderr, path, intact)


def test_damaged_text(tmp_path: Path, whole: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "a.txt"
    assert cli.main(["convert", str(tmp_path / "whole.trace"), "-o", str(text), "-q"]) == 0
    lines = text.read_bytes().splitlines(keepends=True)
    lines[2 + 9] = b"access nonsense\n"
    text.write_bytes(b"".join(lines))
    code, numbers, err = show(text, capsys)
    assert (code, numbers) == (2, list(range(9)))
    assert err.startswith(f"error: {text}: text.event[9]: ")
    assert ", at line 12" in err
