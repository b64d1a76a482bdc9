"""Read the words of a command line into a typed object, for every command alike."""

import contextlib
import dataclasses
import io
import os
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from svfseg.errors import InputError

A = TypeVar("A")


def parse(
    kind: type[A],
    command: str,
    words: Sequence[str],
    default: A | None = None,
    stray: str = "",
) -> A:
    """Fill a dataclass from the words of a command line; on --help, print it and end.

    Args:
        kind: the dataclass.
        command: its name, for messages.
        words: what was typed.
        default: values of what is not typed.
        stray: what to do with a word that belongs to no option.

    Raises:
        InputError: what is wrong with the words, in one line.
    """
    defaults: dict[str, Any] = {} if default is None else {"default": default}

    def read() -> A:
        parsed: A = tyro.cli(
            kind,
            prog=f"svfseg {command}",
            args=list(words),
            config=(tyro.conf.FlagCreatePairsOff,),
            **defaults,
        )
        return parsed

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return read()
    except SystemExit as end:
        if not end.code:
            raise
    # once more, so wide that no line is broken, and to no terminal: plain text
    errors = io.StringIO()
    with (
        _columns("10000"),
        contextlib.redirect_stderr(errors),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(SystemExit),
    ):
        read()
    raise InputError(_one_line(errors.getvalue(), command.split()[0], stray))


def group_help(command: str, purpose: str, kinds: Mapping[str, type[Any]]) -> str:
    """List the commands of a group with a sentence for each.

    Args:
        command: name of the group, such as "data".
        purpose: a sentence that says what the group is for.
        kinds: name of a command -> dataclass of its options, whose docstring is the sentence.
    """
    width = max(map(len, kinds))
    rows = [(name, " ".join((kind.__doc__ or "").split())) for name, kind in kinds.items()]
    return "\n".join(
        [
            f"usage: svfseg {command} COMMAND ...",
            "",
            purpose,
            "",
            "commands:",
            *(f"  {name.ljust(width)}  {text}" for name, text in rows),
            "",
            f"svfseg {command} COMMAND --help shows the options of one, and their defaults.",
        ]
    )


def split_config_file(words: Sequence[str], kind: type) -> tuple[Path | None, list[str]]:
    """Separate a YAML file, wherever it stands, from the options of a command.

    A word is the file if it belongs to no option: it stands first, or behind a value or a flag.
    Behind an option that takes a value it is that value, but for a word that ends with .yaml or
    .yml behind the values of an option that takes several.

    Args:
        words: what was typed.
        kind: the dataclass of the command, whose bools are its flags.

    Raises:
        InputError: two files are given.
    """
    flags = _flags(kind, "")
    files: list[Path] = []
    others: list[str] = []
    takes_value = False
    for word in words:
        is_option = word.startswith("-")
        is_yaml = word.lower().endswith((".yaml", ".yml"))
        after_option = bool(others) and others[-1].startswith("-")
        if not is_option and not takes_value and (is_yaml or not others or after_option):
            files.append(Path(word))
            continue
        others.append(word)
        name = word.lstrip("-").replace("_", "-")
        takes_value = is_option and "=" not in word and name not in flags
    if len(files) > 1:
        raise InputError(f"found two configs, {files[0]} and {files[1]}: give one")
    return (files[0] if files else None), others


def _flags(kind: type, prefix: str) -> set[str]:
    """Name the options of a dataclass that take no value; a field named "config" has no prefix."""
    flags: set[str] = set()
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], f"{prefix}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            flags |= _flags(hint, "" if field.name == "config" else f"{name}.")
        elif hint is bool:
            flags |= {name, name.rpartition(".")[0] + ".no-" + name.rpartition(".")[2]}
    return flags | {"help", "h"}


@contextlib.contextmanager
def _columns(number: str) -> Iterator[None]:
    """Set the width of the terminal, in characters, in the environment."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = number
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _one_line(errors: str, command: str, stray: str) -> str:
    """Shorten the box of tyro: what is wrong, a rule, what comes near, a rule, its help."""
    rows = [row.rstrip()[2:] for row in errors.splitlines()[2:]]
    rules = [i for i, row in enumerate(rows) if row and not row.strip("-")]
    above, below = (rules[0], rules[-1]) if rules else (len(rows), len(rows))
    wrong = " ".join(" ".join(rows[:above]).split()).rstrip(".")
    options = [row.split()[0] for row in rows[:below] if row.startswith("    ") and row[4] != " "]
    parts = [_say_value(wrong, rows[above:below])]
    if wrong.startswith("Missing from"):
        parts = [f"{wrong.partition(':')[0]}: {options[0]}"]
        unknown = [row.split()[0] for row in rows[above:below] if row.startswith("    --")]
        if unknown:
            parts.append(f"unrecognized: {', '.join(unknown)}")
    elif wrong.startswith("Unrecognized"):
        words = wrong.partition(": ")[2].split(", ")
        if options:
            parts.append(f"did you mean {' or '.join(options)}")
        elif stray and not any(word.startswith("-") for word in words):
            parts.append(stray)
    return "; ".join([*parts, f"svfseg {command} --help lists the options"])


def _say_value(wrong: str, helped: Sequence[str]) -> str:
    """Say in plain words what is wrong with the value of an option; else return the text."""
    if match := re.match(r"Missing value for argument '(\S+)'", wrong):
        return f"{match[1]} needs a value"
    if match := re.match(r"invalid choice '(.*)' for argument '(\S+)'.* of (.*)", wrong):
        choices = re.findall("'(.*?)'", match[3])
        return f"{match[2]} is {match[1]}: expected {', '.join(choices)}"
    if match := re.match(r"Error parsing (\S+): .*'(.*)'", wrong):
        kind = re.search(r"\b(INT|FLOAT)\b( \[)?", " ".join(helped))
        if kind is not None:
            integer = "whole " if kind[1] == "INT" else ""
            expected = f"{integer}numbers" if kind[2] else f"a {integer}number"
            return f"{match[1]} is {match[2]}: expected {expected}"
    return wrong
