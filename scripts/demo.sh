#!/usr/bin/env bash
# The whole way on drawn pandas and tigers, from nothing to predictions: bash scripts/demo.sh
# Starts from random weights, so that it needs no network beyond the install. A few minutes on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
PATH="$PWD/.venv/bin:$PWD/.venv/Scripts:$PATH"

say() { printf '\n$ %s\n' "$*"; "$@"; }

data=datasets/pandatiger
run=output/demo
[ -d "$data/panda" ] || say python scripts/draw_pandatiger.py --out "$data"
say pplc split --dataset pandatiger --force
say pplc train configs/pandatiger-scratch.yaml --epochs 12 --output "$run" --force
say pplc eval
say pplc export
rm -rf "$run/predicted"
cut -d' ' -f1 "$data/test_list.txt" | awk "NR % 3 == 1 { print \"$PWD/$data/\" \$0 }" > "$run/some.txt"
say pplc predict "$run/some.txt" --save "$run/predicted"
python - "$run" <<'PY'
import sys
from pathlib import Path

from pplc_cli import read_image
from pplc_cli.pictures import contact_sheet

run = Path(sys.argv[1])
files = sorted((run / "predicted").glob("*.jpg"))
contact_sheet(run / "predictions.png", [(read_image(file), [file.stem]) for file in files], columns=5, side=220)
PY
printf '\nThe predictions as a picture: %s/predictions.png\n' "$run"
