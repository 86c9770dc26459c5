#!/usr/bin/env bash
# Set up, lint, and run all tests: bash scripts/test.sh [--slow] [PYTEST ARGUMENTS]
# --slow also runs the tests that take minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh dev
PATH="$PWD/.venv/bin:$PWD/.venv/Scripts:$PATH"

marks="not slow"
if [ "${1:-}" = "--slow" ]; then
    marks=""
    shift
fi
ruff check .
ruff format --check .
mypy
python -m pytest -m "$marks" -n 2 --dist loadfile --durations=10 "$@"
