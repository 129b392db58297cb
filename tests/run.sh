#!/usr/bin/env bash
# The same set-up as run_all.sh, then lint, types and tests.  Further arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d) chromium= mypy=
trap '[[ -z $mypy ]] || kill "$mypy" 2>/dev/null || true; wait; rm -rf "$scratch"' EXIT

# The report's tests look at it in a Chromium.  Where there is none and we may, one is installed while pip is at work.
has_chromium() {
    local program
    for program in "${CHROMIUM:-chromium}" chromium-browser google-chrome google-chrome-stable; do
        if command -v "$program" >/dev/null; then return; fi
    done
    return 1
}
install_chromium() {
    local patience=(-o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 -o Acquire::Retries=1)
    export DEBIAN_FRONTEND=noninteractive
    apt-get "${patience[@]}" update && apt-get "${patience[@]}" install -y --no-install-recommends chromium
}
if ! has_chromium && ((EUID == 0)) && command -v apt-get >/dev/null; then
    echo "set-up: installing Chromium for the browser tests"
    install_chromium </dev/null >"$scratch/chromium" 2>&1 &
    chromium=$!
fi

./run_all.sh --setup
if [[ -n $chromium ]] && ! wait "$chromium"; then
    cat "$scratch/chromium" >&2
    echo "no Chromium: the browser tests are skipped" >&2
fi

python=${PIPELINE_PYTHON:-.venv/bin/python}
"$python" -m ruff check .
"$python" -m ruff format --check .
# Two workers on two cores: with a thread each they do not wait for each other.  What they leave is enough for mypy.
export OMP_NUM_THREADS=1
"$python" -m mypy >"$scratch/mypy" 2>&1 &
mypy=$!
status=0
"$python" -m pytest -n 2 "$@" || status=$?
wait "$mypy" || status=1
cat "$scratch/mypy"
exit "$status"
