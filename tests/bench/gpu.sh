#!/usr/bin/env bash
# What wants a GPU, in one call of at most 540 seconds: a smoke test, `fast`, `paper`, `best`, then speeds.
#
#   tests/bench/gpu.sh DATA       DATA: a folder laid out like the download
#
# Needs no network, and only what train and predict import.  Prints each part's figures when it is done, into data/bench/
# PART.txt, too.  What does not fit ends the call with 124: the same call goes on with it.  Ends with 1 if a part failed;
# to try that again, delete its PART.failed.
#   LIMIT=SECONDS     instead of 540
#   TARGET=PER_CENT   what `fast` should reach with TTA (default 94; 90.7 on CIFAR-10 (JPEG))
set -euo pipefail
[[ $# == 1 && -d $1 ]] || { sed -n '2,10p' "$0" >&2; exit 2; }
data=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p data/bench
out=$PWD/data/bench
python=${PIPELINE_PYTHON:-python3}
export PIPELINE_PROCESSED=$out/processed

measure() { # NAME COMMAND...: unless that is done, and for as long as the time allows; a failure stops no other part
    [[ ! -e $out/$1.done && ! -e $out/$1.failed ]] || return 0
    local left=$((${LIMIT:-540} - SECONDS)) code=0
    ((left > 0)) || exit 124
    echo "== $1" | tee -a "$out/$1.txt"
    # Only the command itself stops: a compiler that stops first would look like a broken one.
    timeout --foreground -k 20 "$left" "${@:2}" 2>&1 | tee -a "$out/$1.txt" || code=$?
    case $code in
        0) touch "$out/$1.done" ;;
        124 | 137) exit 124 ;;
        *) echo "$1 failed ($code); going on" | tee "$out/$1.failed" >&2 ;;
    esac
}
trained() { # NAME OPTIONS...: runs stop with a checkpoint
    measure "$1" "$python" tests/bench/time_to_accuracy.py --competition bench --models "$out/models" --device cuda "${@:2}"
}

measure smoke "$python" tests/bench/smoke.py
"$python" -m pipeline.download --competition bench --from "$data" --raw "$out/raw"
"$python" -m pipeline.preprocess --competition bench --raw "$out/raw" --processed "$PIPELINE_PROCESSED"
trained fast --preset fast --seeds 0 1 2 --target "${TARGET:-94}"
trained paper --preset paper --seeds 0
trained best --preset best --seeds 0 --target 96
measure training "$python" tests/bench/training.py --device cuda --steps 400 --compile
measure predicting "$python" tests/bench/predicting.py --device cuda --rounds 9
measure inputs "$python" tests/bench/inputs.py
trained strong --preset strong --seeds 0 1 2 --target 95
trained seeds --preset paper best --seeds 0 1 2 --target 96
for processes in 1 "$("$python" -c 'import torch; print(torch.cuda.device_count())')"; do
    measure "scaling-$processes" "$python" -m torch.distributed.run --standalone --nproc_per_node="$processes" -m -- \
        pipeline.train --competition bench --processed "$PIPELINE_PROCESSED" --models "$out/models" --preset best --epochs 1 \
        --device cuda --run "on-$processes"
done
[[ -z $(find "$out" -name "*.failed") ]]
