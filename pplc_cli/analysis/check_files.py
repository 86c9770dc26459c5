"""The files of a check: contact sheets, a JSON report, and corrections to edit."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Optional

import numpy as np

from pplc_cli.analysis.check import (
    BLURRED,
    BRIGHT,
    CONFLICT,
    COPY,
    DARK,
    ELONGATED,
    FLAT,
    KINDS,
    LABEL,
    LEAK,
    OUTLIER,
    SMALL,
    UNREADABLE,
    CheckReport,
    Finding,
)
from pplc_cli.base.errors import DataError, ImageError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import PathLike, user_path, write_json, write_text
from pplc_cli.data.decode import read_image
from pplc_cli.data.lists.fixes import HEADER, RELABEL, REMOVE
from pplc_cli.plots.contact_sheet import contact_sheet

REPORT = "check.json"
SHOWN = 48  # images on a contact sheet
_REMOVED = (CONFLICT, LEAK, COPY)  # what is proposed to be left out; unreadable files are left out anyway
_ODD = (OUTLIER, DARK, BRIGHT, FLAT, BLURRED, SMALL, ELONGATED)  # proposed as comments, since many are fine


def titles() -> dict[str, str]:
    """What each kind of finding is called, in the user's language."""
    return {
        UNREADABLE: tr("unreadable files"),
        CONFLICT: tr("copies in another class"),
        LEAK: tr("copies in another part of the data set"),
        LABEL: tr("labels that are probably wrong"),
        COPY: tr("copies in the same class"),
        OUTLIER: tr("images unlike the others of their class"),
        DARK: tr("dark images"),
        BRIGHT: tr("bright images"),
        FLAT: tr("images with next to no contrast"),
        BLURRED: tr("blurred images"),
        SMALL: tr("small images"),
        ELONGATED: tr("elongated images"),
    }


def advice(kind: str) -> str:
    """What to do about a kind of finding, in the user's language."""
    return {
        UNREADABLE: tr("replace or remove them; pplc split leaves them out"),
        CONFLICT: tr("keep the one in the right class; the network cannot learn both"),
        LEAK: tr("keep one of them; otherwise the accuracy is measured on images that were trained on"),
        LABEL: tr("look at them; move those that are wrong to the class that is named"),
        COPY: tr("keep one of them; copies count several times and say nothing new"),
    }.get(kind, tr("look at them; keep those that you want the network to recognise"))


def require_free(folder: PathLike, fixes: Optional[PathLike] = None) -> None:
    """Refuse places that hold something of the user's, before the work of a check.

    Args:
        folder: for :func:`write_check`; it may hold an older check.
        fixes: for :func:`write_fixes`.

    Raises:
        DataError: the folder holds something else, or the file exists.
    """
    target = user_path(folder)
    if target.is_dir() and any(target.iterdir()) and not (target / REPORT).is_file():
        raise DataError(tr("{folder} is not empty and holds no check; name another one, or use --force", folder=target))
    if fixes is not None and user_path(fixes).exists():
        raise DataError(tr("{file} exists; replace it with --force", file=user_path(fixes)))


def write_check(report: CheckReport, data: PathLike, folder: PathLike) -> list[Path]:
    """Write a JSON report, and a contact sheet for each kind of finding, in place of those of an older check.

    Args:
        report: of a check.
        data: the folder of the data set, to which the files' names are relative.
        folder: where to write; made if it does not exist.

    Returns:
        The files written.
    """
    target, root = user_path(folder), user_path(data)
    target.mkdir(parents=True, exist_ok=True)
    if (target / REPORT).is_file():
        for kind in KINDS:
            (target / f"{kind}.png").unlink(missing_ok=True)
    write_json(target / REPORT, report.to_dict())
    written = [target / REPORT]
    for kind in KINDS:
        tiles = [tile for finding in report.of_kind(kind)[:SHOWN] for tile in _tiles(finding, root)]
        if tiles:
            contact_sheet(target / f"{kind}.png", tiles, title=titles()[kind])
            written.append(target / f"{kind}.png")
    return written


def _tiles(finding: Finding, root: Path) -> list[tuple[np.ndarray, list[str]]]:
    """The image, and the one that it is a copy of."""
    is_copy = finding.kind in _REMOVED
    names = [(finding.file, described(finding))] + ([(finding.other, "")] if is_copy else [])
    tiles = []
    for name, text in names:
        try:
            tiles.append((read_image(root / name), [name, text] if text else [name]))
        except ImageError:
            continue
    return tiles


def described(finding: Finding) -> str:
    """A finding in a few words, in the user's language."""
    if finding.kind == UNREADABLE:
        return finding.reason
    if finding.kind in _REMOVED:
        if finding.value == 1:
            return tr("same content as {file}", file=finding.other)
        return tr("same photograph as {file}", file=finding.other)
    if finding.kind == LABEL:
        return tr("{label}; probably {other}", label=finding.label, other=finding.other)
    return {
        OUTLIER: tr("distance {value:.2f} from the nearest ones", value=finding.value),
        DARK: tr("mean brightness {value:.0f} of 255", value=finding.value),
        BRIGHT: tr("mean brightness {value:.0f} of 255", value=finding.value),
        FLAT: tr("contrast {value:.1f}", value=finding.value),
        BLURRED: tr("sharpness {value:.1f}", value=finding.value),
        SMALL: tr("{value:.0f} pixels", value=finding.value),
        ELONGATED: tr("{value:.1f} times as long as wide", value=finding.value),
    }[finding.kind]


def write_fixes(report: CheckReport, path: PathLike) -> Path:
    """Write the corrections that a report suggests, to be edited, for ``pplc split --exclude FILE --relabel FILE``."""
    target = user_path(path)
    text = io.StringIO()
    text.write(tr("# Corrections that pplc check suggests. Delete the lines that you do not want; # makes a comment."))
    text.write("\n")
    text.write(tr("# Apply them with: pplc split --exclude FILE --relabel FILE. Nothing is deleted or moved."))
    text.write("\n")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(HEADER)
    for finding in report.findings:
        action = RELABEL if finding.kind == LABEL else REMOVE
        if finding.kind == UNREADABLE:
            continue
        if finding.kind in _ODD:
            text.write("# ")
        other = finding.other if finding.kind == LABEL else ""
        rows.writerow([action, finding.file, other, f"{finding.kind}: {described(finding)}"])
    write_text(target, text.getvalue())
    return target
