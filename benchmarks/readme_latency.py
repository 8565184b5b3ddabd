"""The README's tables on time, from what latency.py and fast_presets.py measured."""

import json
from pathlib import Path

from markdown_table import rounded, table

ROOT = Path(__file__).parent.parent


def latency() -> str:
    """Times, of every task and machine; then what faster planners cost in quality."""

    def documents(kind: str) -> list[dict]:
        paths = sorted((ROOT / "results/latency").glob(f"{kind}-*.json"))
        return [json.loads(path.read_text()) for path in paths]

    parts = [
        *map(_latencies, documents("act")),
        *map(_under_load, documents("load")),
        *map(_training, documents("training")),
    ]
    return "\n\n".join([*parts, _faster_planners(documents("fast"))])


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
                *(rounded(of_row[batch]) if batch in of_row else "" for batch in batches),
                rounded(row["floor_milliseconds"]),
                rounded(same["1"] / of_row["1"]) + "×" if same else "",
                rounded(released / of_row["1"]) + "×",
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
        "our networks, and the settings of `reference` or (for all else) `paper`. Compiled: after "
        "a first plan that takes tens of seconds. Floor: arithmetic in float32 (convolutions by "
        "their definition) at the highest rate that the machine reached in the same run, which "
        f"leaves the plain way room for {room:.1f}× with the paper's settings."
        f"{_in_convolutions(paper)} Made by `{about['command']}`."
    )
    return table(header, rows) + "\n\n" + note


def _under_load(document: dict) -> str:
    """The spread of times, alone and beside other processes, on one thread and on more."""
    columns: dict[tuple[int, int], str] = {}
    cells: dict[str, dict[tuple[int, int], str]] = {}
    for row in document["rows"]:
        busy, threads = column = row["busy_processes"], row["threads"]
        beside = f"beside {busy} busy processes" if busy else "alone"
        columns[column] = f"{beside}, {threads} thread" + "s" * (threads > 1)
        name = f"`{row['planner']}`" + ", compiled" * (row["execution"] == "compiled")
        spread = (rounded(row[key]) for key in ("median_ms", "percentile_99_ms", "longest_ms"))
        cells.setdefault(name, {})[column] = " · ".join(spread)
    rows = [[name, *(of_row[column] for column in columns)] for name, of_row in cells.items()]
    about, fewest = document["provenance"], min(row["num_acts"] for row in document["rows"])
    note = (
        f"Wall time of one `act` in ms: median · 99 % · longest of {fewest} or more "
        f"(`{document['agent']}`; {about['hardware']}). Small networks plan for a few states "
        f"on one thread by themselves. Training steps of `quick` in a second: "
        f"{_training_under_load(document['training'])}. Made by `{about['command']}`."
    )
    return table(["planner", *columns.values()], rows) + "\n\n" + note


def _training_under_load(rows: list[dict]) -> str:
    places: dict[int, list[str]] = {}
    for row in rows:
        on_threads = f"{rounded(row['steps_per_second'])} on {row['threads']} thread(s)"
        places.setdefault(row["busy_processes"], []).append(on_threads)
    return "; ".join(
        f"{'beside ' + str(busy) + ' busy processes' if busy else 'alone'} {' and '.join(speeds)}"
        for busy, speeds in places.items()
    )


def _training(document: dict) -> str:
    shares = ", ".join(
        f"{row['ours_samples_per_second'] / row['plain_samples_per_second']:.2f}× with "
        f"{row['networks']}s ({rounded(row['ours_samples_per_second'])} samples/s; the arithmetic "
        f"alone allows {row['most_samples_per_second'] / row['plain_samples_per_second']:.1f}×)"
        for row in document["training"]
    )
    unet = next(row for row in document["training"] if row["networks"] == "U-Net")
    return (
        f"Training on {document['task']}'s dimensions, against the plain way: {shares}."
        f"{_in_convolutions(unet)} Made by `{document['provenance']['command']}`."
    )


def _in_convolutions(row: dict) -> str:
    """What stands in the way of the floor, on a CPU."""
    share = row["convolution_share"]
    if not share:
        return ""
    return (
        f" PyTorch's own convolutions, which both ways call, take {share:.0%} of our time with "
        f"U-Nets: without faster ones, at most {1 / share:.1f} times as fast as this."
    )


def _faster_planners(documents: list[dict]) -> str:
    """The presets, planners by tasks; all other planners are in results/latency."""
    cells: dict[str, dict[str, str]] = {}
    for document in sorted(documents, key=lambda d: -len(d["groups"][0]["rows"])):
        for group in document["groups"]:
            for row in group["rows"]:
                if row["variant"].startswith(("frontier", "fast", "realtime")):
                    half_width = row["return_difference_half_width_95"]
                    cells.setdefault(row["variant"], {})[document["task"]] = (
                        f"{row['milliseconds']:.1f} ms; {row['return_difference']:+.1f} ± "
                        f"{half_width:.1f}; {row['num_over_budget']} of {row['num_episodes']}"
                    )
    tasks = [document["task"] for document in documents]
    num_agents = ", ".join(
        str(sum(len(group["agents"]) for group in document["groups"])) for document in documents
    )
    rows = [[name, *(of_task.get(task, "") for task in tasks)] for name, of_task in cells.items()]
    note = (
        "CPU time per step; return less that of the first line, over the same start states and "
        "five budgets, with its 95 % interval; episodes over budget. Agents per "
        f"task: {num_agents}, small runs. Commands and more planners are in [`results/latency`]"
        "(results/latency)."
    )
    return table(["planner", *(f"`{task}`" for task in tasks)], rows) + "\n\n" + note
