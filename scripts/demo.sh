#!/usr/bin/env bash
# The five commands of the README on drawn pandas and tigers, from an empty folder to a prediction: bash scripts/demo.sh
# Everything is written to output/demo, which is replaced. Needs no network beyond the install: training starts from the
# built-in weights.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
PATH="$PWD/.venv/bin:$PWD/.venv/Scripts:$PATH"
export PPLC_OFFLINE=1  # pretrained: auto then takes the built-in weights, unless official ones are in the cache

rm -rf output/demo
mkdir -p output/demo/configs
cp configs/pandatiger.yaml output/demo/configs
cd output/demo

run() { printf '\n$ %s\n' "$*"; "$@"; }

run pplc sample pandatiger
run pplc split --dataset pandatiger
run pplc train configs/pandatiger.yaml
run pplc eval
run pplc export
cp "datasets/pandatiger/$(head -n 1 datasets/pandatiger/test_list.txt | cut -d' ' -f1)" img.jpg
run pplc predict img.jpg

cat <<'END'

Look in output/demo:
  datasets/pandatiger/                          the drawn images, and the lists of pplc split
  img.jpg                                       the image classified last, from the test list
  output/pplcnet-pandatiger/curves.png          loss and accuracy per epoch
  output/pplcnet-pandatiger/eval_test/          report of pplc eval: confusion matrix, worst mistakes
  output/pplcnet-pandatiger/inference_model/    the exported model
END
