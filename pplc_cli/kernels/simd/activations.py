"""Activations and their derivatives, for one vector."""

from __future__ import annotations

import numpy as np

from pplc_cli.kernels.simd.vector import (
    fma,
    kernel,
    maximum,
    minimum,
    nearest,
    power_of_two,
    splat,
    where_less,
)

IDENTITY, RELU, HARDSWISH, RELU6, HARDSIGMOID, SIGMOID, SWISH, GELU = range(8)

_f = np.float32
_LOG2E, _LN2 = _f(1.4426950408889634), _f(0.6931471805599453)
_SIXTH, _HALF_ROOT, _INVERSE_ROOT_2PI = _f(1 / 6), _f(0.7071067811865476), _f(0.3989422804014327)
# Taylor series of exp; the argument is at most ln(2) / 2, so the next term is below 1e-7 of the value.
_EXP = tuple(_f(1 / d) for d in (720, 120, 24, 6, 2))
# Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: |error| of erf below 1.5e-7.
_ERF_P, _ERF = _f(0.3275911), tuple(_f(a) for a in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592))


@kernel
def _exp(x):  # type: ignore[no-untyped-def]
    x = minimum(splat(_f(88)), maximum(splat(_f(-87)), x))
    whole = nearest(x * splat(_LOG2E))
    rest = fma(whole, splat(-_LN2), x)
    value = splat(_EXP[0])
    value = fma(value, rest, splat(_EXP[1]))
    value = fma(value, rest, splat(_EXP[2]))
    value = fma(value, rest, splat(_EXP[3]))
    value = fma(value, rest, splat(_EXP[4]))
    value = fma(value, rest, splat(_f(1)))
    value = fma(value, rest, splat(_f(1)))
    return value * power_of_two(whole)


@kernel
def _sigmoid(x):  # type: ignore[no-untyped-def]
    one = splat(_f(1))
    return one / (one + _exp(splat(_f(0)) - x))


@kernel
def _normal(x):  # type: ignore[no-untyped-def]
    """The cumulative distribution function of the normal distribution."""
    one, zero = splat(_f(1)), splat(_f(0))
    z = x * splat(_HALF_ROOT)
    size = maximum(zero - z, z)
    t = one / fma(size, splat(_ERF_P), one)
    series = fma(splat(_ERF[0]), t, splat(_ERF[1]))
    series = fma(series, t, splat(_ERF[2]))
    series = fma(series, t, splat(_ERF[3]))
    series = fma(series, t, splat(_ERF[4]))
    tail = splat(_f(0.5)) * series * t * _exp(zero - size * size)
    return where_less(x, zero, tail, one - tail)


@kernel
def activate(code, x):  # type: ignore[no-untyped-def]
    """Apply an activation to a vector; NaN stays NaN."""
    zero = splat(_f(0))
    if code == IDENTITY:
        return x
    if code == HARDSWISH:
        return x * minimum(splat(_f(1)), maximum(zero, fma(x, splat(_SIXTH), splat(_f(0.5)))))
    if code == RELU:
        return maximum(zero, x)
    if code == RELU6:
        return minimum(splat(_f(6)), maximum(zero, x))
    if code == HARDSIGMOID:
        return minimum(splat(_f(1)), maximum(zero, fma(x, splat(_SIXTH), splat(_f(0.5)))))
    if code == SIGMOID:
        return _sigmoid(x)
    if code == SWISH:
        return x * _sigmoid(x)
    return x * _normal(x)


@kernel
def derivative(code, x):  # type: ignore[no-untyped-def]
    """The derivative of an activation at its input x."""
    zero, one = splat(_f(0)), splat(_f(1))
    if code == IDENTITY:
        return one
    if code == HARDSWISH:
        inner = fma(x, splat(_f(1 / 3)), splat(_f(0.5)))
        return where_less(splat(_f(-3)), x, where_less(x, splat(_f(3)), inner, one), zero)
    if code == RELU:
        return where_less(zero, x, one, zero)
    if code == RELU6:
        return where_less(zero, x, where_less(x, splat(_f(6)), one, zero), zero)
    if code == HARDSIGMOID:
        return where_less(splat(_f(-3)), x, where_less(x, splat(_f(3)), splat(_SIXTH), zero), zero)
    if code == SIGMOID:
        y = _sigmoid(x)
        return y * (one - y)
    if code == SWISH:
        y = _sigmoid(x)
        return fma(x * y, one - y, y)
    density = splat(_INVERSE_ROOT_2PI) * _exp(splat(_f(-0.5)) * x * x)
    return fma(x, density, _normal(x))
