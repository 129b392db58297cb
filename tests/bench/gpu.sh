#!/usr/bin/env bash
# All measurements that want a GPU: prints to the terminal and into $OUT.
#
#   tests/bench/gpu.sh PART DATA       PART: speed, paper, fast, strong, best, or all; DATA: a folder laid out like the download
#
# Needs only what train and predict import.  A part ends after 580 seconds, with 124 if it is not finished: the same
# call goes on with it.  Runs and figures are kept in $OUT (default: data/bench).
set -euo pipefail
usage() { sed -n '2,7p' "$0" >&2; exit 2; }
(($# == 2)) || usage
[[ $1 =~ ^(speed|paper|fast|strong|best|all)$ && -d $2 ]] || usage
out=${OUT:-$(dirname "${BASH_SOURCE[0]}")/../../data/bench}
mkdir -p "$out"
out=$(cd "$out" && pwd) part=$1 data=$(cd "$2" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PIPELINE_PYTHON:-python3} slug=bench
export PIPELINE_PROCESSED=$out/processed
"$python" -m pipeline.download --competition $slug --from "$data" --raw "$out/raw"
"$python" -m pipeline.preprocess --competition $slug --raw "$out/raw" --processed "$PIPELINE_PROCESSED"

limit=580
[[ $part != all ]] || limit=864000
measure() { # NAME COMMAND...: unless that is done, and for as long as the time allows
    [[ ! -e $out/$1.done ]] || return 0
    ((SECONDS < limit)) || exit 124
    echo "== $1"
    timeout $((limit - SECONDS)) "${@:2}" 2>&1 | tee -a "$out/$1.txt"
    touch "$out/$1.done"
}
trained() { # PRESET SEED
    measure "$1-$2" "$python" -m pipeline.train --competition $slug --processed "$PIPELINE_PROCESSED" \
        --models "$out/models" --preset "$1" --seed "$2"
}

if [[ $part == speed || $part == all ]]; then
    measure training "$python" tests/bench/training.py --steps 400 --compile
    measure predicting "$python" tests/bench/predicting.py --rounds 9
    measure inputs "$python" tests/bench/inputs.py
    for processes in 1 "$("$python" -c 'import torch; print(torch.cuda.device_count())')"; do
        measure "scaling-$processes" "$python" -m torch.distributed.run --standalone --nproc_per_node="$processes" -m -- pipeline.train \
            --competition $slug --processed "$PIPELINE_PROCESSED" --models "$out/models" --preset best --epochs 1 \
            --run "on-$processes"
    done
fi
if [[ $part == paper || $part == all ]]; then
    for seed in 0 1 2; do trained paper $seed; done
fi
if [[ $part == fast || $part == all ]]; then
    measure time-to-94 "$python" tests/bench/time_to_accuracy.py --competition $slug --models "$out/models" --target 94
fi
if [[ $part == strong || $part == all ]]; then
    measure time-to-95 "$python" tests/bench/time_to_accuracy.py --competition $slug --models "$out/models" \
        --preset strong --seeds 0 1 2 --target 95
fi
if [[ $part == best || $part == all ]]; then
    for seed in 0 1 2; do trained best $seed; done
    measure time-to-96 "$python" tests/bench/time_to_accuracy.py --competition $slug --models "$out/models" \
        --preset best --seeds 0 1 2 --target 96
fi
