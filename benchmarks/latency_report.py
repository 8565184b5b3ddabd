"""The tables of benchmarks/latency.py as Markdown."""

from typing import Any


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def plan_table(plan: dict[str, Any]) -> list[str]:
    """Milliseconds per batch size, times faster than the plain way, and the floor."""
    plain = {row["planner"]: row["milliseconds"] for row in plan["rows"]}
    reference = next(iter(plain.values()))
    batches = list(plan["rows"][-1]["milliseconds"])
    rows = []
    for row in plan["rows"]:
        times = row["milliseconds"]
        first = batches[0]
        same = plain.get(row["compared_with"])
        guidance = row["guidance_megabytes_per_trajectory"]
        rows.append(
            [
                row["planner"],
                *(f"{times[batch]:.3g}" if batch in times else "" for batch in batches),
                f"{same[first] / times[first]:.3g}×" if same else "",
                f"{reference[first] / times[first]:.3g}×" if same else "",
                f"{row['gigaflop']:.3g}",
                f"{row['floor_milliseconds']:.3g}",
                f"{row['weights_megabytes']:.3g}",
                f"{guidance:.2g}" if guidance else "",
            ]
        )
    header = [
        "planner", *(f"ms, {batch} state{'s' if int(batch) > 1 else ''}" for batch in batches),
        "faster than the plain way, paper's settings¹", "reference's²", "GFLOP", "floor, ms",
        "weights, MB", "kept for a gradient, MB per trajectory",
    ]  # fmt: skip
    return table(header, rows)


def training_table(rows: list[dict[str, Any]]) -> list[str]:
    header = ["networks", "plain, samples/s", "ours, samples/s", "faster"]
    return table(
        header,
        [
            [
                row["networks"],
                f"{row['plain_samples_per_second']:.4g}",
                f"{row['ours_samples_per_second']:.4g}",
                f"{row['ours_samples_per_second'] / row['plain_samples_per_second']:.2f}×",
            ]
            for row in rows
        ],
    )


def as_markdown(document: dict[str, Any]) -> str:
    about = document["provenance"]
    lines = [
        f"# {document['task']}: time per `act`, and samples per second",
        "",
        f"Made by `{about['command']}` on {about['hardware']}, {about['device']}, "
        f"{about['threads']} threads; torch {about['versions']['torch']}. Medians of "
        f"{document['rounds']} rounds in which everything is timed in turns; random weights; every "
        "candidate over budget, unless said otherwise. Empty: would take too long.",
    ]
    reached = ", ".join(f"{name} {value:.3g}" for name, value in document["ceilings"].items())
    lines += [
        "", *plan_table(document), "", f"Reached in the same run: {reached}.", "",
        "¹ For `reference`: than the plain way with the reference's settings. ² Of the released "
        "code: two guidance passes a step, computed at every step. Floor: operations of one plan "
        "at the highest rate that was reached, or reading the weights once.",
        "", "## Training", "", *training_table(document["training"]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
