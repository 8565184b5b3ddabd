"""Settings of a method: a frozen dataclass, some of whose fields are groups of settings.

A group is a field that is a dataclass itself. The names of all settings of one config differ, so
that a setting can be changed by its name alone, wherever it is.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import field, fields, is_dataclass, replace
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from safe_diffusion_agent.errors import UnknownNameError

Config = TypeVar("Config")
Value = TypeVar("Value")

KINDS = {bool: "true or false", int: "a whole number", float: "a number", NoneType: "none"}


def check(condition: bool, requirement: str, received: Any) -> None:
    """Raises a ValueError that says what must hold and what came, unless it holds."""
    if not condition:
        raise ValueError(f"{requirement}. Received {received!r}.")


def check_positive(config: Any, names: Iterable[str]) -> None:
    """Raises a ValueError if one of the named settings is not greater than zero."""
    for name in names:
        value = getattr(config, name)
        check(value > 0, f"{name} should be positive", value)


def check_shares(config: Any, names: Iterable[str]) -> None:
    """Raises a ValueError if one of the named settings is not in [0, 1]."""
    for name in names:
        value = getattr(config, name)
        check(0.0 <= value <= 1.0, f"{name} should be in [0, 1]", value)


def check_choices(config: Any) -> None:
    """Raises an UnknownNameError if a setting with a few possible values has another one."""
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise UnknownNameError(name, value, get_args(hint))


def typed(name: str, hint: Any, value: Any) -> Any:
    """Returns the value of a setting as the type that it is declared with.

    A whole number may be written as a float, a float as a whole number, and a tuple as a list.

    Args:
        name: Of the setting.
        hint: Its type: of `KINDS`, a `Literal`, a tuple of any length, or a union of these.
        value: What is given.

    Raises:
        UnknownNameError: It is none of the few values that there are.
        ValueError: It is of another type.
    """
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UnknownNameError(name, value, get_args(hint))
        return value
    if get_origin(hint) is tuple and isinstance(value, tuple | list):
        return tuple(typed(f"each of {name}", get_args(hint)[0], item) for item in value)
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if value is None and NoneType in kinds:
        return None
    if isinstance(value, bool):
        if bool in kinds:
            return value
    elif isinstance(value, Real) and not math.isnan(value):
        number = float(value)
        if int in kinds and number.is_integer():
            return int(number)
        if float in kinds:
            return number
    raise ValueError(f"{name} should be {_in_words(hint)}. Received {value!r}.")


def _in_words(hint: Any) -> str:
    if isinstance(hint, UnionType):
        return " or ".join(map(_in_words, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list like [...], each {_in_words(get_args(hint)[0])}"
    return KINDS[hint]


def only(default: Value, **where: Any) -> Value:
    """Declares a setting that has an effect only where other settings have the given values.

    Args:
        default: Its default.
        **where: The other settings, of any group, and their values.
    """
    return field(default=default, metadata={"only": where})


def group_of_setting(config_class: type) -> dict[str, str | None]:
    """Returns the name of every setting -> the name of its group, or None if it is in none."""
    groups: dict[str, str | None] = {}
    for name, hint in get_type_hints(config_class).items():
        if is_dataclass(hint):
            groups |= {field.name: name for field in fields(hint)}
        elif name != "preset":
            groups[name] = None
    return groups


def change(config: Config, settings: Mapping[str, Any]) -> Config:
    """Returns a config with some settings changed, whether they have an effect or not.

    Raises:
        UnknownNameError: There is no such setting.
        ValueError: A value is out of range, or of another type.
    """
    group_of = group_of_setting(type(config))
    changes: dict[str | None, dict[str, Any]] = {}
    for name, value in settings.items():
        if name not in group_of:
            raise UnknownNameError("setting", name, group_of)
        group = group_of[name]
        holder = config if group is None else getattr(config, group)
        hint = get_type_hints(type(holder))[name]
        changes.setdefault(group, {})[name] = typed(name, hint, value)
    own = changes.pop(None, {})
    of_groups = {
        str(group): replace(getattr(config, str(group)), **values)
        for group, values in changes.items()
    }
    return replace(config, **own, **of_groups)  # type: ignore[type-var]  # it is a dataclass


def override(config: Config, settings: Mapping[str, Any], *, unread: Iterable[str] = ()) -> Config:
    """Returns a config with some settings changed, as a user asks for it.

    Args:
        config: The config.
        settings: Names and values.
        unread: Settings that it has, and its method does not read.

    Raises:
        UnknownNameError: There is no such setting.
        ValueError: A value is out of range, or of another type, or would have no effect.
    """
    changed = change(config, settings)
    group_of = group_of_setting(type(config))

    def holder(name: str) -> Any:
        group = group_of[name]
        return changed if group is None else getattr(changed, group)

    for name in settings:
        if name in unread:
            raise ValueError(f"{name} has no effect with this method: leave it out.")
        (its_field,) = (f for f in fields(holder(name)) if f.name == name)
        for other, needed in its_field.metadata.get("only", {}).items():
            value = getattr(holder(other), other)
            if value != needed:
                raise ValueError(
                    f"{name} has no effect with {other}={value!r}: it needs {other}={needed!r}."
                )
    return changed


def from_json(config_class: type[Config], document: Mapping[str, Any]) -> Config:
    """Rebuilds a config from `dataclasses.asdict` that went through JSON.

    A class may name settings of before that no longer mean anything (`retired`): they are left out.

    Raises:
        UnknownNameError: It has a setting that this version does not know.
    """
    values: dict[str, Any] = {}
    hints = get_type_hints(config_class)
    for name, value in document.items():
        if name in getattr(config_class, "retired", ()):
            continue
        if name not in hints:
            raise UnknownNameError("setting", name, hints)
        hint = hints[name]
        if is_dataclass(hint):
            values[name] = from_json(hint, value)  # type: ignore[arg-type]
        else:
            is_tuple = getattr(hint, "__origin__", None) is tuple
            values[name] = tuple(value) if is_tuple else value
    return config_class(**values)


def difference(stored: Mapping[str, Any], given: Mapping[str, Any], where: str = "") -> str:
    """Returns in words where two documents differ, by the names of the values."""
    parts = []
    for name in sorted({*stored, *given}):
        old, new = stored.get(name), given.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            parts.append(difference(old, new, f"{where}{name}."))
        elif old != new:
            parts.append(f"{where}{name} is {old!r}, not {new!r}")
    return ", ".join(part for part in parts if part)
