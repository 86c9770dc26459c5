"""The names of the parts of a data set: train, val and test, and what people call them."""

from __future__ import annotations

import functools
import re
from typing import Optional

PARTS = ("train", "val", "test")
_WORDS = {
    "train": ("train", "training", "训练"),
    "val": ("val", "valid", "validation", "validate", "dev", "验证"),
    "test": ("test", "testing", "测试"),
}
_PARTS = {word: part for part, words in _WORDS.items() for word in words}


@functools.lru_cache(maxsize=1000)  # a table names the part of every image
def part_of(name: str) -> Optional[str]:
    """The part that a name stands for, as val for "Validation_set" and "birds-val"; None if it is another."""
    words = _words_of(name)
    return _part_of_word("".join(words)) or (_part_of_word(words[-1]) if words else None)


def is_part_name(name: str) -> bool:
    """Whether a name says nothing but the part, as "train" and "Test set" do and "bullet_train" does not."""
    return _part_of_word("".join(_words_of(name))) is not None


def _words_of(name: str) -> list[str]:
    return [word for word in re.split(r"[\W\d_]+", name.lower()) if word]


def _part_of_word(word: str) -> Optional[str]:
    return _PARTS.get(word) or _PARTS.get(re.sub(r"(data)?(set|data|images|imgs|集)$", "", word))
