"""A run in one HTML file that can be mailed: everything is inside, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import dataclasses
import json
import platform
import tempfile
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from pplc_cli.analysis.check import CheckReport, Finding
from pplc_cli.analysis.check_files import REPORT, titles
from pplc_cli.analysis.heat_maps import Explainer
from pplc_cli.base.errors import DataError, PplcError
from pplc_cli.base.hardware import cpu_info
from pplc_cli.base.language.messages import current_language, tr
from pplc_cli.base.progress import ProgressCallback, no_progress
from pplc_cli.base.storage.files import PathLike, user_path, write_text
from pplc_cli.base.version import __version__
from pplc_cli.exporting.current import exported_folder
from pplc_cli.models.registry import find_network
from pplc_cli.plots.annotate import jpeg_bytes
from pplc_cli.plots.figure import DrawError
from pplc_cli.plots.heat import overlay
from pplc_cli.predict.engines.auto import choose_fastest
from pplc_cli.training.evaluation.evaluate import Measurement, measure
from pplc_cli.training.evaluation.metrics import accuracy_text
from pplc_cli.training.runs.checkpoint import load_info
from pplc_cli.training.runs.run import Run, open_run
from pplc_cli.training.runs.run_folder import RunFolder

TEMPLATE = Path(__file__).with_name("report.html.j2")
MISTAKES = 12  # with heat maps
CLASSES = 200  # rows of the table; more would make the file too long to read
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
LARGEST = 5_000_000  # bytes of the file


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: its heading.
        texts: paragraphs.
        table: rows of cells, the first one of headings.
        pictures: ``data``, ``alt`` and ``narrow`` of each.
        tiles: ``image``, ``heat``, ``name``, ``caption`` and ``alt`` of each image with its heat map.
        code: text to show as it is, folded behind ``summary``.
    """

    title: str
    texts: list[str] = dataclasses.field(default_factory=list)
    table: list[list[str]] = dataclasses.field(default_factory=list)
    pictures: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    tiles: list[dict[str, str]] = dataclasses.field(default_factory=list)
    code: str = ""
    summary: str = ""


def write_report_page(
    run: Union[Run, RunFolder, PathLike],
    output: Optional[PathLike] = None,
    *,
    check: Optional[PathLike] = None,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Path:
    """Evaluate a run and write all that is known about it into one HTML file, in the current language.

    Args:
        run: the run, or its folder.
        output: the file; None: ``report.html`` in the run.
        check: folder of a check of the data set; None: ``output/check-NAME``, where ``pplc check`` writes it.
        force: replace a file that is not a report.
        progress: called with the number of images evaluated and the total.

    Raises:
        PplcError: there is no run, its lists cannot be read, or the file cannot be written.
    """
    from jinja2 import Environment

    opened, _ = open_run(run, None)
    target = user_path(output) if output else opened.folder / "report.html"
    if target.is_dir():
        raise DataError(tr("{file} is a folder; expected a file for --output", file=target))
    if output and target.exists() and not force and not _is_report(target):
        raise DataError(tr("{file} exists and is no report; replace it with --force", file=target))
    measured = measure(opened, opened.config, progress=progress)
    info = load_info(opened.best, "model")
    page = {
        "language": "zh-CN" if current_language() == "zh" else "en",
        "title": tr("{name}: a classifier of {count} classes", name=opened.folder.name, count=len(measured.labels)),
        "subtitle": _subtitle(info),
        "facts": _facts(opened, info, measured),
        "sections": [
            section
            for section in (
                _data(opened, measured),
                _curves(opened),
                _classes(measured),
                _confusion(opened, measured),
                _mistakes(opened, measured),
                _reliability(measured),
                _thresholds(measured),
                _checked(opened, check),
                _speed(opened),
                _configuration(opened),
            )
            if section is not None
        ],
    }
    template = Environment(autoescape=True, trim_blocks=True).from_string(TEMPLATE.read_text("utf-8"))
    write_text(target, template.render(page))
    return target


def _is_report(file: Path) -> bool:
    try:
        return "<title>" in file.read_text("utf-8")[:400] and 'class="facts"' in file.read_text("utf-8")
    except (OSError, ValueError):
        return False


def _subtitle(info: dict[str, Any]) -> str:
    return tr(
        "{network}, best epoch {epoch}, trained with pplc {version}; report by pplc {now}",
        network=info.get("network", "?"),
        epoch=info.get("epoch", "?"),
        version=info.get("pplc", "?"),
        now=__version__,
    )


def _facts(run: Run, info: dict[str, Any], measured: Measurement) -> list[tuple[str, str]]:
    spec = find_network(str(info["network"]))
    seconds = sum(float(record.get("seconds", 0)) for record in run.history)
    size = (run.best / "model.safetensors").stat().st_size / 1e6
    return [
        (tr("right on the {part} list", part=measured.part), f"{measured.metrics['top1']:.1%}"),
        (tr("right on the validation list"), f"{float(info.get('val_top1', 0)):.1%}"),
        (tr("network"), spec.name),
        (tr("weights"), f"{size:.1f} MB"),
        (tr("training time"), tr("{minutes:.1f} min", minutes=seconds / 60)),
    ]


def _data(run: Run, measured: Measurement) -> Section:
    from pplc_cli.data.lists import count_by_class, read_part

    counts = {}
    for part in ("train", "val", "test"):
        try:
            samples = read_part(run.config.data, part, measured.labels)
        except PplcError:
            samples = None
        if samples is not None:
            counts[part] = count_by_class(samples, len(measured.labels))
    rows = [[label, *(str(counts[part][n]) for part in counts)] for n, label in enumerate(measured.labels[:CLASSES])]
    totals = [tr("all"), *(str(sum(counts[part])) for part in counts)]
    fingerprint = str(load_info(run.last, "model").get("fingerprint", "?")) if run.last.is_dir() else "?"
    return Section(
        tr("What it was trained on"),
        [tr("Images of {folder}, by class and list.", folder=run.config.data.dir), *_cut(measured.labels)],
        [[tr("class"), *counts], *rows, totals],
        code=fingerprint,
        summary=tr("SHA-256 of classes and lists"),
    )


def _cut(labels: list[str]) -> list[str]:
    if len(labels) <= CLASSES:
        return []
    return [tr("The first {count} of {all:,} classes are shown.", count=CLASSES, all=len(labels))]


def _curves(run: Run) -> Optional[Section]:
    if not run.curves.is_file():
        return None
    alt = tr("loss, accuracy and learning rate by epoch")
    return Section(tr("Training"), pictures=[{"data": _embedded(run.curves), "alt": alt, "narrow": False}])


def _classes(measured: Measurement) -> Section:
    metrics = measured.metrics
    rows = [
        [row["label"], *(f"{row[name]:.3f}" for name in ("precision", "recall", "f1")), str(row["support"])]
        for row in metrics["classes"][:CLASSES]
    ]
    top1 = accuracy_text(metrics["top1"], metrics["images"])
    return Section(
        tr("How often it is right"),
        [
            tr(
                "{top1} of the {images} images of the {part} list, which were not trained on.",
                top1=top1,
                images=metrics["images"],
                part=measured.part,
            ),
            *_cut(measured.labels),
        ],
        [[tr("class"), tr("precision"), tr("recall"), "F1", tr("images")], *rows],
    )


def _confusion(run: Run, measured: Measurement) -> Optional[Section]:
    from pplc_cli.plots.confusion import draw_confusion

    picture = _drawn(draw_confusion, measured.metrics["confusion_matrix"], measured.labels)
    if picture is None:
        return None
    alt = tr("confusion matrix")
    return Section(tr("What it takes for what"), pictures=[{"data": picture, "alt": alt, "narrow": True}])


def _mistakes(run: Run, measured: Measurement) -> Section:
    title = tr("The most confident mistakes")
    predicted, scores = measured.calibrated.probabilities.argmax(1), measured.calibrated.probabilities.max(1)
    wrong = [i for i in np.argsort(-scores, kind="stable") if predicted[i] != measured.calibrated.labels[i]]
    if not wrong:
        return Section(title, [tr("There are none.")])
    explainer = Explainer(run)
    tiles = []
    for index in wrong[:MISTAKES]:
        sample = measured.samples[index]
        try:
            found = explainer.explain(sample.path)
        except PplcError:
            continue
        answer, right = measured.labels[predicted[index]], measured.labels[sample.label]
        tiles.append(
            {
                "image": _jpeg(found.image),
                "heat": _jpeg(overlay(found.image, found.heat)),
                "name": sample.name,
                "caption": tr(
                    "{answer} ({score:.0%}), labelled {right}", answer=answer, score=scores[index], right=right
                ),
                "alt": tr("what speaks for {label}", label=answer),
            }
        )
    text = tr(
        "{shown} of {count} mistakes; bright places speak for the wrong answer (LayerCAM).",
        shown=len(tiles),
        count=len(wrong),
    )
    return Section(title, [text], tiles=tiles)


def _reliability(measured: Measurement) -> Optional[Section]:
    from pplc_cli.plots.reliability import draw_reliability
    from pplc_cli.training.evaluation.metrics import reliability

    calibration = measured.metrics["calibration"]
    after = reliability(measured.calibrated) if calibration else None
    picture = _drawn(draw_reliability, reliability(measured.scores), after)
    if picture is None:
        return None
    texts = [
        tr(
            "Of the answers with a score of 80 %, four out of five should be right. Expected calibration error: "
            "{error:.3f}.",
            error=measured.metrics["calibration_error"],
        )
    ]
    if calibration:
        texts.append(
            tr(
                "pplc predict shows calibrated scores: with the temperature {temperature:.2f}, fitted on {images} "
                "validation images, the error is {error:.3f}.",
                temperature=calibration["temperature"],
                images=calibration["images"],
                error=calibration["calibration_error"],
            )
        )
    alt = tr("reliability diagram")
    return Section(tr("How sure it may be"), texts, pictures=[{"data": picture, "alt": alt, "narrow": True}])


def _thresholds(measured: Measurement) -> Section:
    predicted, scores = measured.calibrated.probabilities.argmax(1), measured.calibrated.probabilities.max(1)
    right = predicted == measured.calibrated.labels
    rows = [[tr("least score"), tr("answered"), tr("of these right"), tr("right answers of all images")]]
    for threshold in THRESHOLDS:
        kept = scores >= threshold
        share = f"{right[kept].mean():.1%}" if kept.any() else "–"
        rows.append([f"{threshold:.0%}", f"{kept.mean():.1%}", share, f"{(right & kept).mean():.1%}"])
    text = tr("What remains if answers with a lower score are left to people (pplc predict --min-score).")
    return Section(tr("Where to set a threshold"), [text], rows)


def _checked(run: Run, folder: Optional[PathLike]) -> Section:
    title = tr("What the check of the data found")
    name = user_path(run.config.data.dir).resolve().name
    place = user_path(folder) if folder else Path("output") / f"check-{name}"
    try:
        content = json.loads((place / REPORT).read_text("utf-8"))
        findings = [Finding(**one) for one in content.pop("findings")]
        report = CheckReport(**content, findings=findings)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        if folder:
            raise DataError(tr("{folder}: holds no check; expected a folder of pplc check", folder=place)) from None
        return Section(title, [tr("The data set was not checked; pplc check does that.")])
    rows = [[titles()[kind], str(len(report.of_kind(kind)))] for kind in titles() if report.of_kind(kind)]
    if not rows:
        return Section(title, [tr("Nothing suspicious was found.")])
    return Section(title, table=[[tr("finding"), tr("images")], *rows])


def _speed(run: Run) -> Section:
    title = tr("How fast it is")
    try:
        choice = choose_fastest(exported_folder(run), batch_size=1)
    except PplcError as error:
        return Section(title, [str(error)])
    rows = [[tr("engine"), tr("ms for one image"), tr("images/s in batches")]]
    rows += [
        [one.engine, f"{one.latency:.1f}", f"{one.rate:.0f}"]
        for one in choice.measured
        if one.latency is not None and one.rate is not None and one.reason is None
    ]
    text = tr("The network alone, without decoding, on {cpu}.", cpu=cpu_info().get("model name", platform.machine()))
    return Section(title, [text], rows)


def _configuration(run: Run) -> Section:
    import paddle

    versions = tr(
        "pplc {pplc}, PaddlePaddle {paddle}, Python {python}, {system}",
        pplc=__version__,
        paddle=paddle.__version__,
        python=platform.python_version(),
        system=platform.system(),
    )
    text = run.config_file.read_text("utf-8")
    return Section(tr("How it was made"), [versions], code=text, summary=tr("configuration"))


def _drawn(draw: Any, *args: Any) -> Optional[str]:
    """The picture of a drawing function as a data URL; None if it cannot be drawn."""
    with tempfile.TemporaryDirectory(prefix="pplc-") as folder:
        file = Path(folder) / "picture.png"
        try:
            draw(file, *args)
        except DrawError:
            return None
        return _embedded(file)


def _embedded(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()


def _jpeg(image: np.ndarray) -> str:
    """An image, uint8 RGB (H, W, 3), as a data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg_bytes(image, 82)).decode()
