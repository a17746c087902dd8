"""Batch translation: cold gives the fresh outcome of each request, warm a permitted one."""

from __future__ import annotations

from array import array
from random import Random

import pytest

from decoders.events import ATTRIBUTES, NO_ATTRIBUTES, AccessKind, Attribute, Fault, Outcome
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.faults import Reason
from decoders.vtd.registers import GlobalCommand
from harness.model.config import UnitConfig
from harness.model.translate import Request
from harness.model.unit import VtdUnit
from harness.native import NativeUnit, available, core
from tests.harness.scenarios import FAR_IOVAS, IOVAS, PASIDS_USED, SIDS, Scenario
from tests.writers.platform import PAGE, Platform, unit_config

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

Requests = list[tuple[int, int | None, int, AccessKind, Attribute]]


def requests(random: Random, scenario: Scenario, count: int) -> Requests:
    """Make requests in runs that differ little, as devices do, with strangers in between."""
    made: Requests = []
    while len(made) < count:
        kind = random.choice(tuple(AccessKind))
        pasid = random.choice(PASIDS_USED) if scenario.mode and random.randrange(3) else None
        sid = random.choice(SIDS)
        attributes = random.choice(sorted(ATTRIBUTES)) if scenario.chance(3) else NO_ATTRIBUTES
        for _ in range(random.choice((1, 8, 8, 20))):
            iova = random.choice(IOVAS) + random.randrange(0, 0x1000, 8)
            if random.randrange(60) == 0:
                iova = random.choice(FAR_IOVAS)
            if random.randrange(60) == 0:
                sid, kind = random.choice(SIDS), random.choice(tuple(AccessKind))
            made.append((sid, pasid, iova & (1 << 64) - 1, kind, attributes))
    return made[:count]


def translate(unit: NativeUnit, wanted: Requests, *, cold: bool) -> list[tuple[int, int]]:
    """Return (status, address) of each request."""
    none = core().NO_PASID
    addresses, statuses = array("Q", [1] * len(wanted)), bytearray(b"\xff" * len(wanted))
    unit.translate(
        array("H", (sid for sid, *_ in wanted)),
        array("I", (none if pasid is None else pasid for _, pasid, *_ in wanted)),
        array("Q", (iova for _, _, iova, *_ in wanted)),
        bytes(kind for *_, kind, _ in wanted),
        addresses,
        statuses,
        bytes(attributes for *_, attributes in wanted) if any(w[-1] for w in wanted) else None,
        cold=cold,
    )
    return list(zip(statuses, addresses, strict=True))


def as_pair(outcome: Outcome, iova: int) -> tuple[int, int]:
    """Return what a batch says for an outcome."""
    if isinstance(outcome, Fault):
        # An aborted request has no reason.
        return outcome.reason or Reason.ROOT_TABLE_ADDRESS, 0
    # Untranslated requests keep their address, even one wider than the host's.
    identity = outcome.address == 0 and outcome.mask >> 38
    return 0, iova if identity else outcome.address | iova & outcome.mask


def fresh(model: VtdUnit, one: tuple[int, int | None, int, AccessKind, Attribute]) -> Outcome:
    """Return what the model would answer without caches; whether A/D bits are set is no matter."""
    sid, pasid, iova, kind, attributes = one
    asked = Request(sid, pasid, iova, kind, attributes=attributes)
    permitted, _ = model.translator.permitted(asked)
    return permitted[0].outcome


def opened(seed: int) -> tuple[Random, Scenario, UnitConfig, VtdUnit, NativeUnit]:
    random = Random(seed)
    scenario = Scenario(random)
    config = scenario.config()
    units = VtdUnit(config), NativeUnit(config)
    for name, arguments in scenario.opening():
        for unit in units:
            getattr(unit, name)(*arguments)
    return random, scenario, config, *units


@pytest.mark.parametrize("wide", [True, False])
def test_cold_is_the_fresh_outcome(wide: bool) -> None:
    translated = nested = 0
    for seed in range(60):
        random, scenario, _, model, native = opened(seed)
        native.use_wide_registers(wide)
        for _ in range(4):
            wanted = requests(random, scenario, random.choice((1, 7, 8, 64, 200)))
            expected = [as_pair(fresh(model, one), one[2]) for one in wanted]
            answers = translate(native, wanted, cold=True)
            assert answers == expected, f"Random({seed})"
            passed = sum(status == 0 for status, _ in answers)
            translated += passed
            nested += passed * scenario.nests
            for operation in scenario.step() + scenario.step():
                for unit in (model, native):
                    getattr(unit, operation[0])(*operation[1])
    assert translated > 1000
    assert nested > 100


@pytest.mark.parametrize("wide", [True, False])
def test_warm_is_permitted(wide: bool) -> None:
    stale = translated = 0
    for seed in range(60):
        random, scenario, _, model, native = opened(1000 + seed)
        native.use_wide_registers(wide)
        pool = requests(random, scenario, 40)
        for _ in range(12):
            wanted = [random.choice(pool) for _ in range(random.choice((1, 8, 32, 80)))]
            permitted = []
            for one in wanted:
                sid, pasid, iova, kind, attributes = one
                verdict = model.access(sid, pasid, iova, kind, None, attributes)
                permitted.append([as_pair(c.outcome, one[2]) for c in verdict.permitted])
            answers = translate(native, wanted, cold=False)
            for one, answer, allowed in zip(wanted, answers, permitted, strict=True):
                assert answer in allowed, (f"Random({1000 + seed})", one, answer, allowed)
                stale += answer != allowed[0]
                translated += answer[0] == 0
            for operation in scenario.step():
                for unit in (model, native):
                    getattr(unit, operation[0])(*operation[1])
    assert translated > 1000
    assert stale > 5


ABORT = 3
"""The translation table mode that refuses every request."""
LATCH = layout(GlobalCommand).mask("te", "srtp")


@pytest.mark.parametrize("cold", [True, False])
@pytest.mark.parametrize(
    ("writes", "reasons"),
    [
        ([(vtd.GCMD, 0)], set()),
        (
            # In QEMU's dialect it is scalable or legacy mode, and there is no root table at 0.
            [(vtd.RTADDR, ABORT << 10), (vtd.GCMD, LATCH)],
            {Reason.ROOT_TABLE_ADDRESS, Reason.ROOT_NOT_PRESENT},
        ),
        (
            [(vtd.RTADDR, 1 << 60), (vtd.GCMD, LATCH)],
            {Reason.ROOT_NOT_PRESENT, Reason.ROOT_TABLE_ADDRESS, Reason.LEGACY_MODE_PASID},
        ),
    ],
    ids=["disabled", "abort mode", "root out of reach"],
)
def test_where_no_table_is_read(
    writes: list[tuple[vtd.Register, int]], reasons: set[Reason], cold: bool
) -> None:
    met = set()
    for seed in range(8):
        random, scenario, _, model, native = opened(seed)
        wanted = requests(random, scenario, 40)
        translate(native, wanted, cold=False)
        for register, value in writes:
            for unit in (model, native):
                unit.write_register(register.offset, register.size, value)
        expected = [as_pair(fresh(model, one), one[2]) for one in wanted]
        assert translate(native, wanted, cold=cold) == expected, f"Random({seed})"
        met |= {status for status, _ in expected}
    assert met == {0, *reasons}


@pytest.mark.parametrize("attributes", [b"", b"\0\0"])
def test_attributes_are_as_many(attributes: bytes) -> None:
    unit = NativeUnit(UnitConfig(0, 0))
    one = array("H", [0]), array("I", [0]), array("Q", [0]), b"\1", array("Q", [0]), bytearray(1)
    with pytest.raises(ValueError, match="differ in length"):
        unit.translate(*one, attributes, cold=True)


def test_attributes_must_be_known() -> None:
    unit = NativeUnit(UnitConfig(0, 0))
    one = array("H", [0]), array("I", [0]), array("Q", [0]), b"\1", array("Q", [0]), bytearray(1)
    both = Attribute.TRANSLATED | Attribute.TRANSLATION_REQUEST
    for attributes in (both, 8):
        with pytest.raises(ValueError, match="attributes are not known"):
            unit.translate(*one, bytes([attributes]), cold=True)


def test_lengths_must_agree() -> None:
    unit = NativeUnit(UnitConfig(0, 0))
    with pytest.raises(ValueError, match="differ in length"):
        unit.translate(
            array("H", [0]), array("I"), array("Q"), b"", array("Q"), bytearray(), cold=True
        )


def test_types_must_agree() -> None:
    unit = NativeUnit(UnitConfig(0, 0))
    with pytest.raises(TypeError):
        unit.translate(
            array("I", [0]),
            array("I", [0]),
            array("Q", [0]),
            b"\1",
            array("Q", [0]),
            bytearray(1),
            cold=True,
        )
    with pytest.raises(TypeError):
        unit.translate(
            array("H", [0]),
            array("I", [0]),
            array("Q", [0]),
            b"\1",
            array("Q", [0]),
            bytes(1),
            cold=True,
        )


@pytest.mark.parametrize("wide", [True, False])
def test_the_last_entry_of_the_window_is_the_last_that_is_read(wide: bool) -> None:
    config = unit_config()
    platform = Platform(NativeUnit(config), config)
    platform.contexts[0] = (64 << 30) - PAGE
    platform.start(0)
    platform.store(platform.root, platform.contexts[0] | 1)
    platform.legacy(0xFF).map(0x1000, 0x5000)
    unit = platform.unit
    assert isinstance(unit, NativeUnit)
    unit.use_wide_registers(wide)
    same: Requests = [(0xFF, None, 0x1008, AccessKind.READ, NO_ATTRIBUTES)] * 16
    assert translate(unit, same, cold=True) == [(0, 0x5008)] * 16
