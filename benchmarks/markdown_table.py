"""Markdown tables."""


def table_lines(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return ["| " + " | ".join(line) + " |" for line in escaped]


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(table_lines(header, rows))
