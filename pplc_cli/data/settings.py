"""The `data:` and `split:` sections of the configuration."""

from __future__ import annotations

import dataclasses
from typing import Optional

from pplc_cli.base.schema import option

MAX_SEED = 2**63 - 1  # Paddle takes 64 bits, JSON readers of other languages 63
MAX_THREADS = 1024  # more than the cores of any machine; each thread has its buffers
MAX_CACHE_MB = 16 * 1024 * 1024  # 16 TB


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the images and their lists are."""

    dir: str = option(help="Folder of the data set, with one folder per class; paths in the lists are relative to it.")
    lists: Optional[str] = option(
        None, help="Folder of the lists and the label file, for example if `dir` is read-only; null: `dir`."
    )
    train_list: Optional[str] = option(
        None,
        help="Training list: lines of an image and its class number, or a CSV or TSV table; null: `train_list.txt` or "
        "`train.txt` in `lists`.",
    )
    val_list: Optional[str] = option(None, help="Validation list; null: `val_list.txt` or `val.txt` in `lists`.")
    test_list: Optional[str] = option(
        None, help="Test list; null: `test_list.txt` or `test.txt` in `lists`, if there is one."
    )
    labels: Optional[str] = option(
        None,
        help="File with one class name per line, with or without its number; null: `labels.txt`, `label.txt` or "
        "`label_list.txt` in `lists`.",
    )
    path_column: Optional[str] = option(
        None, help="Column of a table that has the images' paths; null: found by its name, as `path` or `filename`."
    )
    label_column: Optional[str] = option(
        None, help="Column of a table that has the classes; null: found by its name, as `label` or `class`."
    )
    extra_list: Optional[str] = option(
        None, help="Second list to train on, for example the pseudo-labels that `pplc label` writes."
    )
    unlabelled: Optional[str] = option(None, help="Folder of images without labels, for distillation.")
    sampler: Optional[str] = option(
        None,
        choices=("balanced", "square_root"),
        help="How often the classes are seen in an epoch: `balanced` (all equally often), `square_root` (by the square "
        "root of their numbers of images); null: each image once.",
    )
    cache_mb: Optional[int] = option(
        None, at_least=0, at_most=MAX_CACHE_MB, help="Memory for decoded images, in MB; null: half of the free memory."
    )
    workers: Optional[int] = option(
        None, at_least=1, at_most=MAX_THREADS, help="Number of decoding threads; null: physical cores."
    )


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """How `pplc split` divides the images."""

    val: float = option(0.2, more_than=0, below=1, help="Share of each class for validation.")
    test: float = option(
        0.1, at_least=0, below=1, help="Share of each class for testing; the remaining images are for training."
    )
    seed: int = option(0, at_least=0, at_most=MAX_SEED, help="Random seed; the same seed gives the same lists.")
    group: Optional[str] = option(
        None,
        help="Regular expression; images whose paths give the same text for its part in parentheses (without "
        "parentheses: for the whole match) go to the same list.",
    )
    table: Optional[str] = option(
        None, help="CSV or TSV table of the images and their classes; null: folders are the classes."
    )
    format: str = option(
        "paddlex2",
        choices=("paddlex2", "paddlex3"),
        help="File names: `paddlex2` writes `train_list.txt` and so on, `paddlex3` writes `train.txt` and so on.",
    )
