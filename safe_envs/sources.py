"""Numbers that may change from episode to episode, such as a budget: where they come from.

A source is a constant, a pair `(low, high)` to draw uniformly from, or a function of a
`numpy.random.Generator`. A list of two numbers is a pair, too: that is what a pair becomes in JSON.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Source = float | Sequence[float] | Callable[[np.random.Generator], float]


def check_amount(
    amount: npt.ArrayLike, name: str, *, signed: bool = False
) -> npt.NDArray[np.float64]:
    """Returns an amount (or several) as float64, or says why it cannot be one.

    Args:
        amount: Zero or more; infinity is allowed and means "none".
        name: What it is, for the message: `"budget"`.
        signed: Whether it may be negative, too.

    Raises:
        TypeError: It is not a number (text, None, True).
        ValueError: It is NaN or negative.
    """
    values = np.asarray(amount)
    if values.dtype.kind not in "iuf":
        raise TypeError(f"A {name} should be a number. Received {amount!r}.")
    if np.isnan(values).any() or (values < (-np.inf if signed else 0)).any():
        allowed = "a number" if signed else "zero or more"
        raise ValueError(
            f"A {name} should be {allowed}, or math.inf for none. Received {amount!r}."
        )
    return values.astype(np.float64)


def draw(source: Any, rng: np.random.Generator, name: str, *, signed: bool = False) -> float:
    """Draws an episode's amount from its source; it may be negative if `signed`.

    Raises:
        TypeError: The source is none of those above.
        ValueError: It gives NaN or a negative number that may not be, or `low` is above `high`.
    """
    if callable(source):
        source = source(rng)
    amount = check_amount(source, name, signed=signed)
    if amount.shape == (2,):
        low, high = amount
        if not low <= high or not np.isfinite(high):
            raise ValueError(
                f"A {name} drawn from (low, high) needs finite numbers with low <= high. "
                f"Received {source!r}."
            )
        return float(rng.uniform(low, high))
    if amount.shape != ():
        raise TypeError(
            f"A {name} should be one number, a pair (low, high) or a function of a generator. "
            f"Received {source!r}."
        )
    return float(amount)


def generator(seed: Any, stream: int) -> np.random.Generator:
    """Returns a generator for an episode's amounts, independent of the environment's own.

    Gymnasium's environments draw from `default_rng(seed)`. A wrapper that did the same would draw
    the very numbers that place the start state.

    Args:
        seed: Seed of a reset: None, an integer, or one per environment.
        stream: One number per kind of amount.
    """
    if seed is not None and not isinstance(seed, int | np.integer):
        seed = [entry for entry in seed if entry is not None] or None
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream,)))
