"""The README's tables on time, from what latency.py and fast_presets.py measured."""

import json
from pathlib import Path

from markdown_table import table

ROOT = Path(__file__).parent.parent


def latency() -> str:
    """Times, of every task and machine; then what faster planners cost in quality."""
    show = {"act": _latencies, "training": _training, "fast": _faster_planners}
    parts = []
    for kind, function in show.items():
        for path in sorted((ROOT / "results/latency").glob(f"{kind}-*.json")):
            parts.append(function(json.loads(path.read_text())))
    return "\n\n".join(parts)


def _latencies(document: dict) -> str:
    about = document["provenance"]
    times = {row["planner"]: row["milliseconds"] for row in document["rows"]}
    released = next(iter(times.values()))["1"]
    batches = list(document["rows"][-1]["milliseconds"])
    rows = []
    for row in document["rows"]:
        of_row, same = row["milliseconds"], times.get(row["compared_with"])
        rows.append(
            [
                row["planner"],
                *(f"{of_row[batch]:.3g}" if batch in of_row else "" for batch in batches),
                f"{row['floor_milliseconds']:.3g}",
                f"{same['1'] / of_row['1']:.3g}×" if same else "",
                f"{released / of_row['1']:.3g}×",
            ]
        )
    header = ["planner", *(f"ms, n = {batch}" for batch in batches), "floor, ms, n = 1",
              "faster than the plain way", "than the released settings"]  # fmt: skip
    paper = next(row for row in document["rows"] if row["planner"] == "`paper`")
    room = times[paper["compared_with"]]["1"] / paper["floor_milliseconds"]
    note = (
        f"`act` on n states of {document['task']}'s dimensions ({about['hardware']}, "
        f"{about['threads']} thread(s), {about['device']}; torch {about['versions']['torch']}): "
        f"{document['clock']}, medians of {document['rounds']} rounds in which all are timed in "
        "turns, random weights, "
        "every candidate over budget unless said otherwise. Plain: the reference code's way with "
        "our networks, and the settings of `reference` or (for all else) `paper`. Floor: "
        "arithmetic in float32 at the highest rate that the machine reached in the same run, which "
        f"leaves the plain way room for {room:.1f}× with the paper's settings. Made by "
        f"`{about['command']}`."
    )
    return table(header, rows) + "\n\n" + note


def _training(document: dict) -> str:
    shares = ", ".join(
        f"{row['ours_samples_per_second'] / row['plain_samples_per_second']:.2f}× with "
        f"{row['networks']}s ({row['ours_samples_per_second']:.3g} samples/s; the arithmetic alone "
        f"allows {row['most_samples_per_second'] / row['plain_samples_per_second']:.1f}×)"
        for row in document["training"]
    )
    made = f"({document['provenance']['command']})"
    return f"Training on {document['task']}'s dimensions, against the plain way: {shares} {made}."


def _faster_planners(document: dict) -> str:
    header = ["planner", "ms per step", "return, difference", "episodes over budget (95 %)",
              "largest cost / budget"]  # fmt: skip
    parts = []
    for group in document["groups"]:
        rows = []
        for row in group["rows"]:
            low, high = row["wilson_95"]
            half_width = row["return_difference_half_width_95"]
            rows.append(
                [
                    row["variant"],
                    f"{row['milliseconds']:.1f}",
                    f"{row['return_difference']:+.1f} ± {half_width:.1f}",
                    f"{row['num_over_budget']} of {row['num_episodes']} ({low:.1%} to {high:.1%})",
                    f"{row['max_normalized_cost']:.2f}",
                ]
            )
        parts.append(table(header, rows))
    note = (
        f"{document['task']}: differences to the first line over the same start states and five "
        f"budgets. Made by `{document['provenance']['command']}`."
    )
    return "\n\n".join([*parts, note])
