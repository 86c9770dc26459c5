"""List and verify the cached weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from pplc_cli.base.errors import ModelError
from pplc_cli.base.language.messages import tr
from pplc_cli.models.registry import find_network, network_names
from pplc_cli.models.weights.builtin import BUILTIN, builtin_file, builtin_names
from pplc_cli.models.weights.manifest import IMPORTED, Cache
from pplc_cli.models.weights.official import official_file
from pplc_cli.models.weights.packaged import PACKAGED, SOURCE, find_packaged, packaged_file


@dataclasses.dataclass(frozen=True)
class CachedWeights:
    """A weights file: built-in, of a package, official (whether or not it is in the cache) or imported.

    Attributes:
        network, source: the network, and the kind of weights.
        file: its path within the cache, or the name of a built-in or packaged file.
        url: the official address, or the file it was imported from.
        size: bytes; None if it is not on this machine.
        cached: whether it is in the cache.
        sha256: the published or recorded hash; None if there is none.
        package: the package that has the file.
    """

    network: str
    source: str
    file: str
    url: Optional[str]
    size: Optional[int]
    cached: bool
    sha256: Optional[str]
    package: Optional[str] = None


def inventory() -> list[CachedWeights]:
    """List all weights: built-in, in packages, official and imported, each in the order of the networks."""
    cache = Cache()
    entries = cache.entries()
    specs = [find_network(name) for name in network_names()]
    listed = []
    for spec in specs:
        if spec.name in builtin_names():
            path = builtin_file(spec)
            listed.append(CachedWeights(spec.name, BUILTIN, path.name, None, path.stat().st_size, False, None))
    for name, packaged in PACKAGED.items():
        found = find_packaged(name)
        size = None if found is None else found.stat().st_size
        file = Path(packaged.file).name
        listed.append(CachedWeights(name, SOURCE, file, None, size, False, packaged.sha256, packaged.package))
    rows = [(spec.name, source, *official_file(spec, source)) for spec in specs for source in spec.weights]
    names = {file for _, _, file, _ in rows}
    imports = {n: (e.network, e.source, n, e.url) for n, e in entries.items() if n not in names}
    for path in sorted((cache.folder / IMPORTED).glob("*.safetensors")):
        if not path.name.startswith("."):  # a temporary file of another process
            imports.setdefault(f"{IMPORTED}/{path.name}", ("?", IMPORTED, f"{IMPORTED}/{path.name}", None))
    for network, source, file, url in [*rows, *imports.values()]:
        path = cache.folder / file
        cached, entry = path.is_file(), entries.get(file)
        size = path.stat().st_size if cached else None
        listed.append(CachedWeights(network, source, file, url, size, cached, entry.sha256 if entry else None))
    return listed


@dataclasses.dataclass(frozen=True)
class VerifyResult:
    """The result of checking a cached file.

    Attributes:
        file: its path within the cache, or its name in a package.
        state: ``ok``, ``damaged``, ``missing`` or ``not recorded yet``.
        remark: the fault and its remedy; otherwise empty.
    """

    file: str
    state: str
    remark: str = ""

    @property
    def description(self) -> str:
        """The state in the user's language."""
        states = {
            "ok": tr("ok"),
            "damaged": tr("damaged"),
            "missing": tr("missing"),
            "not recorded yet": tr("not recorded yet"),
        }
        return states[self.state]

    @property
    def good(self) -> bool:
        """Whether the file needs no action."""
        return self.state in ("ok", "not recorded yet")


def verify() -> Iterator[VerifyResult]:
    """Compare the cached files with the manifest, then those of packages with their published hashes, one by one."""
    cache = Cache()
    entries = cache.entries()
    weights = inventory()
    for listed in weights:
        if listed.package is not None:
            continue
        entry, path = entries.get(listed.file), cache.folder / listed.file
        if entry is None and listed.cached:
            yield VerifyResult(listed.file, "not recorded yet")
        elif entry is not None and not listed.cached:
            yield VerifyResult(
                listed.file, "missing", tr("{path} is missing; {remedy}", path=path, remedy=entry.remedy)
            )
        elif entry is not None:
            try:
                cache.check(listed.file)
                yield VerifyResult(listed.file, "ok")
            except (ModelError, OSError) as error:
                yield VerifyResult(listed.file, "damaged", str(error))
    for listed in weights:
        if listed.package is not None and listed.size is not None:
            yield _verify_packaged(listed)


def _verify_packaged(listed: CachedWeights) -> VerifyResult:
    try:
        packaged_file(find_network(listed.network))
        return VerifyResult(listed.file, "ok")
    except (ModelError, OSError) as error:
        return VerifyResult(listed.file, "damaged", str(error))
