"""Check a profile against published design rules for light networks on CPUs.

The rules come from Ma et al., 2018, arXiv:1807.11164 (the four guidelines of ShuffleNetV2), Cui et al., 2021,
arXiv:2109.15099 (where to put squeeze-and-excite and large kernels), and Gholami et al., 2018, arXiv:1803.10615, and
Chen et al., 2023, arXiv:2303.03667 (achieved rate instead of FLOPs). A finding is not an error: it shows where the time
is spent and suggests a change.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from pplc_cli.base.language.messages import marked, tr
from pplc_cli.benchmark.operations import Operation
from pplc_cli.benchmark.profile import Profile

SHARE = 0.03  # of the network's time: cheaper layers are not worth a change
UNEVEN = 0.1  # extra memory access compared with a 1 x 1 convolution of equal channels and equal multiply-adds
ELEMENT_WISE = 0.10  # of the network's time
EARLY = 1 / 16  # of the image's side, 14 x 14 at 224: PP-LCNet has no large kernels and no SE above it
DEPTH = 60  # convolutions
SMALL_MS = 0.02  # about the cost of starting an operation
SLOW = 0.25  # of the highest rate in the network


@dataclasses.dataclass(frozen=True)
class Finding:
    """A rule that a network breaks, and the time of the layers concerned.

    Attributes:
        rule: name of the rule, in English; :func:`pplc_cli.base.language.messages.tr` translates it.
        layer: name of the layer; empty if the finding concerns the whole network.
        milliseconds: measured time of the layers concerned.
        share: that time as a share of the network's time.
        text: the observation.
        advice: a change to try.
    """

    rule: str
    layer: str
    milliseconds: float
    share: float
    text: str
    advice: str


def check(profile: Profile) -> list[Finding]:
    """Apply all rules; the findings that cost the most time come first. Disturbed times allow no findings."""
    if profile.disturbance.disturbed:
        return []
    found = [finding for rule in _RULES for finding in rule(profile)]
    return sorted(found, key=lambda finding: -finding.milliseconds)


def _finding(profile: Profile, rule: str, layers: list[Operation], name: str, text: str, advice: str) -> Finding:
    spent = sum(layer.milliseconds or 0 for layer in layers)
    return Finding(rule, name, spent, spent / profile.milliseconds, text, advice)


def _costs(profile: Profile, operation: Operation) -> bool:
    return (operation.milliseconds or 0) > SHARE * profile.milliseconds


def _uneven_channels(profile: Profile) -> Iterator[Finding]:
    for op in profile.operations:
        if op.kind != "conv2d" or op.weight is None or op.weight[2:] != (1, 1) or math.prod(op.made[2:]) == 1:
            continue
        inputs, outputs = op.given[0][1], op.made[1]
        even, pixels = math.sqrt(inputs * outputs), math.prod(op.made[2:])
        extra = (pixels * (inputs + outputs) + inputs * outputs) / (pixels * 2 * even + inputs * outputs) - 1
        if extra > UNEVEN and _costs(profile, op):
            yield _finding(
                profile,
                marked("equal channels"),
                [op],
                op.name,
                tr(
                    "a 1 x 1 convolution from {inputs} to {outputs} channels moves {extra:.0%} more bytes than one "
                    "with equal channels and the same multiply-adds",
                    inputs=inputs,
                    outputs=outputs,
                    extra=extra,
                ),
                tr(
                    "use about {channels:.0f} channels on both sides, or change the width at a lower resolution",
                    channels=even,
                ),
            )


def _group_convolution(profile: Profile) -> Iterator[Finding]:
    for op in profile.operations:
        if op.kind == "conv2d" and op.groups > 1 and _costs(profile, op):
            yield _finding(
                profile,
                marked("group convolution"),
                [op],
                op.name,
                tr("{groups} groups: {rate:.1f} multiply-adds per byte", groups=op.groups, rate=op.intensity),
                tr("use fewer groups, or a depthwise and a pointwise convolution"),
            )


def _element_wise(profile: Profile) -> Iterator[Finding]:
    alone = [op for op in profile.operations if op.weight is None and op.kind not in ("pool2d", "flatten")]
    spent = sum(op.milliseconds or 0 for op in alone)
    if spent > ELEMENT_WISE * profile.milliseconds:
        costliest = max(alone, key=lambda op: op.milliseconds or 0)
        kinds = sorted({op.kind for op in alone if op.milliseconds})
        yield _finding(
            profile,
            marked("element-wise operations"),
            alone,
            costliest.name,
            tr(
                "{count} operations without weights ({kinds}) run on their own; this one takes the most time",
                count=len([op for op in alone if op.milliseconds]),
                kinds=", ".join(kinds),
            ),
            tr("use fewer shortcuts, splits and concatenations, or use them at a lower resolution"),
        )


def _fragmentation(profile: Profile) -> Iterator[Finding]:
    small = [op for op in profile.operations if op.milliseconds is not None and op.milliseconds < SMALL_MS]
    timed = [op for op in profile.operations if op.milliseconds is not None]
    if len(timed) > 20 and len(small) > len(timed) / 2:
        yield _finding(
            profile,
            marked("fragmentation"),
            small,
            "",
            tr(
                "{count} of {total} operations take less than {limit:.0f} microseconds each, about the cost of "
                "starting one; {overhead:.2f} ms are spent outside the operations",
                count=len(small),
                total=len(timed),
                limit=SMALL_MS * 1e3,
                overhead=profile.overhead,
            ),
            tr("use fewer and larger layers, or larger batches if many images come at once"),
        )


def _depth(profile: Profile) -> Iterator[Finding]:
    weighted = [op for op in profile.operations if op.weight is not None and math.prod(op.made[2:]) > 1]
    if len(weighted) > DEPTH:
        yield _finding(
            profile,
            marked("depth"),
            weighted,
            "",
            tr("{count} convolutions; PPLCNet_x1_0 has 27", count=len(weighted)),
            tr("use fewer and wider layers: they use several cores better"),
        )


def _too_early(profile: Profile) -> Iterator[Finding]:
    limit = max(7.0, EARLY * max(profile.size))
    for op in profile.operations:
        early = len(op.made) == 4 and max(op.given[0][2:]) > 1.1 * limit
        if not early or not op.milliseconds:
            continue
        if op.kind == "depthwise_conv2d" and op.weight is not None and max(op.weight[2:]) >= 5:
            yield _finding(
                profile,
                marked("large kernels late"),
                [op],
                op.name,
                tr(
                    "a {rows} x {columns} kernel on {height} x {width} pixels",
                    rows=op.weight[2],
                    columns=op.weight[3],
                    height=op.given[0][2],
                    width=op.given[0][3],
                ),
                tr("use 3 x 3 here, and 5 x 5 from {side} x {side} on", side=round(limit)),
            )
        if op.kind == "multiply" and len(op.given) > 1 and math.prod(op.given[1][2:]) == 1:
            yield _finding(
                profile,
                marked("squeeze-and-excite late"),
                [op],
                op.name,
                tr(
                    "squeeze-and-excite on {height} x {width} pixels reads and writes them once more",
                    height=op.given[0][2],
                    width=op.given[0][3],
                ),
                tr("use it only in the last blocks, where it improves accuracy as much"),
            )


def _low_rate(profile: Profile) -> Iterator[Finding]:
    rates = [op.gflops for op in profile.operations if op.gflops and op.kind != "matmul" and math.prod(op.made[2:]) > 1]
    for op in profile.operations:
        slow = op.gflops and op.kind != "matmul" and op.gflops < SLOW * max(rates)  # a classifier cannot be avoided
        if slow and _costs(profile, op):
            yield _finding(
                profile,
                marked("achieved rate"),
                [op],
                op.name,
                tr(
                    "{rate:.0f} GFLOP/s; other layers of this network reach {highest:.0f} ({intensity:.1f} "
                    "multiply-adds per byte)",
                    rate=op.gflops,
                    highest=max(rates),
                    intensity=op.intensity,
                ),
                tr("reduce the bytes it moves rather than its multiply-adds: memory limits this layer, not arithmetic"),
            )


_RULES = (_uneven_channels, _group_convolution, _element_wise, _fragmentation, _depth, _too_early, _low_rate)
