"""models, profile and compare: counts, times, findings."""

from __future__ import annotations

import json
import math

import pytest

from pplc_cli.base.errors import ModelError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.benchmark.design_rules import check
from pplc_cli.benchmark.disturbance import Disturbance
from pplc_cli.benchmark.macs import count_params_and_macs
from pplc_cli.benchmark.operations import Operation, operations
from pplc_cli.benchmark.profile import Profile, profile
from pplc_cli.benchmark.targets import find_network_target
from pplc_cli.models.catalog import COUNTS, list_networks
from pplc_cli.models.registry import build_network, network_names

paddle = load_paddle()
nn = paddle.nn

IN_SHORT = ["PPLCNet_x0_25", "PPLCNetV2_small", "FasterNet_T0", "ShuffleNetV2_x1_0"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in IN_SHORT else pytest.mark.slow) for name in network_names()]
)
def test_counts_of_the_graph_equal_counts_of_the_layers(name):
    """Two ways to count: calls of layers, and the static graph that inference runs."""
    network = build_network(name, 1000)
    _, found = operations(network)
    assert (sum(op.params for op in found), sum(op.macs for op in found)) == count_params_and_macs(network, "trainable")
    assert found[0].given == [(1, 3, 224, 224)] and found[-1].made == (1, 1000)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in IN_SHORT else pytest.mark.slow) for name in network_names()]
)
def test_the_catalog_has_the_counts_of_the_networks(name):
    from scripts.count_networks import counts

    assert json.loads(COUNTS.read_text(encoding="utf-8"))[name] == counts(name)


def test_an_operations_cost_by_hand():
    network = nn.Sequential(nn.Conv2D(3, 8, 3, 2, 1, bias_attr=False), nn.BatchNorm2D(8), nn.ReLU(), nn.Conv2D(8, 6, 1))
    _, (first, second) = operations(network, (10, 12), batch=2)
    assert (first.name, first.kind, first.fused) == ("0", "conv2d", ["batch_norm", "relu"])
    assert (first.given, first.made, first.stride) == ([(2, 3, 10, 12)], (2, 8, 5, 6), (2, 2))
    assert (first.params, first.macs) == (8 * 27 + 16, 2 * 8 * 30 * 27)
    assert (first.read, first.written) == (4 * (2 * 3 * 120 + 8 * 27), 4 * 2 * 8 * 30)
    assert (second.name, second.params, second.macs) == ("3", 6 * 8 + 6, 2 * 6 * 30 * 8)
    assert math.isclose(second.intensity, second.macs / (second.read + second.written))


class Branches(nn.Layer):  # type: ignore[name-defined]
    """A concatenation, a shortcut, and squeeze-and-excite on large images."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2D(3, 16, 5, padding=2)
        self.deep = nn.Conv2D(16, 16, 5, padding=2, groups=16)
        self.gate = nn.Conv2D(16, 16, 1)
        self.wide = nn.Conv2D(32, 4, 1)
        self.grouped = nn.Conv2D(4, 64, 3, padding=1, groups=4)
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.fc = nn.Linear(64, 3)

    def forward(self, x):
        x = self.stem(x)
        y = self.deep(x) * nn.functional.sigmoid(self.gate(self.pool(x)))
        x = paddle.concat([x, y], axis=1)
        return self.fc(self.pool(self.grouped(self.wide(x))).flatten(1))


def test_names_do_not_depend_on_networks_traced_before():
    expected = ["stem", "pool", "gate", "deep", "multiply", "concat", "wide", "grouped", "pool", "flatten", "fc"]
    for _ in range(3):
        _, found = operations(Branches(), (32, 32))
        assert sorted(op.name.partition(" after ")[0] for op in found) == sorted(expected)
        assert next(op.name for op in found if op.kind == "multiply").startswith("multiply after ")


def test_times_belong_to_their_operations():
    found = profile(Branches(), "Branches", size=(64, 48), threads=1)
    by_name = {op.name: op for op in found.operations}
    for name in ("stem", "deep", "gate", "wide", "grouped", "pool", "fc"):
        assert by_name[name].milliseconds is not None, name
    spent = sum(op.milliseconds or 0 for op in found.operations) + sum(found.other.values())
    assert spent > 0 and found.overhead == max(0.0, found.milliseconds - spent)
    found.disturbance = Disturbance()  # whatever else this machine does
    rules = {finding.rule for finding in check(found)}
    assert {"large kernels late", "squeeze-and-excite late"} <= rules
    content = json.loads(json.dumps(found.to_dict()))
    assert content["macs"] == found.macs and len(content["operations"]) == len(found.operations)


def profile_of(*ops, milliseconds=10.0):
    return Profile("made up", (224, 224), 1, 1, list(ops), {}, milliseconds)


def pointwise(inputs, outputs, side, ms, groups=1):
    weight = (outputs, inputs // groups, 1, 1)
    macs = outputs * side * side * inputs // groups
    size = 4 * side * side
    op = Operation("layer", "conv2d", [(1, inputs, side, side)], (1, outputs, side, side), weight=weight, groups=groups)
    op.macs, op.read, op.written, op.milliseconds = macs, size * inputs, size * outputs, ms
    return op


def test_each_rule_finds_only_its_own_case():
    assert check(profile_of(pointwise(64, 64, 14, 5.0))) == []
    (uneven,) = check(profile_of(pointwise(16, 256, 28, 5.0)))
    assert uneven.rule == "equal channels" and uneven.milliseconds == 5.0 and uneven.share == 0.5
    assert check(profile_of(pointwise(16, 256, 28, 0.1))) == []  # too little time to matter
    (groups,) = check(profile_of(pointwise(64, 64, 14, 5.0, groups=4)))
    assert groups.rule == "group convolution"
    add = Operation("sum", "add", [(1, 8, 9, 9)] * 2, (1, 8, 9, 9), milliseconds=2.0)
    (element,) = check(profile_of(pointwise(64, 64, 14, 5.0), add))
    assert element.rule == "element-wise operations" and element.layer == "sum"
    (slow,) = check(profile_of(pointwise(64, 64, 14, 0.5), pointwise(64, 64, 14, 5.0)))
    assert slow.rule == "achieved rate" and slow.milliseconds == 5.0
    assert {f.rule for f in check(profile_of(*[pointwise(8, 8, 14, 0.01)] * 30))} == {"fragmentation"}
    assert {f.rule for f in check(profile_of(*[pointwise(64, 64, 14, 0.1)] * 70))} == {"depth"}


def test_a_users_own_file(tmp_path):
    file = tmp_path / "我的 net.py"
    head = "import paddle\nfrom paddle import nn\n"
    body = "class {0}(nn.Layer):\n    def __init__(self):\n        super().__init__()\n        {1}\n"
    forward = "    def forward(self, x):\n        return self.conv(x)\n"
    one = body.format("One", "self.conv = nn.Conv2D(3, 4, 3)") + forward
    file.write_text(head + one, encoding="utf-8")
    name, network = find_network_target(str(file))
    assert name == "One" and profile(network, name, size=(32, 32)).operations[0].made == (1, 4, 30, 30)
    file.write_text(head + one + body.format("Two", "1 / 0"), encoding="utf-8")
    with pytest.raises(ModelError, match=r"2 networks: name one, as in .*:Two"):
        find_network_target(str(file))
    assert find_network_target(f"{file}:One")[0] == "One"
    with pytest.raises(ModelError, match=r"Two\(\) fails: line 12: ZeroDivisionError"):
        find_network_target(f"{file}:Two")
    with pytest.raises(ModelError, match=r"no network 'Three'; it has One, Two"):
        find_network_target(f"{file}:Three")
    file.write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"line 1: NameError"):
        find_network_target(str(file))
    with pytest.raises(ModelError, match="no such file"):
        find_network_target(str(tmp_path / "none.py"))
    with pytest.raises(ModelError, match=r"unknown network 'PPLCNet_x9'.*or name a run's folder or a Python file"):
        find_network_target("PPLCNet_x9")


def test_a_network_without_a_static_graph_is_an_error():
    with pytest.raises(ModelError, match="cannot be converted to a static graph"):
        profile(nn.Linear(7, 3), "wrong", size=(32, 32))


@pytest.mark.slow
def test_commands(pplc, trained):
    listed = json.loads(pplc("models", "--json").stdout)
    assert [each["name"] for each in listed] == network_names()
    assert {"name", "params", "macs", "top1", "source", "cached"} <= set(listed[0])
    assert "PPLCNet_x0_25" in pplc("models", "lcnet", "--max-params", "1.6").stdout
    run = str(trained.folder / trained.run)
    content = json.loads(pplc("profile", run, "--size", "32", "--threads", "1", "--json").stdout)
    assert content["threads"] == 1 and content["operations"][0]["name"] == "conv1.conv"
    shown = pplc("profile", "PPLCNet_x0_25", "--size", "64", "--output", "a b.png").stdout
    assert "blocks6.1.se" in shown and "a b.png written" in shown
    found = json.loads(
        pplc("compare", run, "PPLCNet_x0_5", "--size", "32", "--rounds", "1", "--output", "c.png", "--json").stdout
    )
    assert found[0]["source"].startswith("validation list") and found[1]["top1"] == 63.14
    assert all(each["latency"] > 0 and each["images_per_second"] > 0 for each in found)
    for name in ("a b.png", "c.png"):
        assert (pplc.cwd / name).read_bytes().startswith(b"\x89PNG")
    wrong = pplc("compare", "PPLCNet_x0_5", "nothing", check=False)
    assert wrong.returncode == 1 and "unknown network 'nothing'" in wrong.stderr and "Traceback" not in wrong.stderr


def test_filters():
    small = list_networks(max_params=2, max_macs=100)
    assert small and all(each.params <= 2e6 and each.macs <= 100e6 for each in small)
    good = list_networks(["fasternet", "resnet"], min_top1=76.5)
    assert [each.name for each in good] == ["FasterNet_T2", "FasterNet_S", "FasterNet_M", "FasterNet_L", "ResNet50"]
    assert list_networks(["nothing"]) == []


@pytest.mark.slow
def test_a_comparison_reports_each_network():
    from pplc_cli.benchmark.compare import compare

    found = compare(["PPLCNet_x0_25", "PPLCNet_x0_5"], size=(96, 96), batch=4, rounds=2)
    assert [each.name for each in found] == ["PPLCNet_x0_25", "PPLCNet_x0_5"]
    for each in found:
        assert (each.params, each.macs) == count_params_and_macs(build_network(each.name, 1000), size=(96, 96))
        low, high = each.quartiles
        assert 0 < low <= each.latency <= high and each.images_per_second > 0
