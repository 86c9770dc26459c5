"""The `data:` and `split:` sections of the configuration."""

from __future__ import annotations

import dataclasses
from typing import Optional

from pplc_cli.base.schema import option


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the photographs are. Lists are looked for in ``dir`` under PaddleX 2.x and 3.x names."""

    dir: str = option()
    train_list: Optional[str] = option(None)
    val_list: Optional[str] = option(None)
    test_list: Optional[str] = option(None)
    labels: Optional[str] = option(None)
    extra_list: Optional[str] = option(None)  # a list to train on as well, as pplc label writes it
    unlabelled: Optional[str] = option(None)  # more images, for distillation
    cache_mb: Optional[int] = option(None, at_least=0)  # decoded images in memory; null: half of what is free
    workers: Optional[int] = option(None, at_least=1)  # decoding threads; null: one a core


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """Shares of each class, and what must stay together."""

    val: float = option(0.2, more_than=0, below=1)
    test: float = option(0.1, at_least=0, below=1)
    seed: int = option(0, at_least=0)
    group: Optional[str] = option(None)
    format: str = option("paddlex2", choices=("paddlex2", "paddlex3"))
