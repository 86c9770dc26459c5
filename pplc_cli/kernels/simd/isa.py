"""The instruction set that the kernels are compiled for: AVX2, AVX2 with VNNI, or AVX-512.

It is the best that the CPU has, unless the environment variable PPLC_ISA names a smaller one.
"""

from __future__ import annotations

import os

import llvmlite.binding
from numba.core import config as numba_config

from pplc_cli.base.errors import PplcError
from pplc_cli.base.language.messages import tr

VARIABLE = "PPLC_ISA"
# What each set needs, from the smallest on; a CPU with AVX-512 may lack VNNI in the encoding of AVX2.
NEEDS = {"avx2": ("avx2", "fma"), "avx2_vnni": ("avx2", "fma", "avxvnni"), "avx512": ("avx512f", "avx512bw")}
# LLVM's names of what a smaller set must not use begin with these.
_LARGER = {"avx2": ("avx512", "avx10", "avxvnni", "amx"), "avx2_vnni": ("avx512", "avx10", "amx"), "avx512": ()}

_host = llvmlite.binding.get_host_cpu_features()


def available() -> list[str]:
    """The instruction sets that this CPU has, from the smallest on."""
    return [name for name, needed in NEEDS.items() if all(_host.get(feature) for feature in needed)]


def chosen() -> str:
    """The instruction set of the kernels; "" if the CPU has none of them.

    Raises:
        PplcError: PPLC_ISA names something else than one of :func:`available`.
    """
    here, wanted = available(), os.environ.get(VARIABLE)
    if not wanted:
        return here[-1] if here else ""
    if wanted not in here:
        raise PplcError(
            tr(
                "the environment variable {variable}: expected {choices}, which this CPU has, got {value!r}",
                variable=VARIABLE,
                choices=", ".join(here) or tr("nothing"),
                value=wanted,
            )
        )
    return wanted


def limit_compiler(name: str) -> dict[str, bool]:
    """Make Numba use no instruction beyond a set; return the features that are left."""
    features = {
        feature: has and not feature.startswith(_LARGER.get(name, ())) for feature, has in sorted(_host.items())
    }
    if features != dict(_host):
        numba_config.CPU_FEATURES = ",".join(f"{'+' if has else '-'}{feature}" for feature, has in features.items())  # type: ignore[attr-defined]
    return features
