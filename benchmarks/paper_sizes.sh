#!/usr/bin/env bash
# The paper's planner with the paper's networks, candidates and denoising steps, next to the small
# ones: one data set, the same start states. Then the same agent, planning in less time. On two CPU
# cores two hours, most of them for `paper`, which sees a hundredth of the paper's training. Run it
# again after an interruption.
#
#   benchmarks/paper_sizes.sh
#   STEPS=20 EPISODES=1 RUNS=runs/toy OUT=runs/toy benchmarks/paper_sizes.sh    # does it run?
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${RUNS:-runs}
out=${OUT:-results/paper_sizes}
episodes=${EPISODES:-4}

mkdir -p "$out"
keep() {  # FOLDER NAME
    cp "$1/results.json" "$out/$2.json"
    cp "$1/episodes.csv" "$out/$2.csv"
}

for preset in paper small frontier; do
    steps=""
    [ "$preset" = paper ] && steps="--set num_steps=${STEPS:-8000}"
    # shellcheck disable=SC2086
    .venv/bin/trebi run safe/ReacherReachable-v0 "$runs/$preset-reacher" --preset "$preset" $steps \
        --episodes "$episodes"
    keep "$runs/$preset-reacher/evaluation" "$preset"
done
for setting in sampling_steps=5 guidance_scale=0 precision=bfloat16; do
    folder="$runs/paper-reacher/$setting"
    .venv/bin/trebi evaluate "$runs/paper-reacher" --episodes "$episodes" --set "$setting" \
        --out "$folder"
    keep "$folder" "paper-$setting"
done
