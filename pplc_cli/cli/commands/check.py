"""``pplc check``."""

from __future__ import annotations

from typing import Optional

import click

from pplc_cli.base.language.messages import tr
from pplc_cli.cli.command import Command, echo, hint
from pplc_cli.cli.options import config_options, overrides_of


@click.command(cls=Command)
@click.argument("data", metavar="[DATA]", required=False)
@config_options
@click.option(
    "--output",
    metavar="FOLDER",
    help="Where to write check.json and the contact sheets.  [default: output/check-NAME, NAME being the data set's]",
)
@click.option("--fix", metavar="FILE", help="Also write suggested corrections, for pplc split --exclude and --relabel.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--force", is_flag=True, help="Replace FILE, or write into a folder that holds something else.")
def check(
    data: Optional[str],
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    output: Optional[str],
    fix: Optional[str],
    as_json: bool,
    force: bool,
) -> None:
    """Check a data set before training.

    Finds unreadable, dark, blurred and other odd images, copies (re-encoded, resized, mirrored or cropped ones too),
    copies across classes and lists, outliers, and labels that are probably wrong. Your files are not changed. DATA is a
    folder with one subfolder per class, or a configuration.
    """
    import json
    from pathlib import Path

    from pplc_cli.analysis.check import check_data
    from pplc_cli.analysis.check_files import require_free, write_check, write_fixes
    from pplc_cli.base.storage.files import quoted, user_path
    from pplc_cli.cli.console.check import print_check
    from pplc_cli.cli.console.progress import counter
    from pplc_cli.cli.locate import find_config

    if data is not None and not user_path(data).is_dir() and user_path(data).suffix.lower() in (".yaml", ".yml"):
        config_option, data = data, None
    config = find_config(config_option, data or dataset, overrides_of(overrides), must_exist=("data.dir",))
    folder = output or Path("output") / f"check-{user_path(config.data.dir).resolve().name}"
    if not force:
        require_free(folder, fix)
    with counter(tr("checking images")) as progress:
        report = check_data(config.data, progress=progress)
    written = write_check(report, config.data.dir, folder)
    if fix is not None:
        written.append(write_fixes(report, fix))
    if as_json:
        click.echo(json.dumps(report.to_dict(), ensure_ascii=False))
        return
    print_check(report)
    echo(tr("written: {files}", files=", ".join(str(file) for file in written)))
    if fix is not None:
        file = quoted(fix)
        hint(
            tr(
                "Next: edit {file}, then: pplc split --dataset {name} --exclude {file} --relabel {file}",
                file=file,
                name=quoted(str(config.data.dir)),
            )
        )
