"""Compare pplc's predictions with those of stock PaddleX on every image of some folders.

python scripts/compare_paddlex.py MODEL IMAGES...
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import yaml

from pplc_cli import Predictor
from pplc_cli.data.image_files import is_image_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="MODEL", help="an exported folder")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGES", help="files or folders")
    arguments = parser.parse_args()
    os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"
    import paddlex

    description = yaml.safe_load((arguments.folder / "inference.yml").read_text(encoding="utf-8"))
    topk = description["PostProcess"]["Topk"]
    found = (f for p in arguments.images for f in ([p] if p.is_file() else sorted(p.rglob("*"))))
    files = [str(file) for file in found if is_image_name(file) and file.is_file()]
    if not files:
        parser.error("IMAGES holds no images; expected image files or folders of them")
    count = len(topk["label_list"])
    model = paddlex.create_model(description["Global"]["model_name"], model_dir=str(arguments.folder), device="cpu")
    largest, different = 0.0, 0
    ours = Predictor(arguments.folder).predict(files, top_k=count)
    for our, their in zip(ours, model.predict(files, batch_size=8, topk=count)):
        result = their.json["res"]
        scores = dict(our.top)
        largest = max(largest, *(abs(scores[n] - s) for n, s in zip(result["label_names"], result["scores"])))
        different += our.label != result["label_names"][0]
    print(f"{len(files)} images: largest score difference {largest:.1e}; different best label on {different}")


if __name__ == "__main__":
    main()
