"""Every error that a user can cause or meet; the command line prints each as one message, exit status 1."""

from __future__ import annotations


class PplcError(Exception):
    """The root: its text says what was expected, what came and what to do."""


class ConfigError(PplcError):
    """The configuration is not valid.

    Attributes:
        faults: one sentence a fault, each starting with its dotted key.
    """

    def __init__(self, source: str, faults: list[str]) -> None:
        self.source = source
        self.faults = faults
        head = f"{source}: {faults[0]}"
        if len(faults) > 1:
            head = f"{source}: {len(faults)} faults\n" + "\n".join(f"  {fault}" for fault in faults)
        super().__init__(head)


class DataError(PplcError):
    """A data set, a list or a folder is not what it should be."""


class ImageError(DataError):
    """A file is no image that can be used; the text is the reason, without the file's name."""


class ModelError(PplcError):
    """A network's name, or weights that do not fit it."""


class DownloadError(PplcError):
    """Something could not be fetched from the network."""


class CheckpointError(PplcError):
    """A run's folder cannot be read, written or continued."""


class TrainError(PplcError):
    """Training cannot go on."""


class ExportError(PplcError):
    """The exported model would not be what was trained."""


class PredictError(PplcError):
    """Nothing can be predicted: no model, or no input."""


def one_line(error: BaseException, *, stack: bool = False) -> str:
    """The line of a foreign exception that is worth showing, at most 300 characters of it.

    Args:
        error: of Paddle, ONNX Runtime, the system, ...
        stack: its text is the stack of a compiled library, whose last line that names an error says most.

    Returns:
        The line, or the name of the exception's class where it has no text.
    """
    text = getattr(error, "strerror", None) or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    if stack:
        lines = ([line for line in lines if "Error" in line] or lines)[-1:]
    return lines[0][:300]
