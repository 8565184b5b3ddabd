"""The tables of benchmarks/latency.py as Markdown."""

from typing import Any

from markdown_table import rounded, table_lines

IN_CONVOLUTIONS = (
    "In convolutions: share of our time inside PyTorch's own, which the plain way calls as well."
)


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
                *(rounded(times[batch]) if batch in times else "" for batch in batches),
                rounded(same[first] / times[first]) + "×" if same else "",
                rounded(reference[first] / times[first]) + "×" if same else "",
                rounded(row["gigaflop"]),
                rounded(row["floor_milliseconds"]),
                rounded(row["weights_megabytes"]),
                f"{guidance:.2g}" if guidance else "",
                f"{row['first_seconds']:.2g}",
                share_of_time(row),
            ]
        )
    header = [
        "planner", *(f"ms, {batch} state{'s' if int(batch) > 1 else ''}" for batch in batches),
        "faster than the plain way, paper's settings¹", "reference's²", "GFLOP", "floor, ms",
        "weights, MB", "kept for a gradient, MB per trajectory", "first plan, s",
        "in convolutions",
    ]  # fmt: skip
    return table_lines(header, rows)


def share_of_time(row: dict[str, Any]) -> str:
    """Empty where there are no convolutions, and on a GPU."""
    return f"{row['convolution_share']:.0%}" if row["convolution_share"] else ""


def training_table(rows: list[dict[str, Any]]) -> list[str]:
    header = ["networks", "plain, samples/s", "ours, samples/s", "faster", "MFLOP per sample",
              "floor: at most samples/s", "that is, faster", "in convolutions"]  # fmt: skip
    return table_lines(
        header,
        [
            [
                row["networks"],
                rounded(row["plain_samples_per_second"], 4),
                rounded(row["ours_samples_per_second"], 4),
                f"{row['ours_samples_per_second'] / row['plain_samples_per_second']:.2f}×",
                rounded(1e3 * row["gigaflop_per_sample"], 4),
                rounded(row["most_samples_per_second"], 4),
                f"{row['most_samples_per_second'] / row['plain_samples_per_second']:.2f}×",
                share_of_time(row),
            ]
            for row in rows
        ],
    )


def as_markdown(document: dict[str, Any]) -> str:
    about = document["provenance"]
    made = (
        f"Made by `{about['command']}` on {about['hardware']}, {about['device']}, "
        f"{about['threads']} thread(s); torch {about['versions']['torch']}. {document['clock']}, "
        f"medians of {document['rounds']} rounds in which everything is timed in turns."
    )
    if "training" in document:
        title = f"# {document['task']}: training"
        note = (
            "Samples that all three networks saw. Floor: their operations, forward and backward, "
            "at the highest rate that the machine reached in the same run. "
        ) + IN_CONVOLUTIONS
        body = training_table(document["training"])
    else:
        title = f"# {document['task']}: time per `act`"
        reached = ", ".join(f"{k} {rounded(value)}" for k, value in document["ceilings"].items())
        body = plan_table(document)
        note = (
            "Random weights; every candidate over budget, unless said otherwise. Empty: would take "
            f"too long. Reached in the same run: {reached}. Floor: operations of one plan "
            "(convolutions by their definition) at the highest rate that was reached, or reading "
            "the weights once. ¹ For `reference`: than the plain way with the reference's "
            "settings. ² Of the released code: two guidance passes a step, computed at every step. "
        ) + IN_CONVOLUTIONS
    failed = [
        f"\n{name} did not run: {error}" for name, error in document.get("failed", {}).items()
    ]
    return "\n".join([title, "", made, "", *body, "", note, *failed]) + "\n"
