#!/usr/bin/env bash
# The set-up of run_all.sh, then lint, types and tests.  Installs nothing outside .venv.
#
#   tests/run.sh                                            everything, as CI does
#   tests/run.sh tests/gap -k label                         further arguments go to pytest
#   .venv/bin/python -m pytest tests/store/test_ledger.py   the tests of one module alone: seconds
set -euo pipefail
unset CDPATH
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    while IFS= read -r line && [[ $line == "#"* ]]; do printf '%s\n' "${line#\#}"; done < <(tail -n +2 "$0")
    exit
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash run_all.sh --setup
python=${PIPELINE_PYTHON:-.venv/bin/python}
"$python" -m ruff check .
"$python" -m ruff format --check .

# Three workers on two cores, with a thread each: now and then one waits.  mypy takes what they leave.
export OMP_NUM_THREADS=1
types=$(mktemp)
trap 'kill "$mypy" 2>/dev/null || true; wait; rm -f "$types"' EXIT
nice -n 19 "$python" -m mypy >"$types" 2>&1 &
mypy=$!
status=0
"$python" -m pytest -n 3 "$@" || status=$?
wait "$mypy" || status=1
cat "$types"
exit "$status"
