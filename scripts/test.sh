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
# The kernels are compiled meanwhile, for this CPU and for AVX2: two workers of pytest would each compile all of them.
compile="from pplc_cli.kernels import compile_all, unsupported
if unsupported() is None: compile_all(print)"
{ python -c "$compile"; PPLC_ISA=avx2 python -c "$compile"; } > /dev/null 2>&1 &
ruff check .
ruff format --check .
mypy
wait
python -m pytest -m "$marks" -n 2 --dist loadfile --durations=10 "$@"
