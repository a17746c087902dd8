"""The core for fuzzing is built whatever an earlier build left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzzers import instrumented


@pytest.mark.parametrize(
    ("left", "configured"),
    [((), True), (("CMakeCache.txt",), True), (("CMakeCache.txt", "build.ninja"), False)],
)
def test_what_was_killed_while_it_was_configured_is_configured_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left: tuple[str, ...], configured: bool
) -> None:
    asked: list[str] = []

    def do(*command: str) -> None:
        asked.append(command[1])
        (tmp_path / "bind").mkdir(exist_ok=True)
        (tmp_path / "bind/_core.so").touch()

    for name in left:
        (tmp_path / name).touch()
    monkeypatch.setattr(instrumented, "_do", do)
    monkeypatch.setattr(instrumented, "installed", lambda name: name)
    monkeypatch.setattr(instrumented, "compiler", lambda: "clang++")
    monkeypatch.setattr(instrumented, "_MODULE", "bind/_core.so")
    assert instrumented.build(directory=tmp_path) == tmp_path / "bind/_core.so"
    assert asked == (["-S", "--build"] if configured else ["--build"])
    assert (tmp_path / "bind/_core.so").stat().st_mtime == instrumented.newest_source()
