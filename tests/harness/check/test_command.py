"""The verb: what people and programs see of it, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decoders.events import Event
from decoders.vtd import registers as vtd
from harness import cli
from harness.check.catalogue import RULES
from harness.trace import Header, TraceWriter, UnitInfo, write_text
from harness.trace.lines import format_event
from tests.harness.check.driver import OTHER, Driver
from tests.harness.virtio_story import EVENTS, HEADER
from tests.writers.platform import unit_config


def header(driver: Driver, width: int = 46) -> Header:
    config = driver.config
    unit = UnitInfo(
        version=config.version,
        capability=config.capability,
        extended_capability=config.extended_capability,
        host_address_width=width,
    )
    return Header(units=(unit,))


def write(path: Path, driver: Driver, head: Header | None = None) -> Path:
    with TraceWriter.create(path, head or header(driver)) as writer:
        for event in driver.events:
            writer.append(event)
    return path


@pytest.fixture
def driver() -> Driver:
    made = Driver(unit_config())
    made.start()
    made.attach()
    made.map()
    made.use()
    return made


def run(*words: object) -> int:
    return cli.main(["check", *(str(word) for word in words)])


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def stale(driver: Driver) -> tuple[int, int, int]:
    """Let a mapping be used, changed and used; return the numbers of the three events."""
    first = driver.last
    changed = driver.store(driver.entry(), driver.space.value(OTHER))
    return first, changed, driver.use()


def test_nothing_is_found(
    driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "fine.trace", driver)
    assert run(path) == 0
    assert capsys.readouterr().out == "fine.trace: no rule was broken\n"
    assert run("--quiet", path) == 0
    assert capsys.readouterr().out == ""


def test_a_violation_in_words(
    driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used, changed, found = stale(driver)
    assert run(write(tmp_path / "bad.trace", driver)) == 1
    rule = RULES["mapping-not-invalidated"]

    def line(number: int) -> str:
        return f"event {number}: {format_event(driver.events[number])}"

    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"{rule.id}: {line(found)}"
    assert rule.text in " ".join(" ".join(shown).split())
    assert [" ".join(one.split()) for one in shown[-6:]] == [
        "The request is for 0x7000.",
        f"used {line(used)}",
        f"changed {line(changed)}",
        f"source {rule.source}",
        "",
        "bad.trace: 1 violation",
    ]
    assert max(map(len, shown[1:-3])) <= 100


def test_a_violation_as_json(
    driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used, changed, found = stale(driver)
    path = write(tmp_path / "bad.trace", driver)
    assert run("--json", path) == 1
    rule = RULES["mapping-not-invalidated"]
    assert objects(capsys) == [
        {
            "type": "violation",
            "trace": str(path),
            "rule": rule.id,
            "source": rule.source,
            "event": found,
            "detail": "The request is for 0x7000.",
            "events": {"used": used, "changed": changed},
            "text": rule.text,
        },
        {"type": "result", "trace": str(path), "violations": 1},
    ]


def test_text_form_and_virtio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "story.txt"
    write_text(path, HEADER, EVENTS)
    assert run("--json", path) == 1
    assert [one.get("rule") for one in objects(capsys)] == [
        "virtio-flags",
        "virtio-unmapped-in-use",
        "virtio-request-malformed",
        "virtio-request-malformed",
        None,
    ]


def test_several_traces_and_a_limit(
    driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = write(tmp_path / "fine.trace", driver)
    numbers = [driver.write(vtd.CCMD, 1 << 63) for _ in range(5)]
    bad = write(tmp_path / "bad.trace", driver)
    assert run("--findings", 2, fine, bad) == 1
    shown = capsys.readouterr().out
    assert "fine.trace: no rule was broken\n" in shown
    assert shown.count("register-invalidation-with-queue") == 2
    assert f"event {numbers[1]}" in shown
    assert f"event {numbers[2]}" not in shown
    assert shown.endswith("bad.trace: 3 more (--findings shows more)\n\nbad.trace: 5 violations\n")


def test_rules_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--rules") == 0
    shown = capsys.readouterr().out
    assert all(f"{rule.id}\n  {rule.source}\n" in shown for rule in RULES.values())
    assert run("--rules", "--json") == 0
    assert {one["rule"] for one in objects(capsys)} == set(RULES)


def test_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    assert "name a trace" in capsys.readouterr().err


def test_damage_ends_it_behind_what_was_found(
    driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale(driver)
    path = tmp_path / "cut.trace"
    with TraceWriter.create(path, header(driver)) as writer:
        for event in driver.events:
            writer.append(event)
        writer.flush()
        writer.append(driver.events[-1])
        writer.flush()
    data = path.read_bytes()
    second = data.rindex(b"DMBK")
    path.write_bytes(data[: second + 40])
    assert run("--json", path) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out.splitlines()[0])["rule"] == "mapping-not-invalidated"
    assert "cut.trace" in shown.err


def test_a_queue_that_never_ends_is_refused(
    driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Around a ring that is full of sound descriptors, time and again.
    for _ in range(255):
        driver.submit((0x11, 0), wait=False)
    for tail in (0, 0xFF0) * 40:
        driver.write(vtd.IQT, tail)
    path = write(tmp_path / "spin.trace", driver)
    assert run("--descriptor-budget", 100, path) == 2
    assert "--descriptor-budget" in capsys.readouterr().err


def test_the_host_address_width_may_be_unknown(driver: Driver, tmp_path: Path) -> None:
    driver.map(0x9000, 1 << 45)
    assert run(write(tmp_path / "known.trace", driver, header(driver, 39))) == 1
    assert run(write(tmp_path / "unknown.trace", driver, header(driver, 0))) == 0


def test_a_header_without_a_unit(
    driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write(tmp_path / "none.trace", driver, Header())) == 2
    assert "names no VT-d unit" in capsys.readouterr().err


def test_events_of_another_unit_are_passed_over(driver: Driver, tmp_path: Path) -> None:
    virtio: list[Event] = [event for event in EVENTS if type(event).__name__ != "Access"]
    driver.events[5:5] = [one for one in virtio if type(one).__name__ != "RegWrite"]
    assert run(write(tmp_path / "mixed.trace", driver)) == 0


def test_a_trace_that_cannot_be_judged_leaves_the_others(
    driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut, good, missing = (tmp_path / name for name in ("cut.trace", "good.trace", "missing"))
    cut.write_bytes(write(good, driver).read_bytes()[:-200])
    assert run(missing, cut, good) == 2
    said = capsys.readouterr()
    assert "good.trace: no rule was broken" in said.out
    first, second = said.err.splitlines()
    assert first == f"error: {missing}: No such file or directory"
    assert second.startswith(f"error: {cut}: trace.block[0]: file ends inside")
