"""Whether a run's exported folder is up to date."""

from __future__ import annotations

from pathlib import Path

from pplc_cli.base.errors import PredictError
from pplc_cli.predict.exported_model import read_sidecar
from pplc_cli.training.runs.checkpoint import load_info
from pplc_cli.training.runs.run_folder import RunFolder


def exported_folder(trained: RunFolder) -> Path:
    """The exported model of a run.

    Raises:
        PredictError: there is none, or it was made from older weights than the run's best.
    """
    folder = trained.exported
    if not folder.is_dir():
        raise PredictError(f"{trained.folder} is not exported yet; run: pplc export --run {trained.folder}")
    if read_sidecar(folder).get("weights") != load_info(trained.best, "model")["sha256"]["model"]:
        raise PredictError(f"{folder} is older than the run's best weights; run: pplc export --run {trained.folder}")
    return folder
