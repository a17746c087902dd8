"""What a unit may have cached beyond what its answers require: permitted sets allow for it."""

from __future__ import annotations

from typing import Final

from decoders.events import Role, Translation
from decoders.vtd.descriptors import DescriptorType
from harness.model.caches import CachedTranslation, CachedWords
from harness.model.lookup import TTM_LEGACY, Blocked
from harness.model.stages import NO_PASID
from harness.model.translate import Candidate
from harness.model.unit import VtdUnit

LOOKING_AGAIN: Final = frozenset((DescriptorType.CONTEXT_CACHE, DescriptorType.PASID_CACHE))
"""Types of descriptors that make a unit look at context or PASID entries again."""


def keep(unit: VtdUnit, sid: int, iova: int, way: Candidate) -> None:
    """Keep the translation that a way gives, under the domain that it was made for."""
    given, last = way.outcome, way.steps[-1]
    if last.role not in (Role.SECOND_STAGE, Role.FIRST_STAGE) or not isinstance(given, Translation):
        return
    pasid = NO_PASID if last.role == Role.SECOND_STAGE else _pasid_of(unit, sid)
    tag = (way.domain, pasid, int(last.role))
    leaf = CachedTranslation(given, way.rights, way.steps, unit.event)
    unit.caches.add_translation(tag, given.mask.bit_length(), iova, leaf)
    unit.remember(sid, tag)


def _pasid_of(unit: VtdUnit, sid: int) -> int:
    """Return the PASID that a source used last for the first stage."""
    return next((tag[1] for tag in unit.tags(sid) if tag[1] != NO_PASID), 0)


def fetch(unit: VtdUnit, sid: int) -> None:
    """Keep the context and PASID entries of a source as they are now.

    A unit may read them before anything needs them (VT-d specification 6.1).
    """
    translator, event = unit.translator, unit.event
    lookup = translator.lookup
    context = lookup.context(sid)
    if not translator.enabled or isinstance(context, Blocked):
        return
    if lookup.mode == TTM_LEGACY:
        domain = lookup.legacy_root(context.words).domain
        unit.caches.add_context(sid, CachedWords(context.words, context.steps, event, domain))
        return
    unit.caches.add_context(sid, CachedWords(context.words, context.steps, event, -1))
    number = lookup.effective_pasid(context.words, None)
    entry = lookup.pasid(context, None)
    if not isinstance(entry, Blocked):
        domain = lookup.scalable_root(context.words, entry, number, False).domain
        kept = CachedWords(entry.words, entry.steps, event, domain)
        unit.caches.add_pasid(sid, number, kept)
