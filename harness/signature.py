"""Name what a finding is, so that the same one is known again: signatures.

A signature leaves out what changes from one occurrence to the next (addresses, numbers of events,
process ids, line numbers) and keeps what tells two defects apart.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Final

from decoders.errors import DecodeError
from decoders.events import Event
from harness.findings import Finding, FindingKind, StepTuple
from harness.signature_words import event_words, last_step, pair, without_numbers

DISAGREEMENT: Final = "disagreement"
CRASH: Final = "crash"
HANG: Final = "hang"
INVARIANT: Final = "invariant"
"""Kinds beside those of FindingKind."""

FRAMES_KEPT: Final = 3
"""Frames of a crash that name it."""
TEXT_LIMIT: Final = 1 << 20
"""Characters of a report that are looked at."""
_NAME_LIMIT: Final = 200
_KEY_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Signature:
    """Name a finding.

    kind is a FindingKind, or one of the kinds above. event is the kind of the event it is about,
    subject what was compared there, outcome what was permitted and what was seen instead, step the
    role and level of the last entry that was read.
    """

    kind: str
    event: str = ""
    subject: str = ""
    outcome: str = ""
    step: str = ""

    @property
    def key(self) -> str:
        """Return a short name that stays the same from run to run and from machine to machine."""
        text = json.dumps(list(asdict(self).values()), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]

    def __str__(self) -> str:
        """Return the members that are not empty, on one line."""
        return ", ".join(value for value in asdict(self).values() if value)

    def as_json(self) -> dict[str, str]:
        """Return the members, and the key."""
        return {**asdict(self), "key": self.key}

    @classmethod
    def from_json(cls, plain: object, path: str = "signature") -> Signature:
        """Return the signature that as_json() gave.

        Errors: DecodeError.
        """
        if not isinstance(plain, Mapping):
            raise DecodeError(path, "is not a map")
        found = {}
        for member in fields(cls):
            value = plain.get(member.name, "")
            if not isinstance(value, str) or len(value) > TEXT_LIMIT:
                raise DecodeError(f"{path}.{member.name}", f"is {value!r:.40}, not text")
            found[member.name] = value
        made = cls(**found)
        if plain.get("key", made.key) != made.key:
            raise DecodeError(f"{path}.key", f"is not {made.key}, which the members give")
        return made


# --- findings ------------------------------------------------------------------------------------


def of_finding(finding: Finding, event: Event | None) -> Signature:
    """Return the signature of a finding about an event.

    Where luck decided, the answer that was as likely stands for what is permitted.
    """
    permitted = finding.permitted[0] if finding.permitted else None
    if finding.kind == FindingKind.UNFLUSHED:
        others = (one for one in finding.permitted if one != finding.observed)
        permitted = next(others, permitted)
    subject = f"{finding.subject} of {finding.cache}" if finding.cache else finding.subject
    made = of_difference(
        str(finding.kind), event, subject, permitted, finding.observed, finding.steps
    )
    # A virtio-iommu has no tables: what led to an answer is a mapping, or that there is no domain.
    return replace(made, step="domain") if finding.domain >= 0 and not finding.steps else made


def of_difference(
    kind: str,
    event: Event | None,
    subject: str,
    permitted: object,
    observed: object,
    steps: Sequence[StepTuple] = (),
) -> Signature:
    """Return the signature of an answer that is not the one it should be.

    Of a disagreement, permitted and observed are what the two targets say.
    """
    return Signature(
        kind, event_words(event), subject, pair(permitted, observed, event), last_step(steps)
    )


# --- crashes -------------------------------------------------------------------------------------

_SANITIZER: Final = re.compile(
    r"ERROR: (?:Address|Leak|Memory|Thread|UndefinedBehavior)Sanitizer:? ([A-Za-z-]+(?: overflow)?)"
)
_UNDEFINED: Final = re.compile(r"([^\s:]+):\d+(?::\d+)?: runtime error: ([^\n]{1,400})")
_LIBFUZZER: Final = re.compile(r"ERROR: libFuzzer: ([a-z][a-z -]{0,60})")
_ASSERT: Final = re.compile(
    r"(?P<file>[^\s:]+):\d+: (?P<function>[^\n]{1,300}?): Assertion [`'](?P<what>[^\n]{1,300})'"
    r" failed"
)
_GLIB: Final = re.compile(
    r"ERROR:(?P<file>[^\s:]+):\d+:(?P<function>\w+): (?P<what>assertion failed[^\n]{0,300}"
    r"|code should not be reached)"
)
_FRAME: Final = re.compile(
    r"^\s*#\d+ (?:0x[0-9a-f]+ in )?(?P<function>[^\n]{1,300}?)"
    r"(?: \(?(?P<file>[^\s()]+?)(?::\d+){0,2}(?:\+0x[0-9a-f]+)?\)?)?(?: \(BuildId[^)]*\))?$",
    re.MULTILINE,
)
_PYTHON: Final = re.compile(r'^  File "(?P<file>[^"\n]+)", line \d+, in (?P<function>\S+)$', re.M)
_RAISED: Final = re.compile(
    r"^(?P<what>[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Warning))\b", re.M
)
_ENDED: Final = re.compile(r"\b(SIG[A-Z]{3,8})\b|signal (\d{1,2})\b|exit status (\d{1,3})\b")
_HANGS: Final = re.compile(r"timeout|timed out|hangs?\b|no answer within", re.IGNORECASE)
_RUNTIME: Final = re.compile(
    r"^(?:__asan|__ubsan|__lsan|__msan|__tsan|__sanitizer|__interceptor|___interceptor|asan_|"
    r"_?_?libc_|__GI_|__assert|abort\b|raise\b|gsignal\b|__pthread_kill|pthread_kill|fuzzer::|"
    r"operator (?:new|delete)|malloc\b|free\b|calloc\b|realloc\b|memcpy\b|memmove\b|memset\b|"
    r"g_assertion|g_log|_start\b|main\b)"
)


def of_crash(text: str) -> Signature:
    """Return the signature of a crash or a hang, from what the program printed and how it ended.

    An assertion is named by function and condition, what a sanitizer found by its kind and the
    first frames that are the program's own, an exception by its type and the last frames.
    """
    text = text[:TEXT_LIMIT]
    for pattern in (_ASSERT, _GLIB):
        if (found := pattern.search(text)) is not None:
            where = f"{_base(found['file'])}: {_function(found['function'])}"
            return Signature(CRASH, "", "assertion", _short(without_numbers(found["what"])), where)
    frames = _frames(text)
    if (found := _UNDEFINED.search(text)) is not None:
        where = frames or _base(found[1])
        return Signature(CRASH, "", "undefined behaviour", _short(without_numbers(found[2])), where)
    if (found := _SANITIZER.search(text)) is not None:
        return Signature(CRASH, "", "sanitizer", found[1], frames)
    if (found := _LIBFUZZER.search(text)) is not None:
        what = found[1].strip()
        kind = HANG if what.startswith("timeout") else CRASH
        return Signature(kind, "", "libFuzzer", what, frames)
    if (raised := list(_RAISED.finditer(text))) and _PYTHON.search(text):
        last = [f"{_base(m['file'])}: {m['function']}" for m in _PYTHON.finditer(text)]
        where = " < ".join(reversed(last[-FRAMES_KEPT:]))
        return Signature(CRASH, "", "exception", raised[-1]["what"], where)
    if (found := _ENDED.search(text)) is not None:
        how = found[1] or (f"signal {found[2]}" if found[2] else f"exit status {found[3]}")
        return Signature(CRASH, "", "ended", how, frames)
    if _HANGS.search(text):
        return Signature(HANG, "", "time", "", frames)
    first = text.strip().partition("\n")[0]
    return Signature(CRASH, "", "ended", _short(without_numbers(first)), frames)


def _frames(text: str) -> str:
    found = (_function(match["function"]) for match in _FRAME.finditer(text))
    own = [name for name in found if not _RUNTIME.match(name)]
    return " < ".join(own[:FRAMES_KEPT])


def _function(name: str) -> str:
    """Return a function's name without what it takes, its templates' arguments and offsets."""
    name = re.sub(r"\+0x[0-9a-f]+", "", name).strip()
    bare = re.sub(r"<[^<>]*>", "", re.sub(r"\(.*\)(?: const)?$", "", name))
    words = bare.split()
    return _short(words[-1].lstrip("*&") if words else bare)


def _base(path: str) -> str:
    return _short(path.replace("\\", "/").rpartition("/")[2])


def _short(text: str) -> str:
    return text[:_NAME_LIMIT]
