"""The runs that scripts/pin_runs.py records: for each, the commands that fill its folder."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from typing import Any, Optional

SIDE = 64
RANDOM = f"{{RandomCrop: {{crop_size: {SIDE}, scaling: [0.7, 1.0]}}}}, RandomHorizontalFlip"
FIXED = f"{{ResizeByShort: {{short_size: 72}}}}, {{CenterCrop: {{crop_size: {SIDE}}}}}, Normalize"
ENGINES = [name for name in ("paddle", "onnxruntime", "openvino") if importlib.util.find_spec(name)]
FORMATS = [name for name in ("paddle", "onnx", "openvino") if importlib.util.find_spec(name)]
FROM_PLAIN = ("--pretrained", "plain/best_model")
MIXED = f"[{RANDOM}, RandAugment, Normalize, RandomErasing, Mixup, CutMix]"
TWO = ("--nproc", "2", "--threads", "1")
EVERY_FORMAT = [word for name in FORMATS for word in ("--format", name)]
FOLDER, JSON_LINES = "inputs/folder", ("--json", "--top-k", "3")


@dataclasses.dataclass
class Step:
    """One command.

    Attributes:
        words: the command line after ``pplc``.
        status: the expected exit status; any other is recorded too, and printed.
        printed: whether standard output is a result rather than a message.
        stdin: text for standard input.
        interrupt: folder of the run that gets SIGINT once its log holds two epochs.
        cut: a file and the number of bytes to remove from its end before the command.
    """

    words: list[str]
    status: int = 0
    printed: bool = False
    stdin: str = ""
    interrupt: Optional[str] = None
    cut: Optional[tuple[str, int]] = None


def train(
    output: str, *words: str, command: str = "train", status: int = 0, interrupt: bool = False, **keys: Any
) -> Step:
    """Train the smallest network.

    Args:
        keys: settings of the section ``train``; of another section as ``section__key``.
    """
    values = {"epochs": 4, "batch_size": 8, "learning_rate": 0.02, "lr_decay_epochs": [3], "warmup_epochs": 1,
              "label_smoothing": 0.1, "log_interval_steps": 1, "threads": 2,
              "transforms": f"[{RANDOM}, Normalize]", "eval__transforms": f"[{FIXED}]"}  # fmt: skip
    line = [command, "--dataset", "data", "--model", "PPLCNet_x0_25", "--pretrained", "none", "--output", output]
    for key, value in {**values, **keys}.items():
        name = key.replace("__", ".") if "__" in key else f"train.{key}"
        line += ["-o", f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"]
    return Step([*line, *words], status, interrupt=output if interrupt else None)


def resumed(output: str, *words: str, **keys: Any) -> list[Step]:
    """Train as :func:`train` does, in two parts."""
    return [train(output, *words, **{**keys, "epochs": 2}), train(output, *words, "--resume", **keys)]


def predict(*words: str, **how: Any) -> Step:
    line = ["predict", *words, "--threads", "2"]
    return Step([*line, *(() if "--model" in words or "--run" in words else ("--model", "export/all"))], **how)


def export(output: str, *words: str, **how: Any) -> Step:
    where = ["--output", output] if output else []
    return Step(["export", *where, *words, "-o", "train.threads=2", "-o", "predict.threads=2"], **how)


# From the name of a folder to the commands that fill it, in order; commands may read the folders of earlier runs.
RUNS: dict[str, list[Step]] = {
    "data": [Step(["split", "--dataset", "data", "--test", "0.2"])],
    "plain": [train("plain")],
    "resumed": resumed("resumed"),
    "stopped": [train("stopped", epochs=40, log_interval_steps=10, interrupt=True, status=130),
                train("stopped", "--resume", epochs=40, log_interval_steps=10)],
    "replaced": [train("replaced", seed=5), train("replaced", status=1), train("replaced", "--force", seed=6)],
    "adamw_cosine": [train("adamw_cosine", optimizer="adamw", learning_rate=0.002, schedule="cosine")],
    "adam": [train("adam", optimizer="adam", learning_rate=0.002, schedule="constant")],
    "sgd": [train("sgd", optimizer="sgd")],
    "ema": [train("ema", ema_decay=0.9), Step(["eval", "--run", "ema"]), export("", "--run", "ema")],
    "ema_resumed": resumed("ema_resumed", ema_decay=0.9),
    "mixed": [train("mixed", transforms=MIXED)],
    "balanced": [train("balanced", class_weights="balanced", data__extra_list="extra/list.txt")],
    "weighted": [train("weighted", class_weights={"ant": 2.5, "猫 cat": 0.5}, model__dropout=0.5)],
    "progressive": [train("progressive", progressive_from=32, ema_decay=0.9)],
    "early_stop": [train("early_stop", epochs=20, learning_rate=1e-6, early_stop=True, early_stop_patience=1),
                   train("early_stop", "--resume", epochs=20, learning_rate=1e-6, early_stop=True,
                         early_stop_patience=1)],
    "paddle_kernels": [train("paddle_kernels", accelerate=False, ema_decay=0.9, clip_grad_norm=1.0)],
    "in_bfloat16": [train("in_bfloat16", precision="bfloat16")],
    "clipped": [train("clipped", clip_grad_norm=0.5)],
    "visualdl": [train("visualdl", *FROM_PLAIN, visualdl=True, transfer="head")],
    "diverged": [train("diverged", learning_rate=1000, weight_decay=1000, batch_size=2, warmup_epochs=0, status=1)],
    "frozen": resumed("frozen", freeze="blocks4", freeze_views=2, ema_decay=0.9),
    "frozen_head": [train("frozen_head", *FROM_PLAIN, freeze="head", accelerate=False)],
    "head": resumed("head", *FROM_PLAIN, transfer="head"),
    "stages": resumed("stages", *FROM_PLAIN, transfer="stages"),
    "stages_adamw": [train("stages_adamw", *FROM_PLAIN, transfer="stages", optimizer="adamw", learning_rate=0.002,
                           ema_decay=0.9, class_weights="balanced", progressive_from=32)],
    "auto": [train("auto", *FROM_PLAIN, transfer="auto")],
    "auto_random": [train("auto_random", transfer="auto")],
    "auto_no_memory": [train("auto_no_memory", *FROM_PLAIN, transfer="auto", data__cache_mb=0)],
    "builtin": [train("builtin", "--pretrained", "builtin", transfer="auto")],
    "frozen_norms": [train("frozen_norms", *FROM_PLAIN, transfer="full", batch_norm="frozen")],
    "slow_norms": [train("slow_norms", *FROM_PLAIN, transfer="full", batch_norm="auto")],
    "distilled": resumed("distilled", "--teacher", "plain", "--unlabelled", "loose", "--views", "2", "--features", "1",
                         "--hard", "0.5", "--divergence", "kl", command="distill", ema_decay=0.9),
    "distilled_mixed": [train("distilled_mixed", distill__teacher="ema/inference_model", distill__temperature=2,
                              transforms=f"[{RANDOM}, Normalize, Mixup]")],
    "two": resumed("two", *TWO, ema_decay=0.9),
    "two_synced": [train("two_synced", *TWO, sync_batch_norm=True, class_weights="balanced", clip_grad_norm=1.0)],
    "two_frozen": [train("two_frozen", *TWO, *FROM_PLAIN, freeze="blocks4")],
    "two_head": [train("two_head", *TWO, *FROM_PLAIN, transfer="head")],
    "evaluated": [Step(["eval", "--run", "plain", "--output", "evaluated/test"]),
                  Step(["eval", "--run", "plain", "--split", "val", "--json", "--output", "evaluated/val"], 0, True),
                  Step(["eval", "--run", "plain", "--data", "data", "--json", "--output", "evaluated/data"], 0, True),
                  Step(["label", "loose", "--model", "plain", "--threshold", "0.3",
                        "--output", "evaluated/labelled.txt"])],
    "preview": [Step(["preview", "mixed/config.yaml", "--output", "preview/preview.png"])],
    "export": [export("export/all", "--run", "plain", *EVERY_FORMAT, "--precision", "int8", "--max-loss", "0.9"),
               export("export/bfloat16", "--run", "plain", "--precision", "bfloat16", "--max-loss", "0.9"),
               export("export/simple", "--run", "plain", *EVERY_FORMAT, "--simplify", "--batch", "4"),
               export("export/large", "--run", "plain", "--size", "96"),
               export("export/any", "--run", "plain", "--size", "any")],
    "predict": [
        *(predict(FOLDER, *JSON_LINES, "--engine", name, printed=True) for name in ["pplc", *ENGINES]),
        *(predict(FOLDER, *JSON_LINES, "--engine", name, "--precision", "int8", printed=True)
          for name in ["pplc", *ENGINES[1:]]),
        predict(FOLDER, *JSON_LINES, "--engine", "pplc", "--precision", "bfloat16", printed=True),
        predict(FOLDER, *JSON_LINES, "--engine", "paddle", "--no-mkldnn", "--batch-size", "3", printed=True),
        *(predict(FOLDER, "--embeddings", "--engine", name, printed=True) for name in ["pplc", *ENGINES[1:]]),
        *(predict(FOLDER, *JSON_LINES, "--model", f"export/{name}", printed=True)
          for name in ("simple", "any", "large")),
        predict(FOLDER, "inputs/list.txt", "inputs/images.tar", "inputs/folder/*.png", "inputs/broken.jpg", "none.jpg",
                "--json", "--run", "ema", printed=True, status=1),
        predict("-", "--csv", "--top-k", "2", printed=True, stdin="inputs/folder/0.png\ninputs/folder/1.jpg\n"),
        predict(FOLDER, "--top-k", "2", "--save", "predict/saved", printed=True),
        *(predict(FOLDER, "inputs/images.tar", "inputs/broken.jpg", "--top-k", "2", "--output", f"predict/{name}",
                  status=1) for name in ("all.jsonl", "all.csv", "all.parquet")),
        predict(FOLDER, "--embeddings", "--output", "predict/embeddings.jsonl"),
        predict(FOLDER, "--embeddings", "--output", "predict/embeddings.parquet"),
        *(predict(FOLDER, "inputs/images.tar", "inputs/broken.jpg", "--top-k", "2", "--output", f"predict/{name}",
                  "--resume", status=1, cut=(f"predict/{name}", 150)) for name in ("all.jsonl", "all.csv")),
    ],
}  # fmt: skip
