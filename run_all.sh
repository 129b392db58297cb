#!/usr/bin/env bash
# The whole pipeline, one line a stage; stops at the first failure with that stage's exit code.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: ./run_all.sh [OPTIONS]

From the Kaggle download to a checked submission and its report.  Makes .venv and installs what is needed, then
runs download, preprocess, train, predict, check and report.  Stages whose output is complete do nothing, so after an
interruption run the same command again.

  --rehearsal         everything offline against a mock Kaggle server with an embedded competition;
                      needs no account, no GPU, and no network after the install
  --submit            submit the CSV and wait for its score (costs one of today's submissions);
                      without it the exact command is printed
  --competition SLUG  the competition                    (default: deep-learning-spring-2025-project-1)
  --data DIR          a folder laid out like the download, instead of Kaggle; with --rehearsal, what the
                      mock server serves
  --preset NAME       network and recipe                 (default: paper; with --rehearsal: rehearsal)
  --epochs N          passes over the training images    (default: the preset's)
  --run RUN           the run's name                     (default: made from its options)
  --device NAME       auto, cuda, mps or cpu             (default: auto)
  --setup             only make .venv and install
  -h, --help          this text

Environment:
  PIPELINE_PYTHON     an interpreter to use instead of making .venv, for example one that has torch
                      (Kaggle, Colab): PIPELINE_PYTHON=$(which python3) ./run_all.sh

Examples:
  ./run_all.sh --rehearsal
  ./run_all.sh
  ./run_all.sh --preset paper --epochs 1 --device cpu
  ./run_all.sh --submit
  ./run_all.sh --rehearsal --data ~/cifar --epochs 1

Exit codes: 0 fine, 1 other, 2 usage, 3 an earlier stage's output is missing, 4 bad data, 5 credentials or
rules, 6 network or Kaggle down, 7 daily limit, 8 scored ERROR, 130 interrupted.
TEXT
}

fail() { # CODE MESSAGE
    echo "error: $2" >&2
    exit "$1"
}

# --- options ------------------------------------------------------------------------------------------------

rehearsal=no submit=no setup=no competition= data= preset= epochs= run= device=
while (($#)); do
    case $1 in
        --rehearsal | --submit | --setup) declare "${1#--}=yes" ;;
        -h | --help) usage; exit 0 ;;
        --competition | --data | --preset | --epochs | --run | --device)
            [[ -n ${2:-} ]] || fail 2 "$1 wants a value; see ./run_all.sh --help"
            declare "${1#--}=$2"
            shift ;;
        *) fail 2 "unknown option $1; see ./run_all.sh --help" ;;
    esac
    shift
done
[[ $rehearsal == no || -z $competition ]] || fail 2 "--rehearsal has a competition of its own: leave --competition out"
[[ -z $data || -d $data ]] || fail 2 "--data $data is no folder"
[[ -z $data ]] || data=$(cd "$data" && pwd)
# Relative to the folder that it was named in.
[[ ${PIPELINE_PYTHON:-} != */* || $PIPELINE_PYTHON == /* ]] || PIPELINE_PYTHON=$PWD/$PIPELINE_PYTHON
cd "$(dirname "${BASH_SOURCE[0]}")"

# --- set-up -------------------------------------------------------------------------------------------------

# Sets $python: $PIPELINE_PYTHON, or .venv's.  Installs only when requirements.txt or the interpreter changed.
set_up() {
    local venv=$PWD/.venv/bin/python stamp=.requirements-installed wanted
    python=${PIPELINE_PYTHON:-$venv}
    if [[ $python == "$venv" ]]; then stamp=.venv/$stamp; fi # so that it goes with .venv
    wanted=$(echo "$python" && cat requirements.txt)
    if [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && "$python" -c '' 2>/dev/null; then return; fi

    if [[ -z ${PIPELINE_PYTHON:-} ]] && ! "$python" -m pip --version >/dev/null 2>&1; then
        echo "set-up: making .venv"
        rm -rf .venv
        "$base" -m venv .venv && "$python" -m pip --version >/dev/null ||
            fail 1 "no virtual environment with pip: on Debian and Ubuntu, apt install python3-venv"
    fi
    echo "set-up: installing what is missing of requirements.txt into $python (at first some minutes, and 6 GB)"
    "$python" -m pip install --quiet --disable-pip-version-check -r requirements.txt ||
        fail 6 "the installation failed (see above): check the network and the disk, and run again"
    echo "$wanted" >"$stamp"
}

candidates=(python3.13 python3.12 python3.11 python3 python)
[[ -z ${PIPELINE_PYTHON:-} ]] || candidates=("$PIPELINE_PYTHON")
for base in "${candidates[@]}" none; do
    if "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi
done
[[ $base != none ]] || fail 2 "Python 3.11 or newer is needed and was not found: install it, or set PIPELINE_PYTHON"

# Missing credentials are noticed before anything heavy begins: the standard library suffices to see it.
slug=${competition:-${PIPELINE_COMPETITION:-deep-learning-spring-2025-project-1}}
[[ $slug =~ ^[A-Za-z0-9][A-Za-z0-9-]*$ ]] || fail 2 "--competition wants the last part of its URL, not $slug"
here=no
if [[ -n $data || -d data/raw/$slug || -d /kaggle/input/$slug || -d /kaggle/input/competitions/$slug ]]; then here=yes; fi
if [[ $setup == no && $rehearsal == no && ($submit == yes || $here == no) ]]; then
    "$base" -m pipeline.kaggle_api.credentials
fi

set_up
if [[ $setup == yes ]]; then exit 0; fi

# --- rehearsal: this same script, inside the mock server -------------------------------------------------------

if [[ $rehearsal == yes ]]; then
    PIPELINE_PYTHON=$python exec "$python" -m pipeline.rehearsal ${data:+--folder "$data"} -- ./run_all.sh --submit \
        --preset "${preset:-rehearsal}" ${epochs:+--epochs "$epochs"} ${run:+--run "$run"} ${device:+--device "$device"}
fi

# --- the stages -----------------------------------------------------------------------------------------------

export PIPELINE_SCRIPT=run_all.sh # so that no stage tells what comes next

# A stage runs in the background, so that SIGTERM to this script reaches it at once: it saves, and ends with
# 130.  Ctrl-C reaches it from the terminal.
child= interrupted=no signalled=no
trap 'interrupted=yes signalled=yes' INT
trap 'interrupted=yes signalled=yes; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true' TERM

stage() { # NAME OPTIONS...
    echo
    echo "== $1"
    local status=0 again
    "$python" -m "pipeline.$1" "${@:2}" &
    child=$!
    wait "$child" || status=$?
    while [[ $signalled == yes ]]; do # a signal ended the wait, not the stage
        signalled=no again=0
        wait "$child" 2>/dev/null || again=$?
        [[ $again == 127 ]] || status=$again # 127: it was waited for to its end before
    done
    child=
    ((status == 0)) || exit "$status"
    [[ $interrupted == no ]] || exit 130
}

# The options are checked before anything is spent on them.
training=(--competition "$slug" --preset "${preset:-paper}" ${epochs:+--epochs "$epochs"} ${run:+--run "$run"}
    ${device:+--device "$device"})
"$python" -m pipeline.train "${training[@]}" --dry-run
stage download --competition "$slug" ${data:+--from "$data"}
stage preprocess --competition "$slug"
stage train "${training[@]}"
stage predict ${run:+--run "$run"} ${device:+--device "$device"}
if [[ $submit == yes ]]; then stage submit --competition "$slug"; fi
stage check --competition "$slug"
stage report ${run:+--run "$run"}
