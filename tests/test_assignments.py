from dataclasses import dataclass
from typing import Literal

import pytest
import torch

from dipmed.assignments import assignable, read_value, split_assignment
from dipmed.scan import DipmedError


@dataclass
class Options:
    count: int = 1
    weight: float = 0.5
    on: bool = True
    kind: Literal["drift", "none"] = "drift"
    widths: tuple[int, ...] = (1, 2)
    limit: float | None = None
    steps: int | Literal["auto"] = "auto"
    guide: torch.Tensor | None = None


def test_only_what_a_text_can_give_is_assignable():
    assert set(assignable(Options)) == {"count", "weight", "on", "kind", "widths", "limit", "steps"}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("count", "3", 3),
        ("weight", "1e-3", 1e-3),
        ("on", "no", False),
        ("kind", "none", "none"),
        ("widths", "16, 32", (16, 32)),
        ("limit", "none", None),
        ("limit", "2", 2.0),
        ("steps", "2", 2),
        ("steps", "auto", "auto"),
    ],
)
def test_a_text_becomes_a_value_of_the_type(key, text, value):
    read = read_value(key, text, assignable(Options)[key])
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "taken"),
    [
        ("count", "1.5", "a whole number"),
        ("on", "maybe", "yes or no"),
        ("kind", "fast", "drift or none"),
        ("widths", "1,x", "a whole number, or several with commas between them"),
        ("limit", "", "a number or none"),
        ("steps", "few", "a whole number or auto"),
    ],
)
def test_a_value_of_another_type_is_refused_and_what_is_taken_said(key, text, taken):
    with pytest.raises(DipmedError, match=f"{key} takes {taken}, got"):
        read_value(key, text, assignable(Options)[key])


def test_an_assignment_has_a_key_and_an_equals_sign():
    assert split_assignment(" tv_weight = 0.1") == ("tv_weight", "0.1")
    for text in ("tv_weight", "=3"):
        with pytest.raises(DipmedError, match="KEY=VALUE"):
            split_assignment(text)
