"""Write reproducers as text: qtest commands, a shell script, a C test in the style of QEMU's."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Final

from harness.errors import HarnessError
from harness.export.program import PROGRAM, Command, Program

WIDTH: Final = 90
_SECONDS: Final = 5
_WHOLE: Final = (1 << 64) - 1
_OWN_WORDS: Final = len(("-nodefaults", "-display", "none", "-S", "-accel", "tcg"))
_UNSAFE: Final = re.compile(r"[^ -~]|\*/")


def qtest_script(program: Program, about: str) -> str:
    """Return commands for the standard input of a plain QEMU; the first line is how to run it.

    QEMU answers a line that begins with # by saying that it does not know such a command.
    """
    head = [f"# {program.command_line()} < THIS"]
    return "\n".join([*head, *_comments(program, about, "# "), *_lines(program)]) + "\n"


def _lines(program: Program) -> list[str]:
    return [command.line for command in program.commands if command.line]


def shell_script(program: Program, about: str) -> str:
    """Return a shell script that runs a plain QEMU; each answer belongs to one command."""
    command = program.command_line().replace(PROGRAM, f'"${{QEMU:-{PROGRAM}}}"', 1)
    lines = ["#!/bin/sh", *_comments(program, about, "# ")]
    lines += [f"# QEMU is ended after {_SECONDS} seconds.", f"timeout {_SECONDS} {command} <<'END'"]
    return "\n".join([*lines, *_lines(program), "END"]) + "\n"


def _comments(program: Program, about: str, sign: str) -> Iterator[str]:
    for paragraph in about.splitlines():
        for line in textwrap.wrap(_plain(paragraph), WIDTH) or [""]:
            yield (sign + line).rstrip()
    for what, count in program.left_out.items():
        yield f"{sign}left out: {_plain(what)} ({count})"
    for command in program.commands:
        if command.expected is not None:
            masked = "" if command.mask == _WHOLE else f" & {command.mask:#x}"
            yield f"{sign}expected: {command.line}{masked} = {command.expected:#x} ({command.note})"
    if program.asked:
        for line in textwrap.wrap(_plain(program.asked), WIDTH):
            yield sign + line
    for command in program.commands:
        if command.answer is not None:
            judged = _ANSWERED[command.as_expected]
            yield f"{sign}answered: {command.line} = {command.answer:#x}{judged}"


def _plain(text: str) -> str:
    return _UNSAFE.sub("?", text)


_ANSWERED: Final = {None: "", True: ", as expected", False: ", which is not expected"}

_STORE: Final = re.compile(r"(write|out)([bwlq]) (0x[0-9a-f]+) (0x[0-9a-f]+)")
_LOAD: Final = re.compile(r"read([bwlq]) (0x[0-9a-f]+)")
_WRITE: Final = re.compile(r"write (0x[0-9a-f]+) (0x[0-9a-f]+) 0x([0-9a-f]+)")
_MEMSET: Final = re.compile(r"memset (0x[0-9a-f]+) (0x[0-9a-f]+) (0x[0-9a-f]+)")


def c_test(program: Program, about: str, name: str) -> str:
    """Return a C file for tests/qtest of QEMU."""
    words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "trace"
    # The rest is what qtest_init() gives each QEMU itself.
    options = " ".join(list(program.words())[_OWN_WORDS:])
    body = [f"    {line}" for line in _c_body(program.commands)]
    pieces = textwrap.wrap(
        options, 60, drop_whitespace=False, break_long_words=False, break_on_hyphens=False
    )
    quoted = "\n        ".join(f'"{piece}"' for piece in pieces)
    comment = "\n".join(_comments(program, about, " * "))
    head = f"/*\n{comment}\n */\n\n" if comment else ""
    return (
        f"{head}"
        '#include "qemu/osdep.h"\n#include "libqtest.h"\n\n'
        f"static void test_{words}(void)\n{{\n"
        f'    QTestState *s = qtest_init("-nodefaults "\n        {quoted});\n\n'
        + "\n".join(body)
        + "\n\n    qtest_quit(s);\n}\n\n"
        "int main(int argc, char **argv)\n{\n"
        "    g_test_init(&argc, &argv, NULL);\n"
        f'    qtest_add_func("/iommu/{words.replace("_", "-")}", test_{words});\n\n'
        "    return g_test_run();\n}\n"
    )


def _c_body(commands: list[Command]) -> Iterator[str]:
    for command in commands:
        if command.note:
            yield f"/* {_plain(command.note)[:WIDTH]} */"
        if command.line:
            yield from _c_call(command)


def _c_call(command: Command) -> Iterator[str]:
    line = command.line
    if (found := _STORE.fullmatch(line)) is not None:
        verb, letter, where, value = found.groups()
        yield f"qtest_{verb}{letter}(s, {_c_number(where)}, {_c_number(value)});"
    elif (found := _LOAD.fullmatch(line)) is not None:
        call = f"qtest_read{found[1]}(s, {_c_number(found[2])})"
        if command.expected is None:
            yield f"{call};"
        else:
            masked = call if command.mask == _WHOLE else f"{call} & {_c_number(hex(command.mask))}"
            yield f"g_assert_cmphex({masked}, ==,"
            yield f"                {_c_number(hex(command.expected))});"
    elif (found := _WRITE.fullmatch(line)) is not None:
        data = bytes.fromhex(found[3])
        yield "{"
        yield "    static const uint8_t data[] = {"
        for at in range(0, len(data), 12):
            yield "        " + " ".join(f"{byte:#04x}," for byte in data[at : at + 12])
        yield "    };"
        yield f"    qtest_memwrite(s, {_c_number(found[1])}, data, sizeof(data));"
        yield "}"
    elif (found := _MEMSET.fullmatch(line)) is not None:
        yield f"qtest_memset(s, {_c_number(found[1])}, {found[3]}, {found[2]});"
    else:
        raise HarnessError(f"no C function stands for the command {line[:60]!r}")


def _c_number(text: str) -> str:
    return f"{text}ULL" if int(text, 16) >> 31 else text
