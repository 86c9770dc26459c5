"""Errors caused by input or environment. The command line prints their message and exits with status 1."""

from __future__ import annotations

from pplc_cli.base.language.messages import tr


class PplcError(Exception):
    """The base class. The message names the expected value, the actual value, and a remedy."""


class ConfigError(PplcError):
    """The configuration is not valid.

    Attributes:
        faults: one sentence per fault, starting with the dotted key.
    """

    def __init__(self, source: str, faults: list[str]) -> None:
        self.source = source
        self.faults = faults
        if len(faults) == 1:
            text = tr("{source}: {fault}", source=source, fault=faults[0])
        else:
            heading = tr("{source}: {count} faults", source=source, count=len(faults))
            text = "\n".join([heading, *(f"  {fault}" for fault in faults)])
        super().__init__(text)


def is_about(fault: str, key: str) -> bool:
    """Whether a fault is one of a dotted key, or of a key or an item within it."""
    return fault.startswith(tuple(f"{key}{mark}" for mark in (":", "：", ".", "[")))


class DataError(PplcError):
    """A data set, a list or a folder of images is not valid."""


class ImageError(DataError):
    """A file is not a usable image. The text is the reason, without the name of the file."""


class ImageMemoryError(ImageError):
    """The memory does not suffice to decode a file, which may be a sound image."""


class ModelError(PplcError):
    """An unknown network, or weights that do not fit it."""


class DownloadError(PplcError):
    """A download failed."""


class CheckpointError(PplcError):
    """A run folder cannot be read, written or resumed."""


class TrainError(PplcError):
    """Training cannot start or continue."""


class ExportError(PplcError):
    """The exported model would differ from the trained network."""


class PredictError(PplcError):
    """No prediction is possible: no model, no engine, or no input."""


def one_line(error: BaseException, *, stack: bool = False) -> str:
    """The most useful line of an exception's text, at most 300 characters.

    Args:
        error: an exception of Paddle, ONNX Runtime, the system, ...
        stack: the text is the stack trace of a compiled library: take its last line that names an error.

    Returns:
        The line, or the name of the exception's class if it has no text.
    """
    text = getattr(error, "strerror", None) or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    if stack:
        lines = ([line for line in lines if "Error" in line] or lines)[-1:]
    return lines[0][:300]
