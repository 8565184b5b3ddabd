"""Markdown tables, and reports that have some."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def table_lines(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return ["| " + " | ".join(line) + " |" for line in escaped]


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(table_lines(header, rows))


def rounded(number: float, digits: int = 3) -> str:
    """The number to so many significant digits: 2714.9 is 2,710."""
    return f"{float(f'{number:.{digits}g}'):,g}"


def write_report(
    path: Path, document: dict[str, Any], as_markdown: Callable[[dict[str, Any]], str]
) -> None:
    """Writes what was measured beside its tables, PATH.json and PATH.md."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
    path.with_suffix(".md").write_text(as_markdown(document))
