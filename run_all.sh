#!/usr/bin/env bash
# The whole pipeline, one line a stage; stops at the first failure with that stage's exit code.
# Any shell reads the lines up to "exec" (`sh run_all.sh`), the first also with Windows' line ends: hence each #.
case ${BASH_SOURCE:-$0} in "$0" | */"$0") ;; *) echo "error: don't source it: bash run_all.sh" >&2; return 2 ;; esac #
line_end=
case $line_end in ?) printf '%s\n' "error: $0 has Windows' line ends: perl -pi -e 's/\\r//' '$0'" >&2; exit 2 ;; esac #
export PIPELINE_DEPTH="x${PIPELINE_DEPTH:-}" # at most xxxx: a rehearsal's inner script, started twice as the outer one
case $PIPELINE_DEPTH in xxxxx*) echo "error: $0 starts itself: what are PIPELINE_PYTHON and bash?" >&2; exit 2 ;; esac
case ${BASH_VERSION:+$-} in
    *p*) ;; # bash -p leaves out what the user's shell exports to it: CDPATH, functions, BASH_ENV
    *) exec bash -p -- "$0" "$@" ;;
esac
set -euo pipefail
# What keeps Python from starting or from finding the pipeline, and pip from its place; pipeline/__init__.py has others.
for name in ${!PYTHON@}; do
    case $name in PYTHONPATH | PYTHONUSERBASE | PYTHONNOUSERSITE | PYTHONUNBUFFERED) ;; *) unset "$name" ;; esac
done
unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_DRY_RUN PIP_NO_DEPS POSIXLY_CORRECT

usage() {
    cat <<'TEXT'
Usage: ./run_all.sh [OPTIONS]

Install into .venv, then download, preprocess, train, predict, check and report.  Complete stages are skipped: after
an interruption run the same command again.

  --rehearsal         Offline dry run with an embedded competition and a mock Kaggle server; needs no account
                      and no GPU.
  --submit            Submit the CSV and wait for its score; costs one of today's submissions.
  --competition SLUG  Last part of the competition's URL.  [default: deep-learning-spring-2025-project-1]
  --data PATH         Use a folder laid out like the download, or the downloaded archive, instead of Kaggle.
  --preset NAME       Model and recipe: fast (6 minutes on two CPU cores with AMX), strong (an hour), paper (4 hours),
                      best (for a GPU, never run) or rehearsal.  [default: paper, in a rehearsal: rehearsal]
  --setup             Only make .venv and install.
  -h, --help          Show this message and exit.

--run, --device, --raw, --processed, --models, --submissions, --tta, --adapt, --ids-key, --timeout, --verbose,
--force, --again and --debug reach every stage that has them.  All other options go to train: ./run_all.sh --epochs 1 --seeds 0 1 2
To use your own interpreter instead of .venv: PIPELINE_PYTHON=$(which python3) ./run_all.sh

Exit codes: 0 success, 1 other error, 2 usage, 3 an earlier stage's output is missing, 4 bad data, 5 credentials or rules,
6 network or Kaggle down, 7 daily limit, 8 Kaggle could not score it, 130 interrupted.
TEXT
}

fail() { # CODE MESSAGE
    echo "error: $2" >&2
    exit "$1"
}

# --- options ------------------------------------------------------------------------------------------------

# A path is relative to the folder in which it is named.
from=$PWD/
[[ ${PIPELINE_PYTHON:-} != */* || $PIPELINE_PYTHON == /* ]] || PIPELINE_PYTHON=$from$PIPELINE_PYTHON
if [[ ${BASH_SOURCE[0]} == */* ]]; then cd -- "${BASH_SOURCE[0]%/*}/"; fi # bash looks for it in PATH, too
if [[ $PWD/ == "$from" ]]; then from=; fi

rehearsal=no submit=no setup=no competition= data= preset= raw=data/raw
# What a stage takes of the options below; --debug, all; any other option is train's, which says what is wrong with it.
of_download="--raw --timeout --force"
of_preprocess="--raw --processed --ids-key --force"
of_train="--processed --models --run --device --pseudo-labels --force"
of_predict="--processed --models --submissions --run --device --tta --adapt --verbose --force"
of_submit="--processed --models --submissions --timeout --again"
of_check="--processed --models --submissions --timeout --verbose"
of_report="--processed --models --submissions --run --force"
of_rehearsal="$of_download $of_preprocess $of_train $of_predict --again"
given=() training=() # pairs, an option and its value; words
while (($#)); do
    if [[ $1 == --*=* ]]; then set -- "${1%%=*}" "${1#*=}" "${@:2}"; fi
    case $1 in
        --rehearsal | --submit | --setup) declare "${1#--}=yes" ;;
        -h | --help) usage; exit 0 ;;
        --dry-run) fail 2 "--dry-run is an option of train only: python -m pipeline.train --dry-run, with the same options" ;;
        --force | --debug | --verbose | --again) given+=("$1" "") ;;
        --competition | --data | --preset | --raw | --processed | --models | --submissions | --run | --device | \
            --pseudo-labels | --tta | --adapt | --ids-key | --timeout)
            value=${2:-}
            [[ -n $value && $value != --* ]] || fail 2 "$1 wants a value; see ./run_all.sh --help"
            case $1 in --data | --raw | --processed | --models | --submissions | --pseudo-labels)
                [[ $value == /* ]] || value=$from$value ;;
            esac
            case $1=$value in
                --tta=none | --tta=flip | --tta=flip-shift) ;;
                --adapt=auto | --adapt=none | --adapt=bn | --adapt=revert | --adapt=prior) ;;
                --tta=* | --adapt=*) fail 2 "$1 has no $value; see python -m pipeline.predict --help" ;;
            esac
            case $1 in --competition | --data | --preset | --raw) declare "${1#--}=$value" ;; esac
            given+=("$1" "$value")
            shift ;;
        *) training+=("$1") ;;
    esac
    shift
done
[[ $rehearsal == no || -z $competition ]] || fail 2 "--rehearsal has a competition of its own: leave --competition out"
[[ -z $data || -d $data || ($rehearsal == no && -f $data) ]] ||
    fail 2 "--data $data is not a folder$([[ $rehearsal == yes ]] || echo " or archive")"
[[ $submit$rehearsal != nono || " ${given[*]-} " != *" --again "* ]] || fail 2 "--again goes with --submit"
# These runs are named RUN-sN; predict and report take what was trained last.
if [[ " ${training[*]-} " == *" --seeds "* ]]; then of_predict=${of_predict/--run/} of_report=${of_report/--run/}; fi
slug=${competition:-${PIPELINE_COMPETITION:-deep-learning-spring-2025-project-1}}
[[ $slug =~ ^[A-Za-z0-9][A-Za-z0-9-]*$ ]] || fail 2 "--competition wants the last part of its URL, not $slug"
if [[ $rehearsal == yes ]]; then preset=${preset:-rehearsal}; fi
preset=${preset:-paper}
training=(--preset "$preset" ${training[@]+"${training[@]}"})

command_of() { # STAGE OPTIONS...: sets $command, with what was given for that stage
    local takes=of_$1 k
    command=("$python" -m "pipeline.$1" "${@:2}")
    for ((k = 0; k < ${#given[@]}; k += 2)); do
        if [[ " ${!takes} --debug " == *" ${given[k]} "* ]]; then
            command+=("${given[k]}" ${given[k + 1]:+"${given[k + 1]}"})
        fi
    done
}

# --- set-up -------------------------------------------------------------------------------------------------

recent='import sys; sys.exit(sys.version_info < (3, 11))'
python=${PIPELINE_PYTHON:-$PWD/.venv/bin/python} stamp=.requirements-installed
if [[ $python == "$PWD/.venv/bin/python" ]]; then
    stamp=.venv/$stamp # so that it goes with .venv
    unset PYTHONPATH   # pip would leave out of .venv what is there
fi
wanted=$(echo "$python" && cat requirements.txt)
complete=no
if [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && "$python" -c '' 2>/dev/null; then complete=yes; fi

# Makes what is missing; where that fails, what venv or pip said names the cause.
set_up() {
    local said
    if [[ -z ${PIPELINE_PYTHON:-} ]]; then
        [[ -e $python ]] || rm -rf .venv # there is none, or its interpreter has gone
        [[ ! -d .venv ]] || "$python" -c '' 2>/dev/null || # on a cluster its libraries may be another node's
            fail 2 "the Python in .venv does not start here: load its module, or move .venv away (mv .venv old-venv)"
        if [[ ! -d .venv || (! -L .venv && -f $stamp && $(head -n 1 "$stamp") != "$python") ]]; then # none, or moved
            echo "set-up: making .venv" >&2
            said=$("$base" -m venv .venv 2>&1) || refuse "$said"
        fi
    fi
    echo "set-up: installing requirements.txt into $python (first time only: several minutes, 6 GB)" >&2
    # uv makes environments without pip.
    "$python" -m pip --version >/dev/null 2>&1 || said=$("$python" -m ensurepip 2>&1) || refuse "$said"
    if "$python" -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)'; then export PIP_USER=no; fi
    said=$("$python" -m pip install --disable-pip-version-check -r requirements.txt 2>&1 |
        tee >(grep --line-buffered -E '^ *Downloading .*[MG]B\)|^Installing' | cut -c 1-100 >&2)) || refuse "$said"
    echo "$wanted" >"$stamp"
}

refuse() {
    echo "$1" >&2
    case $1 in
        *ensurepip* | *"No module named pip"* | *externally-managed* | *"virtualenv (required)"*)
            [[ -n ${PIPELINE_PYTHON:-} ]] || fail 1 "no pip in .venv: on Debian and Ubuntu, apt install python3-venv"
            fail 2 "pip cannot install into $python: leave PIPELINE_PYTHON out, and .venv is made" ;;
        *"No space left"* | *"quota exceeded"*) fail 1 "the disk is full: free 6 GB, and run again" ;;
        *onnection* | *Retrying* | *SSL* | *"timed out"*)
            fail 6 "the packages cannot be downloaded (see above): check the network, or PIP_CERT, and run again" ;;
        *) fail 1 "the installation failed: see above" ;;
    esac
}

candidates=("$python" python3.13 python3.12 python3.11 python3 python)
if [[ -n ${PIPELINE_PYTHON:-} ]]; then candidates=("$PIPELINE_PYTHON"); fi
for base in "${candidates[@]}" none; do
    if "$base" -c "$recent" 2>/dev/null; then break; fi
done
[[ $base != none ]] ||
    fail 2 "Python 3.11 or newer is needed, and ${PIPELINE_PYTHON:-python3} is not: install it, or set PIPELINE_PYTHON"
[[ $base == "$python" ]] || ! "$python" -c '' 2>/dev/null ||
    fail 2 ".venv has a Python older than 3.11: move it away (mv .venv old-venv), and run again"

# Wrong options are told before anything is spent on them; where no packages are, a wrong preset.
outermost=${PIPELINE_SCRIPT:+no}
export PIPELINE_SCRIPT=run_all.sh # so that no stage tells what comes next, and --dry-run asks for no data
command_of train --dry-run --competition "$slug" "${training[@]}"
check=("${command[@]}")
said=$("$base" -c 'import sys; from pipeline.train import main; sys.exit(main())' "${check[@]:3}" 2>&1) ||
    (($? != 2)) || { echo "$said" >&2; exit 2; }
presets=$("$base" -c 'from pipeline.recipes import PRESETS; print(*PRESETS)')
[[ " $presets " == *" $preset "* ]] || fail 2 "--preset $preset is none of: $presets"
if [[ $rehearsal == yes ]]; then slug="offline rehearsal"; fi
[[ $setup$outermost != no ]] || echo "run_all: $slug, preset $preset" >&2

# Missing credentials, too: the standard library suffices to see it.
here=no
if [[ -n $data || -d $raw/$slug || -d /kaggle/input/$slug || -d /kaggle/input/competitions/$slug ]]; then here=yes; fi
if [[ $setup == no && $rehearsal == no && ($submit == yes || $here == no) ]]; then
    "$base" -m pipeline.kaggle_api.credentials
fi
if [[ $complete == no ]]; then set_up; fi
if [[ $setup == yes ]]; then exit 0; fi
if [[ $complete == no ]]; then "${check[@]}"; fi # now that there are packages

# --- the stages; in a rehearsal this same script, inside the mock server ----------------------------------------

if [[ $rehearsal == yes ]]; then
    command_of rehearsal ${data:+--folder "$data"} -- bash ./run_all.sh --submit "${training[@]}"
    PIPELINE_PYTHON=$python exec "${command[@]}"
fi

# A stage runs in the background, so that SIGTERM to this script reaches it at once: it saves, and ends with
# 130.  Ctrl-C reaches it from the terminal.
child= interrupted=no signalled=no
trap 'interrupted=yes signalled=yes' INT
trap 'interrupted=yes signalled=yes; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true' TERM

stage() { # NAME OPTIONS...
    echo >&2
    local status=0 again
    command_of "$@"
    "${command[@]}" &
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

stage download --competition "$slug" ${data:+--from "$data"}
stage preprocess --competition "$slug"
stage train --competition "$slug" "${training[@]}"
stage predict
if [[ $submit == yes ]]; then stage submit --competition "$slug"; fi
stage check --competition "$slug"
stage report
[[ $python != "$PWD/.venv/bin/python" ]] || echo "run_all: source .venv/bin/activate before python commands" >&2
[[ $slug != rehearsal-* ]] || echo "run_all: rehearsal complete; the real competition: ./run_all.sh --preset fast" >&2
