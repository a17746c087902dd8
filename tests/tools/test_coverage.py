"""The report counts what clang counted, and the bounds are bounds."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from fuzzers.coverage.build import ROOT, Built, Programs, called, programs
from fuzzers.coverage.report import Part, Share, read_summary, table, total
from harness.errors import HarnessError
from tools.coverage import __main__ as command
from tools.coverage import runs
from tools.coverage.bounds import BOUNDS, missed
from tools.coverage.runs import RUNS, Run, run_all

PROGRAM = """\
int sign(int value) {
    if (value < 0)
        return -1;
    return value > 0 ? 1 : 0;
}
int main(int count, char **) { return sign(count - 2); }
"""
"""Called without arguments two of its branches are not run, nor the lines behind one."""


def summary(**files: tuple[int, int, int, int]) -> str:
    """Write what llvm-cov would print: lines run, lines, branches run, branches of each file."""
    made = [
        {
            "filename": str(ROOT / "build" / ".." / name),
            "summary": {
                "lines": {"covered": numbers[0], "count": numbers[1]},
                "branches": {"covered": numbers[2], "count": numbers[3]},
            },
        }
        for name, numbers in files.items()
    ]
    return json.dumps({"data": [{"files": made}]})


def test_only_files_below_the_core_count() -> None:
    text = summary(
        **{"core/b.cpp": (3, 4, 1, 2), "core/a/a.hpp": (1, 1, 0, 0), "c.cpp": (0, 9, 0, 9)}
    )
    parts = read_summary(text, ROOT / "core")
    assert parts == [
        Part("a/a.hpp", Share(1, 1), Share(0, 0)),
        Part("b.cpp", Share(3, 4), Share(1, 2)),
    ]
    assert total("all", parts) == Part("all", Share(4, 5), Share(1, 2))


@pytest.mark.parametrize(
    ("lines", "branches", "wrong"),
    [(95, 90, []), (94, 90, ["lines"]), (95, 89, ["branches"]), (0, 0, ["lines", "branches"])],
)
def test_bounds(lines: int, branches: int, wrong: list[str]) -> None:
    assert BOUNDS == {"lines": 95, "branches": 90}
    said = missed(Part("all", Share(lines, 100), Share(branches, 100)))
    assert [one.split(": ")[1] for one in said] == wrong


def test_table_shows_what_is_missing() -> None:
    heading, row = table("file", [Part("walk.cpp", Share(3, 4), Share(0, 0))]).splitlines()
    assert len(heading) <= len(row) < 100
    assert row.split() == ["walk.cpp", "4", "1", "75.00%", "0", "0", "100.00%"]


def test_every_run_names_what_exists() -> None:
    named = [word for run in RUNS for word in run.arguments if word.startswith("tests/")]
    assert named
    assert [word for word in named if not (ROOT / word).exists()] == []


def test_a_run_that_fails_is_an_error_with_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "PROFILES", tmp_path / "profiles")
    monkeypatch.setattr(runs, "LOGS", tmp_path / "logs")
    built = Built(tmp_path / "none.so", Path("/bin/true"))
    for run, message in (
        (Run("broken", ("tests.no_such_module",)), "(?s)broken: exit status 1.*no_such_module"),
        (Run("idle"), "idle ran nothing of the core"),
    ):
        monkeypatch.setattr(runs, "RUNS", (run,))
        with pytest.raises(HarnessError, match=message):
            run_all(built, 1)


def test_a_missed_bound_is_exit_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "BUILD", tmp_path)
    for lines, status in ((100, 0), (94, 1)):
        part = Part("all", Share(lines, 100), Share(1, 1))
        monkeypatch.setattr(command, "measure", lambda jobs, part=part: ([], [part], [part]))
        monkeypatch.setattr("sys.argv", ["coverage", "--json"])
        assert command.main() == status
        printed = json.loads(capsys.readouterr().out)
        assert printed == json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
        assert len(printed["missed"]) == status
        assert printed["all"][0]["lines"] == {"covered": lines, "count": 100, "percent": lines}


@pytest.mark.clang
@pytest.mark.optional
def test_counts_are_those_of_clang(tmp_path: Path) -> None:
    try:
        tools: Programs = programs()
    except HarnessError as error:
        pytest.skip(str(error))
    source, program, profile = (tmp_path / name for name in ("sign.cpp", "sign", "sign.profraw"))
    source.write_text(PROGRAM, encoding="utf-8")
    flags = ["-fprofile-instr-generate", "-fcoverage-mapping"]
    called([tools.compiler, *flags, "-o", str(program), str(source)], "the test")
    environment = os.environ | {"LLVM_PROFILE_FILE": str(profile)}
    subprocess.run([program], env=environment, check=False)
    merged = str(tmp_path / "sign.profdata")
    called([tools.profdata, "merge", "-o", merged, str(profile)], "the test")
    text = called(
        [tools.cov, "export", "-summary-only", str(program), f"-instr-profile={merged}"], "the test"
    )
    # One argument, the name: the sign of -1.
    assert read_summary(text, tmp_path) == [Part("sign.cpp", Share(5, 6), Share(1, 4))]
