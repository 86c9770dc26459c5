"""Every table fits a narrow terminal: no line is too long, no cell is cut."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from pplc_cli.benchmark.bench import BenchFailure, BenchResult, Measurement
from pplc_cli.benchmark.compare import ComparedNetwork
from pplc_cli.benchmark.disturbance import Disturbance
from pplc_cli.benchmark.operations import Operation
from pplc_cli.benchmark.profile import Profile
from pplc_cli.benchmark.roofline import LowerBound, NetworkCost, PeakRates
from pplc_cli.cli.console import results, tables, weights
from pplc_cli.data.split import SplitReport
from pplc_cli.models.catalog import list_networks
from pplc_cli.models.weights.inventory import inventory
from pplc_cli.training.distill.pseudo_labels import Labelled, Labelling
from pplc_cli.training.evaluation.evaluate import Evaluation

NAMES = ["cat", "a class with a long name, longer than many a terminal is wide, as folders may have", "大熊猫" * 12]
IDLE, BUSY = Disturbance(), Disturbance(1.5, 0.6, True)


def operation(name: str, kind: str, weight: tuple[int, ...], milliseconds: float) -> Operation:
    shape = (1, weight[0], 112, 112)
    return Operation(
        name, kind, [shape], shape, ["batch_norm", "hardswish"], weight, (2, 2), 1, 123_456, 98_765_432, 1_234_567,
        7_654_321, milliseconds,
    )  # fmt: skip


def profile(disturbance: Disturbance = IDLE) -> Profile:
    ops = [
        operation("blocks6.0.dw_conv.conv", "depthwise_conv2d", (512, 1, 5, 5), 1.5),
        operation("stages.2.blocks.1.spatial_mixing.partial_conv3", "conv2d", (64, 64, 3, 3), 2.5),
    ]
    return Profile("SqueezeNext_1_0_23v5", (224, 224), 1, 2, ops, {"reorder": 0.25}, 5.0, disturbance)


def bench() -> BenchResult:
    def measured(engine: str, precision: str, batch: int) -> Measurement:
        return Measurement(
            "PPLCNet_x1_0", engine, precision, 2, batch, 1234, 123.45, 150.0, 199.99, 1234.5, 12.34, 1e-7
        )

    machine = {"cpu": "a CPU", "cores": 2, "caches": {"L2": 1 << 20}, "system": "Linux", "versions": {"numpy": "2.0"},
               "instruction_set": "avx2"}  # fmt: skip
    cost = NetworkCost(155_700_480, 11_000_000, 20_000_000)
    rows = [measured(e, p, b) for e in ("onnxruntime", "openvino") for p in ("float32", "bfloat16") for b in (1, 16)]
    floors = [LowerBound("PPLCNet_x1_0", 2, 1, cost, 1.25, 2.5)]
    failed = [BenchFailure("PPLCNet_x1_0", "paddlex", "int8", 2, "it has no such precision")]
    return BenchResult(machine, 5, 1.0, [PeakRates(2, 100.0, 20.0)], floors, rows, failed, BUSY)


def comparison() -> list[ComparedNetwork]:
    one = ComparedNetwork("MobileNetV3_small_x1_0", 2_540_000, 56_500_000, 1000, 12.34, (11.0, 13.0), 1234.0)
    source = "PaddleClas, docs/zh_CN/models/ImageNet1k/PP-LCNet.md"
    other = ComparedNetwork("PPLCNet_x1_0", 2_952_520, 155_700_480, 1000, 2.5, (2.0, 3.0), 500.0, 71.32, source)
    own = "the folder of a run, 大熊猫"
    run = ComparedNetwork(own, 1_674_082, 154_423_040, 2, 2.5, (2.0, 3.0), 500.0, 96.0, "validation list", True, 24)
    return [one, other, run]


def evaluation() -> Evaluation:
    row = {"precision": 0.5, "recall": 1 / 3, "f1": 0.4}
    metrics = {
        "classes": [{**row, "label": name, "support": 12_345} for name in NAMES], "macro": row, "images": 37_035,
        "top1": 0.5, "top5": None, "calibration_error": 0.1, "unusable": [], "calibration": None,
    }  # fmt: skip
    return Evaluation("a folder", metrics, Path())


def split_report() -> SplitReport:
    counts = {part: [12_345] * len(NAMES) for part in ("train", "val", "test")}
    return SplitReport(
        labels=NAMES,
        counts=counts,
        files=[],
        left_out={},
        relabelled=0,
        notes={},
        duplicates=0,
        conflicts=[],
        leaks=[],
        parts={},
    )


def labelling() -> Labelling:
    kept = [Labelled(Path("a.jpg"), label, 0.99) for label in range(len(NAMES))]
    return Labelling(Path("list.txt"), NAMES, kept, [123_456] * len(NAMES), [0] * len(NAMES), 0, [], [])


# Each table, with texts that must be in it at every width, whole or folded.
TABLES: dict[str, tuple[Callable[[], object], list[str]]] = {
    "models": (lambda: tables.print_models(list_networks(), False), ["PPLCNetV2_large", "1082.1", "78.51"]),
    "profile": (lambda: tables.print_profile(profile(), [], False), ["depthwise 5x5 s2 +hardswish", "0.250", "15.0"]),
    "compare": (lambda: tables.print_comparison(comparison(), 16, False), ["71.32%", "155.7", "2.50"]),
    "bench": (lambda: tables.print_bench(bench(), False), ["onnxruntime", "bfloat16", "123.45"]),
    "weights": (lambda: weights.print_list(inventory(), Path("cache"), False), ["imagenet_ssld", "builtin", "in pplc"]),
    "eval": (lambda: results.print_evaluation(evaluation(), False), [*NAMES, "0.333", "37035"]),
    "split": (lambda: results.print_split("set", split_report()), [*NAMES, "37035"]),
    "label": (lambda: results.print_labelling(labelling()), [*NAMES, "123,456"]),
}


def printed(table: Callable[[], object]) -> list[str]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        table()
    return out.getvalue().splitlines()


def cells(lines: list[str]) -> Iterator[str]:
    """The cells of a table, the lines of a folded one joined without spaces."""
    parts: list[str] = []
    for line in [*lines, ""]:
        if line.startswith("│"):
            row = ["".join(cell.split()) for cell in line.split("│")[1:-1]]
            if parts and not row[-1]:  # numbers, in the last column, are never folded
                parts = [before + more for before, more in zip(parts, row)]
                continue
            yield from parts
            parts = row
        else:
            yield from parts
            parts = []


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("name", TABLES)
def test_tables_fit(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    table, texts = TABLES[name]
    lines = printed(table)
    drawn = [line for line in lines if line[:1] in "┏┃┡│├└"]
    assert drawn and max(map(cell_len, drawn)) <= width
    found = list(cells(drawn))
    assert not [cell for cell in found if "…" in cell]
    for text in texts:
        assert any("".join(text.split()) in cell for cell in found), text
    missing = [line for line in lines if line.startswith("Not shown at this width: ")]
    assert len(missing) <= 1 and (not missing or width < 200)


def test_a_pipe_is_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = printed(TABLES["profile"][0])
    assert not any("Not shown" in line for line in lines) and any("MB written" in line for line in lines)


def test_disturbed_figures_come_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_profile(profile(BUSY), [], False)
    out, err = capsys.readouterr()
    assert "1.5 CPUs busy" in err and "differ by 60%" in err and "do not use these times" in err
    assert "design rules" not in out
    tables.print_profile(profile(), [], False)
    out, err = capsys.readouterr()
    assert not err and "The design rules find nothing to improve." in out


def test_shares_sum_to_the_whole() -> None:
    found = profile()
    parts = [op.milliseconds or 0 for op in found.operations] + [spent for _, spent in found.rest()]
    assert sum(parts) == pytest.approx(found.accounted) == pytest.approx(5.0)
    found.milliseconds = 3.0  # operations that took longer while they were timed one by one
    assert sum(row["share"] for row in found.to_dict()["operations"]) == pytest.approx(4.0 / 4.25)
