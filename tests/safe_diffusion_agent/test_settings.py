"""Values of settings, against what Python's own types would take them for."""

from dataclasses import dataclass
from typing import Literal

import pytest

from safe_diffusion_agent.cli.options import parse_settings
from safe_diffusion_agent.errors import UnknownNameError
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.settings import change, group_of_setting


@dataclass(frozen=True, kw_only=True)
class Config:
    on: bool = True
    num: int = 1
    share: float = 0.5
    risk: float | None = 0.1
    steps: int | None = None
    ratios: tuple[float, ...] = ()
    bound: Literal["dual", "single"] = "dual"


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("on=False", False), ("on=false", False), ("on=True", True), ("num=3", 3),
        ("num=1e6", 10**6), ("share=1", 1.0), ("risk=None", None), ("risk=null", None),
        ("risk=0.2", 0.2), ("steps=none", None), ("steps=4", 4),
        ("ratios=[0.2, 1]", (0.2, 1.0)), ("ratios=[]", ()),
        ("bound=single", "single"),
    ],
)  # fmt: skip
def test_a_value_is_read_as_what_the_setting_is(given, value):
    name = given.partition("=")[0]
    changed = getattr(change(Config(), parse_settings([given])), name)
    assert changed == value and type(changed) is type(value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("on=no", "on should be true or false. Received 'no'."),
        ("on=1", "on should be true or false. Received 1."),
        ("num=16.5", "num should be a whole number. Received 16.5."),
        ("num=true", "num should be a whole number. Received True."),
        ("num=None", "num should be a whole number. Received None."),
        ("share=abc", "share should be a number. Received 'abc'."),
        ("share=NaN", "share should be a number. Received nan."),
        ("risk=[1]", "risk should be a number or none. Received (1,)."),
        ("ratios=0.5", "ratios should be a list like [...], each a number. Received 0.5."),
        ('ratios=[1, "a"]', "each of ratios should be a number. Received 'a'."),
        ("bound=3", "There is no bound 3. Did you mean"),
    ],
)
def test_a_value_of_another_type_is_refused_in_one_line(given, message):
    with pytest.raises(ValueError) as error:
        change(Config(), parse_settings([given]))
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize("method", METHODS)
def test_no_setting_of_any_method_takes_a_value_of_another_type(method):
    config = METHODS[method].presets["quick"]
    for name in group_of_setting(type(config)):
        for value in ("abc", {}, b"x"):
            with pytest.raises((ValueError, UnknownNameError), match=f"{name} "):
                change(config, {name: value})
