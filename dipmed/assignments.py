"""Texts such as ``tv_weight=0.1``, as typed changes to the fields of a dataclass."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dipmed.scan import DipmedError

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def assignable(kind: type) -> dict[str, Any]:
    """Names and types of the fields of a dataclass that a text can set."""
    hints = get_type_hints(kind)
    found = {field.name: hints[field.name] for field in fields(kind) if field.init}
    return {name: hint for name, hint in found.items() if _reader(hint) is not None}


def split_assignment(text: str) -> tuple[str, str]:
    """Split ``key=value``.

    Raises
    ------
    DipmedError
        When there is no key or no equals sign.
    """
    key, equals, value = text.partition("=")
    if not key.strip() or not equals:
        raise DipmedError(f"a setting is given as KEY=VALUE, got {text!r}")
    return key.strip(), value.strip()


def read_value(key: str, text: str, hint: Any) -> Any:
    """Read the text of a value of this type: numbers, words, yes or no, none, or several with commas between them.

    Raises
    ------
    DipmedError
        When the text is no such value.
    """
    reader = _reader(hint)
    assert reader is not None  # noqa: S101  # `assignable` lists no other types
    try:
        return reader(text)
    except (ValueError, KeyError) as error:
        raise DipmedError(f"{key} takes {_in_words(hint)}, got {text!r}") from error


def _in_words(hint: Any) -> str:
    """Say what texts a type takes."""
    simple = {bool: "yes or no", int: "a whole number", float: "a number", str: "a text", type(None): "none"}
    if hint in simple:
        return simple[hint]
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return " or ".join(str(choice) for choice in arguments)
    if get_origin(hint) is tuple:
        return f"{_in_words(arguments[0])}, or several with commas between them"
    return " or ".join(_in_words(part) for part in arguments)


def _reader(hint: Any) -> Callable[[str], Any] | None:
    """What turns a text into a value of a type; None for types that a text cannot give."""
    simple: dict[Any, Callable[[str], Any]] = {
        bool: lambda text: _BOOLEANS[text.lower()],
        int: int,
        float: float,
        str: str,
    }
    if hint in simple:
        return simple[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return lambda text: {str(choice): choice for choice in arguments}[text]
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        one = _reader(arguments[0])
        return None if one is None else partial(_read_several, one)
    if origin in (Union, types.UnionType):
        readers = [_reader(part) for part in arguments if part is not type(None)]
        found = [reader for reader in readers if reader is not None]
        return partial(_read_any, found, type(None) in arguments) if len(found) == len(readers) else None
    return None


def _read_several(read: Callable[[str], Any], text: str) -> tuple[Any, ...]:
    return tuple(read(part.strip()) for part in text.split(","))


def _read_any(readers: Sequence[Callable[[str], Any]], takes_none: bool, text: str) -> Any:
    if takes_none and text.lower() == "none":
        return None
    for read in readers[:-1]:
        with suppress(ValueError, KeyError):
            return read(text)
    return readers[-1](text)
