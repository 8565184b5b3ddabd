"""The pages of what the programs in benchmarks/ timed."""

from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from safe_diffusion_agent.experiments.markdown import Column, cells, made_by, rounded, table
from safe_diffusion_agent.storage import read_json

Line = dict[str, Any]


def latency_page(folder: Path) -> str:
    """Returns the page of a folder with documents of `latency.py`, and remarks on them."""

    def documents(kind: str) -> list[Line]:
        return [read_json(path) for path in sorted(folder.glob(f"{kind}-*.json"))]

    parts = ["# How fast it acts"]
    parts += [part for document in documents("act") for part in _acts(document)]
    parts += [part for document in documents("load") for part in _under_load(document)]
    parts += [_training(document) for document in documents("training")]
    parts += [path.read_text().strip() for path in folder.glob("remarks.md")]
    return "\n\n".join(parts) + "\n"


def _acts(document: Line) -> list[str]:
    lines, about = document["rows"], document["provenance"]
    times = {line["planner"]: line["milliseconds"] for line in lines}
    released = next(iter(times.values()))["1"]

    def faster(line: Line) -> str:
        plain = times.get(line["compared_with"])
        return rounded(plain["1"] / line["milliseconds"]["1"]) + "×" if plain else ""

    def time_of(batch: str, line: Line) -> str:
        return rounded(line["milliseconds"][batch]) if batch in line["milliseconds"] else ""

    columns = [
        Column("planner", lambda line: line["planner"]),
        *(
            Column(f"ms, n = {batch}", partial(time_of, batch))
            for batch in lines[-1]["milliseconds"]
        ),
        Column("floor, ms, n = 1", lambda line: rounded(line["floor_milliseconds"])),
        Column("faster than the plain way", faster),
        Column(
            "than the released settings",
            lambda line: rounded(released / line["milliseconds"]["1"]) + "×",
        ),
        Column("GFLOP, n = 1", lambda line: rounded(line["gigaflop"])),
        Column("first plan, s", lambda line: f"{line['first_seconds']:.2g}"),
    ]
    paper = next(line for line in lines if line["planner"] == "`paper`")
    room = times[paper["compared_with"]]["1"] / paper["floor_milliseconds"]
    note = (
        f"`act` on n states of {document['task']}'s dimensions ({about['threads']} thread(s), "
        f"{about['device']}): {document['clock']}, medians of {document['rounds']} rounds in which "
        "all are timed in turns, random weights, every candidate over budget unless said "
        "otherwise. Plain: the reference code's way with our networks, and the settings of "
        "`reference` or (for all else) `paper`. Compiled: after a first plan that takes tens of "
        "seconds. Floor: arithmetic in float32 (convolutions by their definition) at the highest "
        f"rate that the machine reached in the same run, which leaves the plain way room for "
        f"{room:.1f}× with the paper's settings.{_in_convolutions(paper)} {made_by(about)}"
    )
    return [table(columns, lines), note]


def _under_load(document: Line) -> list[str]:
    """The spread of times, alone and beside other processes, on one thread and on more."""
    places: dict[tuple[int, int], str] = {}
    planners: dict[str, dict[tuple[int, int], str]] = {}
    for line in document["rows"]:
        place = line["busy_processes"], line["threads"]
        places[place] = f"{_beside(place[0])}, {place[1]} thread{'s' if place[1] > 1 else ''}"
        name = f"`{line['planner']}`{', compiled' if line['execution'] == 'compiled' else ''}"
        spread = (rounded(line[key]) for key in ("median_ms", "percentile_99_ms", "longest_ms"))
        planners.setdefault(name, {})[place] = " · ".join(spread)
    columns = cells("planner", *places.values())
    lines = [[name, *(of[place] for place in places)] for name, of in planners.items()]
    speeds = "; ".join(
        f"{_beside(busy)} "
        + " and ".join(
            f"{rounded(line['steps_per_second'])} on {line['threads']} thread(s)" for line in lines
        )
        for busy, lines in groupby(document["training"], lambda line: line["busy_processes"])
    )
    fewest = min(line["num_acts"] for line in document["rows"])
    note = (
        f"Wall time of one `act` in ms: median · 99 % · longest of {fewest} or more "
        f"(`{document['agent']}`). Small networks plan for a few states on one thread by "
        f"themselves. Training steps of `quick` in a second: {speeds}. "
        f"{made_by(document['provenance'])}"
    )
    return [table(columns, lines), note]


def _beside(busy: int) -> str:
    return f"beside {busy} busy processes" if busy else "alone"


def _training(document: Line) -> str:
    shares = ", ".join(
        f"{line['ours_samples_per_second'] / line['plain_samples_per_second']:.2f}× with "
        f"{line['networks']}s ({rounded(line['ours_samples_per_second'])} samples/s; the "
        f"arithmetic alone allows "
        f"{line['most_samples_per_second'] / line['plain_samples_per_second']:.1f}×)"
        for line in document["training"]
    )
    unet = next(line for line in document["training"] if line["networks"] == "U-Net")
    return (
        f"Training on {document['task']}'s dimensions, against the plain way: {shares}."
        f"{_in_convolutions(unet)} {made_by(document['provenance'])}"
    )


def _in_convolutions(line: Line) -> str:
    """What stands in the way of the floor, on a CPU."""
    part = line["convolution_share"]
    if not part:
        return ""
    return (
        f" PyTorch's own convolutions, which both ways call, take {part:.0%} of our time with "
        f"U-Nets: without faster ones, at most {1 / part:.1f} times as fast as this."
    )


def overhead_page(document: Line) -> str:
    """Returns the page of what `env_overhead.py` measured."""
    columns = [
        Column("id", lambda line: f"`{line['task']}`"),
        Column("bare, µs", lambda line: f"{line['microseconds']['bare']:.1f}"),
        Column("added, µs", lambda line: f"{line['added_microseconds']:.1f}"),
        Column(
            "ratio (95 % interval)",
            lambda line: "{:.2f} ({:.2f} to {:.2f})".format(
                line["ratio"], *line["ratio_interval_95"]
            ),
        ),
        Column(
            "ratio to Gymnasium's own",
            lambda line: (
                f"{line['ratio_to_gymnasium']:.2f} (`{line['gymnasium_id']}`)"
                if "gymnasium_id" in line
                else ""
            ),
        ),
    ]
    over = [line["task"] for line in document["tasks"] if not line["at_most_10_percent"]]
    about = document["provenance"]
    note = (
        "Bare is the same physics in `gym.make`'s own wrappers; medians of CPU time per step, both "
        "sides in turns. The last column compares the same step, cost and budget included, with a "
        "step of Gymnasium's environment without them. More than the 10 % that we aim at: "
        f"{', '.join(over) or 'none'}. {made_by(about)} Gymnasium {about['versions']['gymnasium']}."
    )
    title = "# What cost and budget add to a step"
    return "\n\n".join([title, table(columns, document["tasks"]), note]) + "\n"
