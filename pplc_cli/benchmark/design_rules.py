"""The design rules for light networks on CPUs, checked against a profile.

Ma et al., 2018, arXiv:1807.11164 (ShuffleNetV2's four guidelines); Cui et al., 2021, arXiv:2109.15099 (where squeeze
-and-excite and large kernels belong); Gholami et al., 2018, arXiv:1803.10615, and Chen et al., 2023, arXiv:2303.03667
(what counts is the rate that is reached). A finding is no fault by itself: it says where the time is and what to try.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from pplc_cli.benchmark.operations import Operation
from pplc_cli.benchmark.profile import Profile

SHARE = 0.03  # of the whole time: cheaper layers are not worth a change
UNEVEN = 0.1  # more memory access than an even 1 x 1 convolution of the same multiply-adds has
ELEMENT_WISE = 0.10  # share of the time
EARLY = 1 / 16  # of the image's side: PP-LCNet's 14 x 14 at 224, from where on large kernels and SE pay
DEPTH = 60  # layers with weights one after another
SMALL_MS = 0.02  # about what starting an operation costs
SLOW = 0.25  # of the best rate in the network


@dataclasses.dataclass(frozen=True)
class Finding:
    """A rule that a network breaks, and what it costs.

    Attributes:
        rule: its name.
        layer: where; empty where the network as a whole is meant.
        milliseconds: measured cost of what is meant.
        share: of the network's time.
        text: what was seen.
        advice: what to try.
    """

    rule: str
    layer: str
    milliseconds: float
    share: float
    text: str
    advice: str


def check(profile: Profile) -> list[Finding]:
    """All findings, the dearest first."""
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
                "equal channels",
                [op],
                op.name,
                f"a 1 x 1 convolution from {inputs} to {outputs} channels moves {extra:.0%} more memory than an even "
                "one of the same multiply-adds",
                f"about {even:.0f} channels on both sides, or change the width where images are smaller",
            )


def _group_convolution(profile: Profile) -> Iterator[Finding]:
    for op in profile.operations:
        if op.kind == "conv2d" and op.groups > 1 and _costs(profile, op):
            yield _finding(
                profile,
                "group convolution",
                [op],
                op.name,
                f"{op.groups} groups: {op.intensity:.1f} multiply-adds a byte",
                "fewer groups, or a depthwise convolution with a pointwise one",
            )


def _element_wise(profile: Profile) -> Iterator[Finding]:
    alone = [op for op in profile.operations if op.weight is None and op.kind not in ("pool2d", "flatten")]
    spent = sum(op.milliseconds or 0 for op in alone)
    if spent > ELEMENT_WISE * profile.milliseconds:
        dearest = max(alone, key=lambda op: op.milliseconds or 0)
        kinds = sorted({op.kind for op in alone if op.milliseconds})
        yield _finding(
            profile,
            "element-wise operations",
            alone,
            dearest.name,
            f"{len([op for op in alone if op.milliseconds])} operations without weights ({', '.join(kinds)}) run by "
            "themselves, this the dearest",
            "fewer shortcuts, splits and concatenations, or where images are smaller",
        )


def _fragmentation(profile: Profile) -> Iterator[Finding]:
    small = [op for op in profile.operations if op.milliseconds is not None and op.milliseconds < SMALL_MS]
    timed = [op for op in profile.operations if op.milliseconds is not None]
    if len(timed) > 20 and len(small) > len(timed) / 2:
        yield _finding(
            profile,
            "fragmentation",
            small,
            "",
            f"{len(small)} of {len(timed)} operations take less than {SMALL_MS * 1e3:.0f} microseconds each, about "
            f"what starting one costs; {profile.overhead:.2f} ms pass outside the operations",
            "fewer and heavier layers; larger batches where images come in numbers",
        )


def _depth(profile: Profile) -> Iterator[Finding]:
    weighted = [op for op in profile.operations if op.weight is not None and math.prod(op.made[2:]) > 1]
    if len(weighted) > DEPTH:
        yield _finding(
            profile,
            "depth",
            weighted,
            "",
            f"{len(weighted)} convolutions one after another; PPLCNet_x1_0 has 27",
            "fewer and wider layers: they use several cores better",
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
                "large kernels late",
                [op],
                op.name,
                f"a {op.weight[2]} x {op.weight[3]} kernel on {op.given[0][2]} x {op.given[0][3]} pixels",
                f"3 x 3 here, 5 x 5 from {round(limit)} x {round(limit)} on",
            )
        if op.kind == "multiply" and len(op.given) > 1 and math.prod(op.given[1][2:]) == 1:
            yield _finding(
                profile,
                "squeeze-and-excite late",
                [op],
                op.name,
                f"squeeze-and-excite on {op.given[0][2]} x {op.given[0][3]} pixels reads and writes them once more",
                "only in the last blocks, where it gains as much",
            )


def _low_rate(profile: Profile) -> Iterator[Finding]:
    rates = [op.gflops for op in profile.operations if op.gflops and op.kind != "matmul" and math.prod(op.made[2:]) > 1]
    for op in profile.operations:
        slow = op.gflops and op.kind != "matmul" and op.gflops < SLOW * max(rates)  # the classifier is what it is
        if slow and _costs(profile, op):
            yield _finding(
                profile,
                "achieved rate",
                [op],
                op.name,
                f"{op.gflops:.0f} GFLOP/s, where {max(rates):.0f} are reached elsewhere in this network "
                f"({op.intensity:.1f} multiply-adds a byte)",
                "FLOPs are not time: a layer of fewer bytes or of more FLOPs may cost the same or less",
            )


_RULES = (_uneven_channels, _group_convolution, _element_wise, _fragmentation, _depth, _too_early, _low_rate)
