"""``pplc tune``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional

import click

from pplc_cli.base.errors import DataError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import user_path
from pplc_cli.cli.command import Command, Interrupted
from pplc_cli.cli.options import config_options, overrides_of


class _Minutes(click.ParamType):
    """Parses ``30m``, ``1h30m``, ``90s`` or a number of minutes."""

    name = "duration"

    def convert(self, value: object, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> float:
        text = str(value).strip().lower()
        found = re.fullmatch(r"(?:(\d{1,4})h)?(?:(\d{1,6})m(?:in)?)?(?:(\d{1,8})s)?", text)
        if text and found:
            hours, minutes, seconds = (float(part or 0) for part in found.groups())
            total = 60 * hours + minutes + seconds / 60
        else:
            try:
                total = float(text)
            except ValueError:
                total = 0.0
        if not 0 < total < 1e6:
            self.fail(tr("expected a duration as 30m or 1h30m, got {value!r}", value=value), param, ctx)
        return total


@click.command(cls=Command)
@click.argument("config_argument", metavar="[CONFIG]", required=False)
@config_options
@click.option("--trials", type=int, metavar="N", help="Largest number of short trainings.  [default: 30]")
@click.option(
    "--time", "minutes", type=_Minutes(), metavar="DURATION", help="Largest duration, as 30m or 1h30m.  [default: none]"
)
@click.option("--max-ms", type=float, metavar="MS", help="Only networks that need at most this for one image here.")
@click.option("--folds", type=int, metavar="K", help="Judge by K-fold cross-validation, which takes K times as long.")
@click.option("--resume", is_flag=True, help="Go on with a search that was stopped, or beside another process.")
@click.option("--force", is_flag=True, help="Replace a search.")
@click.option("--storage", metavar="URL", help="Optuna's storage, to share a search.  [default: search.db in --output]")
@click.option("--output", metavar="FOLDER", help="The folder of the search.  [default: NAME-tune beside the run's]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def tune(
    config_argument: Optional[str],
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    trials: Optional[int],
    minutes: Optional[float],
    max_ms: Optional[float],
    folds: Optional[int],
    resume: bool,
    force: bool,
    storage: Optional[str],
    output: Optional[str],
    as_json: bool,
) -> None:
    """Search for the configuration that suits the images and this machine.

    Linear probes choose the network and the image size, short trainings the recipe, and the best are trained in full.
    The section tune of CONFIG can name what to search. The result is a configuration, CONFIG with -tuned in its name.
    The test list plays no part: pplc eval measures the result on images that no choice was made by.
    """
    import dataclasses

    from pplc_cli.cli.console.progress import TrainProgress
    from pplc_cli.cli.console.tuning import print_tuned
    from pplc_cli.cli.locate import find_recipe
    from pplc_cli.tuning.tune import tune as search

    named = config_argument or config_option
    if named is None and dataset is None:
        raise DataError(tr("expected a configuration or a data set: pplc tune CONFIG"))
    values = {"trials": trials, "minutes": minutes, "max_ms": max_ms, "folds": folds}
    flags = overrides_of(overrides, **{f"tune__{name}": value for name, value in values.items()})
    config = find_recipe(named, dataset, flags, resume=False)
    folder = user_path(output or f"{Path(config.output).as_posix()}-tune")
    with TrainProgress() as reporter:
        try:
            result = search(
                dataclasses.replace(config, output=str(folder)),
                resume=resume, force=force, storage=storage, reporter=reporter,
            )  # fmt: skip
        except KeyboardInterrupt as error:
            advice = tr("Repeat the command with --resume to go on after the last trial.")
            raise Interrupted(error, advice) from None
    path = user_path(named) if named else Path("configs") / f"{Path(str(dataset)).name}.yaml"
    print_tuned(result, folder, path.with_name(f"{path.stem}-tuned.yaml"), as_json)
