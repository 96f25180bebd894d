"""Settings of saved models: each error names the file and the setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest

from vislang.errors import UserError
from vislang.models.settings import settings_of


@dataclass
class Inner:
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"

    def __post_init__(self):
        if self.rate > 1:
            raise ValueError(f"rate is {self.rate}; it must be at most 1.")


@dataclass
class Outer:
    width: int
    inner: Inner
    maybe: Inner | None = None
    size: int | None = None
    pairs: Sequence[Sequence[int]] = ((1, 2),)
    betas: tuple[float, float] = (0.9, 0.95)
    by_name: dict[str, Inner] = field(default_factory=dict)
    origin: dict[str, Any] | None = None
    on: bool = False


GOOD = {"width": 3, "inner": {"rate": 1}}


def test_what_was_saved_is_built_again():
    whole = Outer(3, Inner(0.25, "b"), Inner(), 5, [[1, 2], [3, 4]], (0.1, 0.2), {"x": Inner()}, {"any": [1]}, True)
    assert settings_of(Outer, asdict(whole), "config.json") == whole
    assert settings_of(Outer, GOOD, "config.json") == Outer(3, Inner(1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "the whole must be an object"),
        ({"width": 3}, "inner is missing"),
        ({**GOOD, "wdith": 4}, "wdith is unknown"),
        ({**GOOD, "width": "3"}, "width is '3'; it must be a whole number"),
        ({**GOOD, "width": True}, "width is True; it must be a whole number"),
        ({**GOOD, "width": 3.5}, "width is 3.5; it must be a whole number"),
        ({**GOOD, "size": "x"}, "size is 'x'; it must be a whole number or null"),
        ({**GOOD, "on": 1}, "on is 1; it must be true or false"),
        ({**GOOD, "inner": {"rate": float("nan")}}, "inner.rate is nan; it must be a finite number"),
        ({**GOOD, "inner": {"kind": "c"}}, "inner.kind is 'c'; it must be 'a' or 'b'"),
        ({**GOOD, "inner": {"rate": 2.0}}, "inner: rate is 2.0; it must be at most 1"),
        ({**GOOD, "inner": None}, "inner must be an object"),
        ({**GOOD, "maybe": {"rat": 1}}, "maybe.rat is unknown"),
        ({**GOOD, "pairs": [[1, "2"]]}, r"pairs\[0\]\[1\] is '2'"),
        ({**GOOD, "pairs": 3}, "pairs is 3; it must be a list"),
        ({**GOOD, "betas": [0.9]}, "it must have 2 values"),
        ({**GOOD, "by_name": {"x": {"kind": 1}}}, "by_name.x.kind is 1"),
    ],
)
def test_a_fault_is_named_with_file_and_setting(values, message):
    with pytest.raises(UserError, match=f"^some/config.json: .*{message}"):
        settings_of(Outer, values, "some/config.json")
