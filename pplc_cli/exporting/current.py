"""Find a run's exported folder and check that it is up to date."""

from __future__ import annotations

from pathlib import Path

from pplc_cli.base.errors import PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import quoted
from pplc_cli.predict.records import read_sidecar
from pplc_cli.training.runs.checkpoint import load_info
from pplc_cli.training.runs.run_folder import RunFolder


def exported_folder(trained: RunFolder) -> Path:
    """Find the exported folder of a run.

    Raises:
        PredictError: the run is not exported, or its best weights are newer than the export.
    """
    folder = trained.exported
    if not folder.is_dir():
        raise PredictError(
            tr(
                "{folder} is not exported yet; run: pplc export --run {argument}",
                folder=trained.folder,
                argument=quoted(str(trained.folder)),
            )
        )
    if read_sidecar(folder).get("weights") != load_info(trained.best, "model")["sha256"]["model"]:
        raise PredictError(
            tr(
                "{folder} is older than the run's best weights; run: pplc export --run {argument}",
                folder=folder,
                argument=quoted(str(trained.folder)),
            )
        )
    return folder
