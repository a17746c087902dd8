"""What was measured is said as a table: by the first target that finds, and what none does."""

from __future__ import annotations

import json

from tools.bench.defects.search import Searched
from tools.bench.defects.table import HEAD, Measured, Row, failed, markdown, objects
from tools.bench.defects.worker import CONTROL


def row(name: str) -> Row:
    return Row(name, ("virtio", "trace"), "kind", "what is wrong")


def searched(name: str, target: str, seconds: float, *, found: bool, least: int = 0) -> Searched:
    return Searched(
        name, target, 600.0, found, seconds, 1.0, 50, "crash", size=9, least=least,
        unit="events" if least else "",
    )  # fmt: skip


MEASURED: Measured = [
    (row("early"), [searched("early", "virtio", 2.0, found=True, least=3)]),
    (
        row("later"),
        [
            searched("later", "virtio", 600.0, found=False),
            searched("later", "trace", 7.0, found=True),
        ],
    ),
    (row("never"), [searched("never", "virtio", 600.0, found=False)]),
    (row("not_measured"), []),
    (Row(CONTROL, ("virtio",), "", ""), [searched(CONTROL, "virtio", 60.0, found=False)]),
]


def test_the_table_says_who_found_what_and_who_did_not() -> None:
    head, columns, *rows = markdown(MEASURED)
    assert (head, columns) == HEAD
    assert rows == [
        "| `early` | kind | virtio | 2.0 | 50 | 9 | 3 events |",
        "| `later` | kind | trace (not virtio in 600 s) | 7.0 | 50 | 9 |  |",
        "| `never` | kind | not virtio in 600 s | | | | |",
        "",
        "2 of 3 found, in 4.5 s of processor time in the median, 7.0 s at most.",
        "1 minimised: 3 events in the median.",
        "Not found: `never`.",
        "Without a defect: none by virtio: not found; 60.0 s, 50 executions (start 1.0 s)",
    ]


def test_the_objects_say_the_same() -> None:
    *tried, summary = map(json.loads, objects(MEASURED))
    assert [(one["defect"], one["target"], one["found"]) for one in tried] == [
        ("early", "virtio", True),
        ("later", "virtio", False),
        ("later", "trace", True),
        ("never", "virtio", False),
        (CONTROL, "virtio", False),
    ]
    assert summary == {
        "defects": 3, "found": 2, "missed": ["never"], "median": 4.5, "control": [],
    }  # fmt: skip


def test_a_miss_and_a_finding_without_a_defect_are_failures() -> None:
    assert failed(MEASURED)
    assert not failed(MEASURED[:2])
    control = searched(CONTROL, "virtio", 1.0, found=True)
    assert failed([*MEASURED[:2], (row(CONTROL), [control])])


def test_one_is_said_in_the_singular() -> None:
    assert searched("early", "virtio", 2.0, found=True, least=1).smallest == "1 event"
    assert searched("early", "virtio", 2.0, found=True, least=2).smallest == "2 events"
    assert searched("early", "virtio", 2.0, found=True).smallest == ""
