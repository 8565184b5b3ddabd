"""Markdown: the one writer of tables, and the phrases that pages share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from safe_diffusion_agent.evaluation.statistics import wilson_interval


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: Its header.
        value: Maps an item, which is one line of the table, to the text of the cell.
    """

    name: str
    value: Callable[[Any], str]


def cells(*names: str) -> list[Column]:
    """Returns the columns of items that are sequences of texts, one per name."""
    return [Column(name, itemgetter(index)) for index, name in enumerate(names)]


def table(columns: Sequence[Column], items: Iterable[Any]) -> str:
    """Returns a table with one line per item."""
    lines = [[column.name for column in columns], ["---"] * len(columns)]
    lines += [[column.value(item) for column in columns] for item in items]
    escaped = [[cell.replace("|", r"\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped)


def share(num: int, total: int) -> str:
    """Returns `"n of m (low to high)"`, with the 95 % Wilson interval of the share.

    Raises:
        ValueError: There are no trials, or more hits than trials.
    """
    low, high = wilson_interval(num, total)
    return f"{num:,} of {total:,} ({low:.1%} to {high:.1%})"


def rounded(number: float, digits: int = 3) -> str:
    """Returns a number with so many significant digits: 2714.9 is 2,710."""
    return f"{float(f'{number:.{digits}g}'):,g}"


def made_by(about: Mapping[str, Any], since: str = "") -> str:
    """Returns a sentence on what made some results, and where.

    Args:
        about: What `provenance` said.
        since: The command that has taken the place of the program, if one has.
    """
    command, commit = about["command"], about["commit"] or "cec653d or earlier"
    if command.startswith("trebi "):
        program = f"`{command}`"
    else:
        now = f" (commit {commit}; it is now `{since}`)" if since else ""
        program = f"`python benchmarks/{command}`{now}"
    return f"Made by {program} on {about['hardware']}; torch {about['versions']['torch']}."
