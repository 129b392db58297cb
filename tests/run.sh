#!/usr/bin/env bash
# The same set-up as run_all.sh, then lint, types and tests.  Further arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./run_all.sh --setup
python=${PIPELINE_PYTHON:-.venv/bin/python}
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
# Two workers on two cores: with a thread each they do not wait for each other.
export OMP_NUM_THREADS=1
exec "$python" -m pytest -n 2 "$@"
