"""The errors this package raises beyond Python's own; all are `ValueError`s.

ValueError
├── DatasetError       a dataset that is missing, broken, or has no costs
├── CheckpointError    a file that is damaged, foreign, or of another version
└── UnknownNameError   an unknown preset, setting, method or agent; names the nearest one
"""

import difflib
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PACKAGE = str(Path(__file__).parent) + os.sep


class DatasetError(ValueError):
    """A dataset that is missing, broken, or has no costs."""


class CheckpointError(ValueError):
    """A checkpoint that is damaged, foreign, or of another version."""


class UnknownNameError(ValueError):
    """A name that is not in a table.

    Args:
        kind: What the name should be ("preset", "setting", ...).
        name: The name that was given.
        known: The names there are.
    """

    def __init__(self, kind: str, name: Any, known: Iterable[str]):
        names = sorted(known)
        nearest = difflib.get_close_matches(str(name), names, n=1, cutoff=0.0)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        super().__init__(f"There is no {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")


def warn(message: str) -> None:
    """Warns; the warning points to the line outside of this package that led here."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
