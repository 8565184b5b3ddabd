#!/usr/bin/env bash
# All work that wants a GPU, most wanted first. Run it again after an interruption: what is done is
# kept, and a training continues. Results go to results/gpu.
#
#   benchmarks/gpu.sh                      # on a GPU
#   DEVICE=cpu LATENCY="--small --limit 1" STEPS=20 EPISODES=1 COLLECT=400 \
#       SETTINGS="--set base_width=16 --set num_candidates=1" benchmarks/gpu.sh
#   PYTHON=python3 benchmarks/gpu.sh       # with the packages of that Python
#
# STEPS: optimizer steps of the U-Net presets (the paper: 1000000). They are trained and planned with
# as CUDA graphs, unless a test of those fails.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${DEVICE:-cuda}
out=${RUNS:-runs/gpu}
python=${PYTHON:-.venv/bin/python}

recorded=""
"$python" -m pytest -q -m cuda -k compiled tests || echo "compiling fails; latency.py says where"
if "$python" -m pytest -q -m cuda -k "not compiled" tests && [ "$device" != cpu ]; then
    recorded="--set execution=recorded --set recorded_training=true"
fi

# shellcheck disable=SC2086
"$python" benchmarks/latency.py --device "$device" --out results/gpu ${LATENCY:-}

# The other tests choose a GPU, too, where there is one.
"$python" -m pytest -q -m "not cuda and not slow" --numprocesses auto --maxprocesses 8 --dist worksteal \
    tests/safe_diffusion_agent --device "$device" || echo "tests fail on $device"

for preset in paper reference; do
    # shellcheck disable=SC2086
    "$python" -m safe_diffusion_agent run safe/Pendulum-v0 "$out/$preset" --preset "$preset" \
        --steps "${COLLECT:-20000}" --dataset-id safe-envs/pendulum/sac-replay-gpu-v0 \
        --device "$device" --set num_steps="${STEPS:-20000}" --episodes "${EPISODES:-10}" \
        $recorded ${SETTINGS:-}
    mkdir -p "results/gpu/$preset"
    cp "$out/$preset/evaluation/"* "$out/$preset/losses.csv" "results/gpu/$preset/"
done
