"""Options of tasks: what they should be, said in the error where they are not."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt


def check_choice(value: Any, name: str, choices: Iterable[str]) -> None:
    """Accepts one of a few words.

    Raises:
        ValueError: It is another one.
    """
    words = sorted(choices)
    if value not in words:
        raise ValueError(f"{name} should be one of {words}. Received {value!r}.")


def check_number(value: Any, name: str, *, positive: bool = False) -> None:
    """Accepts a finite number.

    Raises:
        TypeError: It is not a number.
        ValueError: It is infinite or NaN; or, if `positive`, not above zero.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} should be a number. Received {value!r}.")
    if not math.isfinite(value) or (positive and value <= 0):
        kind = "positive" if positive else "finite"
        raise ValueError(f"{name} should be a {kind} number. Received {value!r}.")


def check_count(value: Any, name: str, minimum: int = 0) -> None:
    """Accepts a whole number.

    Raises:
        TypeError: It is not a whole number.
        ValueError: It is below the minimum.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} should be a whole number. Received {value!r}.")
    if value < minimum:
        raise ValueError(f"{name} should be {minimum} or more. Received {value!r}.")


def check_vector(value: Any, name: str, size: int, entries: str) -> npt.NDArray[np.float64]:
    """Returns so many finite numbers as an array `(size,)`.

    Args:
        value: To be checked.
        name: Of the option.
        size: How many there should be.
        entries: What they are, for the message: "(x, y, z)".

    Raises:
        ValueError: It is something else.
    """
    message = f"{name} should be {size} finite numbers {entries}. Received {value!r}."
    try:
        vector = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(message) from error
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise ValueError(message)
    return vector
