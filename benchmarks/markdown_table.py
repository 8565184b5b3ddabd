"""Markdown tables."""


def table_lines(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return ["| " + " | ".join(line) + " |" for line in escaped]


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(table_lines(header, rows))


def rounded(number: float, digits: int = 3) -> str:
    """The number to so many significant digits: 2714.9 is 2,710."""
    return f"{float(f'{number:.{digits}g}'):,g}"
