#!/usr/bin/env bash
# The study of docs/comparison.md: three to four hours on two cores. Started again it goes on where it
# was interrupted. Studies may be named: experiments/run.sh cifar10_quick full/cifar10_quick
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${TORREFY_BIN:-.venv/bin}
studies=("$@")
if [[ $# == 0 ]]; then
    studies=(cifar{10,100}_{quick,deepspark} cifar10_quick_{per_worker,momentum})
fi

for study in "${studies[@]}"; do
    name=${study##*/}
    set=${name%%_*}
    [[ -d data/$set ]] || "$bin/torrefy" data "$set" --out "data/$set"
    threads=()
    if [[ $name == *_per_worker ]]; then
        threads=(env OMP_NUM_THREADS=1) # the single run has one core, as a worker has
    fi
    out=runs/study/$study
    "${threads[@]}" "$bin/torrefy" compare --study "experiments/$study.toml" --data "data/$set" --out "$out"
    cp "$out/results.jsonl" "experiments/results/${study//\//_}.jsonl"
done
"$bin/python" -m experiments.figures
