#!/usr/bin/env bash
# The paper's planner with the paper's networks, candidates and denoising steps, next to the small
# ones: one data set, the same start states. On two CPU cores two hours, most of them for `paper`,
# which sees a hundredth of the paper's training. Run it again after an interruption.
#
#   benchmarks/paper_sizes.sh
#   STEPS=20 EPISODES=1 RUNS=/tmp/runs OUT=/tmp/out benchmarks/paper_sizes.sh    # does it run?
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${RUNS:-runs}
out=${OUT:-results/paper_sizes}

mkdir -p "$out"
for preset in paper small frontier; do
    steps=""
    [ "$preset" = paper ] && steps="--set num_steps=${STEPS:-8000}"
    # shellcheck disable=SC2086
    .venv/bin/trebi run safe/ReacherReachable-v0 "$runs/$preset-reacher" --preset "$preset" $steps \
        --episodes "${EPISODES:-4}"
    cp "$runs/$preset-reacher/evaluation/results.json" "$out/$preset.json"
    cp "$runs/$preset-reacher/evaluation/episodes.csv" "$out/$preset.csv"
done
