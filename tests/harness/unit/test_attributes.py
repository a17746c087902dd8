"""Privileged requests, those of device TLBs, abort mode and units that cannot set A/D bits."""

from __future__ import annotations

import pytest

from decoders.events import AccessKind, Attribute, FaultRecord, Outcome, Translation
from decoders.layout import layout
from decoders.vtd.faults import FaultRecordRegister, Reason
from harness.model.config import Updates
from harness.model.translate import ABORTED
from tests.harness.unit.conftest import MakePlatform
from tests.writers.platform import EXECUTE, READ, WRITE, Platform, fault, page

PRIVILEGED, ATS, TRANSLATED = Attribute
UNTRANSLATED = Translation(0, (1 << 46) - 1)
HOST = 0x20_0000
RECORD = layout(FaultRecordRegister)


def ask(
    platform: Platform,
    attributes: Attribute,
    kind: AccessKind = READ,
    pasid: int | None = 1,
) -> Outcome:
    return platform.request(0x1000, kind, pasid=pasid, attributes=attributes).taken


# -- supervisors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pgtt", [1, 2])
def test_a_privileged_request_needs_to_be_enabled(make_platform: MakePlatform, pgtt: int) -> None:
    platform = make_platform(srs=1)
    make = platform.first_stage if pgtt == 1 else platform.second_stage
    for sre, expected in ((0, fault(Reason.PASID_SUPERVISOR_DISABLED)), (1, page(HOST))):
        make(1 + sre, domain=1 + sre, sre=sre).map(0x1000, HOST)
        assert ask(platform, PRIVILEGED, pasid=1 + sre) == expected


def test_execute_is_asked_before_privilege(platform: Platform) -> None:
    platform.first_stage(1).map(0x1000, HOST)
    assert ask(platform, PRIVILEGED, EXECUTE) == fault(Reason.PASID_EXECUTE_DISABLED)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_supervisor_uses_pages_of_its_own(make_platform: MakePlatform, level: int) -> None:
    platform = make_platform(srs=1)
    space = platform.first_stage(1, sre=1)
    space.map(0x1000, HOST)
    space.change(0x1000, level, us=0)
    assert platform.permitted(0x1000, pasid=1) == {fault(Reason.FS_USER)}
    assert ask(platform, PRIVILEGED) == page(HOST)
    # What was kept for the supervisor does not answer a user.
    assert platform.permitted(0x1000, pasid=1) == {fault(Reason.FS_USER)}


@pytest.mark.parametrize(("wpe", "expected"), [(0, page(HOST)), (1, fault(Reason.SM_NO_WRITE))])
def test_write_protection_of_supervisors(
    make_platform: MakePlatform, wpe: int, expected: Outcome
) -> None:
    platform = make_platform(srs=1)
    platform.first_stage(1, sre=1, wpe=wpe).map(0x1000, HOST, rw=0)
    assert ask(platform, PRIVILEGED, WRITE) == expected
    assert platform.write_to(0x1000, pasid=1) == fault(Reason.SM_NO_WRITE)


@pytest.mark.parametrize("smep", [0, 1])
@pytest.mark.parametrize("level", [0, 1, 2, 3, 4])
def test_supervisors_do_not_execute_pages_of_users(
    make_platform: MakePlatform, smep: int, level: int
) -> None:
    platform = make_platform(srs=1)
    space = platform.first_stage(1, sre=1, ere=1, smep=smep)
    space.map(0x1000, HOST)
    if level:
        space.change(0x1000, level, us=0)
    prevented = smep and not level
    expected = fault(Reason.SM_NO_EXECUTE) if prevented else page(HOST)
    assert ask(platform, PRIVILEGED, EXECUTE) == expected
    assert ask(platform, PRIVILEGED, READ) == page(HOST)


@pytest.mark.parametrize(("rprivs", "expected"), [(0, fault(Reason.FS_USER)), (1, page(HOST))])
def test_a_device_can_be_privileged_as_a_whole(
    make_platform: MakePlatform, rprivs: int, expected: Outcome
) -> None:
    platform = make_platform(srs=1, rprivs=rprivs)
    platform.scalable_context(rid_priv=1)
    platform.first_stage(0, sre=1, domain=1).map(0x1000, HOST, us=0)
    platform.first_stage(1, sre=1, domain=2).map(0x1000, HOST, us=0)
    assert platform.read(0x1000) == expected
    assert platform.read(0x1000, pasid=1) == fault(Reason.FS_USER)


def test_a_kept_entry_is_asked_for_the_privilege_too(make_platform: MakePlatform) -> None:
    platform = make_platform(srs=1)
    space = platform.first_stage(1, sre=0)
    space.map(0x1000, HOST)
    assert platform.read(0x1000, pasid=1) == page(HOST)
    platform.first_stage(1, sre=1, root=space.root)
    verdict = platform.request(0x1000, pasid=1, attributes=PRIVILEGED)
    outcomes = [candidate.outcome for candidate in verdict.permitted]
    assert outcomes == [page(HOST), fault(Reason.PASID_SUPERVISOR_DISABLED)]
    assert platform.permitted(0x1000, pasid=1) == {page(HOST)}


# -- device TLBs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", [ATS, TRANSLATED])
@pytest.mark.parametrize(("tt", "allowed"), [(0, False), (1, True), (2, False)])
def test_the_translation_type_blocks_device_tlbs(
    platform: Platform, attribute: Attribute, tt: int, allowed: bool
) -> None:
    platform.legacy(levels=5, tt=tt).map(0x1000, HOST)
    allows = UNTRANSLATED if attribute == TRANSLATED else page(HOST)
    expected = allows if allowed else fault(Reason.REQUEST_TYPE_BLOCKED)
    assert ask(platform, attribute, pasid=None) == expected


@pytest.mark.parametrize("attribute", [ATS, TRANSLATED])
@pytest.mark.parametrize("dte", [0, 1])
def test_a_context_entry_enables_device_tlbs(
    platform: Platform, attribute: Attribute, dte: int
) -> None:
    platform.scalable_context(dte=dte)
    platform.first_stage(1).map(0x1000, HOST)
    allows = UNTRANSLATED if attribute == TRANSLATED else page(HOST)
    expected = allows if dte else fault(Reason.SM_DEVICE_TLB_DISABLED)
    assert ask(platform, attribute) == expected


def test_device_tlbs_are_asked_before_pasids(platform: Platform) -> None:
    platform.scalable_context(paside=0)
    assert ask(platform, ATS) == fault(Reason.SM_DEVICE_TLB_DISABLED)


def test_a_translated_request_passes_whatever_the_tables_say(platform: Platform) -> None:
    platform.scalable_context(dte=1)
    platform.pasid_entry(1, p=0)
    assert ask(platform, TRANSLATED) == UNTRANSLATED
    assert ask(platform, ATS) == fault(Reason.PASID_NOT_PRESENT)


def test_a_stale_context_entry_may_still_enable_them(platform: Platform) -> None:
    space = platform.legacy(tt=1)
    space.map(0x1000, HOST)
    assert ask(platform, TRANSLATED, pasid=None) == UNTRANSLATED
    platform.context(ssptptr=space.root >> 12, tt=0)
    verdict = platform.request(0x1000, attributes=TRANSLATED)
    outcomes = [candidate.outcome for candidate in verdict.permitted]
    assert outcomes == [fault(Reason.REQUEST_TYPE_BLOCKED), UNTRANSLATED]


@pytest.mark.parametrize(
    ("attributes", "priv", "at"), [(PRIVILEGED, 1, 0), (ATS, 0, 1), (TRANSLATED | PRIVILEGED, 1, 2)]
)
def test_a_fault_record_says_what_was_asked(
    platform: Platform, attributes: Attribute, priv: int, at: int
) -> None:
    platform.scalable_context(p=0)
    ask(platform, attributes)
    (record,) = (seen for seen in platform.observed() if isinstance(seen, FaultRecord))
    words = (record.low, record.high)
    assert (RECORD["priv"].get(words), RECORD["at"].get(words)) == (priv, at)


# -- abort mode ----------------------------------------------------------------------------------


@pytest.mark.parametrize("attributes", [Attribute(0), *Attribute])
def test_abort_mode_refuses_everything_in_silence(
    make_platform: MakePlatform, attributes: Attribute
) -> None:
    platform = make_platform(adms=1)
    platform.set_root(platform.page(), 3)
    platform.command(te=1)
    assert ask(platform, attributes) == ABORTED
    assert platform.observed() == []


def test_abort_mode_needs_the_capability(platform: Platform) -> None:
    platform.set_root(platform.page(), 3)
    platform.command(te=1)
    assert ask(platform, Attribute(0)) == fault(Reason.ROOT_TABLE_ADDRESS)


# -- units that cannot set the bits --------------------------------------------------------------


@pytest.mark.parametrize(
    ("updates", "first", "second"),
    [
        (Updates.NOT_SNOOPED, Reason.FS_NOT_SNOOPED, Reason.SM_SS_NOT_SNOOPED),
        (Updates.FAILING, Reason.FS_UPDATE_FAILED, Reason.SM_SS_UPDATE_FAILED),
    ],
)
def test_a_bit_that_cannot_be_set(
    make_platform: MakePlatform, updates: Updates, first: Reason, second: Reason
) -> None:
    platform = make_platform(updates=updates)
    marked = {1: platform.first_stage(1, domain=1), 2: platform.second_stage(2, domain=2, ssade=1)}
    for pasid, reason in ((1, first), (2, second)):
        space = marked[pasid]
        space.map(0x1000, HOST, a=1)
        assert platform.read(0x1000, pasid=pasid) == fault(reason)
        for level in (2, 3, 4):
            space.change(0x1000, level, a=1)
        assert platform.read(0x1000, pasid=pasid) == page(HOST)
        assert platform.write_to(0x1000, pasid=pasid) == fault(reason)
        space.change(0x1000, d=1)
        assert platform.write_to(0x1000, pasid=pasid) == page(HOST)
    platform.second_stage(3, domain=3).map(0x1000, HOST)
    assert platform.write_to(0x1000, pasid=3) == page(HOST)


def test_a_snooped_walk_can_set_them(make_platform: MakePlatform) -> None:
    platform = make_platform(updates=Updates.NOT_SNOOPED)
    platform.first_stage(1, pwsnp=1).map(0x1000, HOST)
    assert platform.write_to(0x1000, pasid=1) == page(HOST)
