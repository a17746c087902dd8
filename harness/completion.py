"""The completion verb: scripts that complete dmarewind's command line, made from its parser."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PROGRAM = "dmarewind"


@dataclass(frozen=True, slots=True)
class Option:
    """Describe one option: its spellings, whether a value follows, and which values there are."""

    names: tuple[str, ...]
    takes_value: bool
    choices: tuple[str, ...]
    help: str


@dataclass(frozen=True, slots=True)
class Verb:
    """Describe one verb; words are the choices of its positional argument, if it has any."""

    name: str
    help: str
    options: tuple[Option, ...]
    words: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `dmarewind completion`."""
    parser.add_argument("shell", choices=sorted(_SHELLS), help="which shell the script is for")


def describe(name: str, summary: str, parser: argparse.ArgumentParser) -> Verb:
    """Take from a verb's parser what a completion needs."""
    options: list[Option] = []
    words: list[str] = []
    for action in parser._actions:
        choices = tuple(str(choice) for choice in action.choices or ())
        if not action.option_strings:
            words += choices
            continue
        shown = " ".join((action.help or "").split()) % {**vars(action), "prog": parser.prog}
        takes_value = action.nargs != 0
        options.append(Option(tuple(action.option_strings), takes_value, choices, shown))
    return Verb(name, summary, tuple(options), tuple(words))


def script(shell: str, verbs: list[Verb]) -> str:
    """Return the script for a shell."""
    return "\n".join(_SHELLS[shell](verbs)) + "\n"


def _names(verb: Verb) -> list[str]:
    return [name for option in verb.options for name in option.names]


def _bash(verbs: list[Verb]) -> Iterator[str]:
    yield f"# bash completion of {PROGRAM}: source it, or put it into bash-completion's folder"
    yield f"_{PROGRAM}() {{"
    yield "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}"
    yield "    local verb=${COMP_WORDS[1]} words="
    yield "    COMPREPLY=()"
    yield '    if [ "$COMP_CWORD" -eq 1 ]; then'
    yield f"        words={shlex.quote(' '.join(verb.name for verb in verbs))}"
    yield "    else"
    yield '        case "$verb $before" in'
    for verb in verbs:
        for option in verb.options:
            if option.takes_value:
                patterns = "|".join(f"'{verb.name} {name}'" for name in option.names)
                if option.choices:
                    reply = f"words={shlex.quote(' '.join(option.choices))}"
                else:
                    reply = "return"
                yield f"            {patterns}) {reply} ;;"
    yield "            *)"
    yield '                case "$verb" in'
    for verb in verbs:
        # File names are offered where no option is begun.
        offered = shlex.quote(" ".join(_names(verb)))
        plain = f"words={shlex.quote(' '.join(verb.words))}" if verb.words else "return"
        begun = f"if [[ $word == -* ]]; then words={offered}; else {plain}; fi"
        yield f"                    {verb.name}) {begun} ;;"
    yield "                esac ;;"
    yield "        esac"
    yield "    fi"
    yield '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")'
    yield "}"
    yield f"complete -o default -F _{PROGRAM} {PROGRAM}"


def _zsh(verbs: list[Verb]) -> Iterator[str]:
    yield f"#compdef {PROGRAM}"
    yield f"_{PROGRAM}() {{"
    yield "    if (( CURRENT == 2 )); then"
    yield "        local -a verbs=("
    for verb in verbs:
        yield f"            {shlex.quote(f'{verb.name}:{verb.help}')}"
    yield "        )"
    yield "        _describe verb verbs"
    yield "        return"
    yield "    fi"
    yield "    local verb=$words[2]"
    yield "    shift words"
    yield "    (( CURRENT-- ))"
    yield '    case "$verb" in'
    for verb in verbs:
        yield f"        {verb.name})"
        yield "            _arguments \\"
        for option in verb.options:
            text = option.help
            for sign in "\\[]:":
                text = text.replace(sign, "\\" + sign)
            value = ""
            if option.takes_value:
                value = (
                    f":value:({' '.join(option.choices)})" if option.choices else ":value:_files"
                )
            for name in option.names:
                yield f"                {shlex.quote(f'*{name}[{text}]{value}')} \\"
        rest = f"({' '.join(verb.words)})" if verb.words else "_files"
        yield f"                {shlex.quote(f'*:argument:{rest}')}"
        yield "            ;;"
    yield "    esac"
    yield "}"
    # Loaded by autoload, the file is the function's body; sourced, it only defines it.
    yield f'if [ "$funcstack[1]" = "_{PROGRAM}" ]; then _{PROGRAM} "$@"; '
    yield f"else compdef _{PROGRAM} {PROGRAM}; fi"


def _fish(verbs: list[Verb]) -> Iterator[str]:
    yield f"# fish completion of {PROGRAM}"
    for verb in verbs:
        parts = f"-f -a {verb.name} -d {_fish_quote(verb.help)}"
        yield f"complete -c {PROGRAM} -n __fish_use_subcommand {parts}"
    for verb in verbs:
        seen = f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {verb.name}'"
        if verb.words:
            yield f"{seen} -f -a {_fish_quote(' '.join(verb.words))}"
        for option in verb.options:
            spelt = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                for name in option.names
            )
            value = ""
            if option.takes_value:
                value = (
                    f" -x -a {_fish_quote(' '.join(option.choices))}" if option.choices else " -r"
                )
            yield f"{seen} {spelt}{value} -d {_fish_quote(option.help)}"


def _fish_quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


_SHELLS: dict[str, Callable[[list[Verb]], Iterator[str]]] = {
    "bash": _bash,
    "fish": _fish,
    "zsh": _zsh,
}
