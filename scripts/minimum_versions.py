"""Print pip constraints that pin the dependencies of pyproject.toml to their lowest versions.

    python scripts/minimum_versions.py > lowest.txt && python -m pip install -c lowest.txt -e '.[dev]'

The tools of the extra dev and dependencies without a lower bound are left out. Needs Python 3.11 or newer.
"""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import tomllib

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lowest_versions(project: dict) -> list[str]:
    """Return ``name==1.2.0.*`` for each requirement ``name>=1.2`` of ``[project]`` and its extras except dev, sorted.

    Raises:
        ValueError: two requirements give the same package different lower bounds.
    """
    extras = [requirements for extra, requirements in project["optional-dependencies"].items() if extra != "dev"]
    lowest: dict[str, str] = {}
    for requirement in chain(project["dependencies"], *extras):
        # A name, optional extras in brackets, and the lower bound, which may follow other bounds.
        match = re.match(r"([\w.-]+)(?:\[.*?\])?[^;]*?>=\s*([\d.]+)", requirement)
        if match is None:
            continue
        name, version = match.groups()
        if lowest.setdefault(name, version) != version:
            raise ValueError(f"{name} has the lower bounds {lowest[name]} and {version}; expected one")
    # 4.10 means 4.10.0; the star also admits 4.10.0.84, since OpenCV's versions have four parts.
    return sorted(f"{name}=={'.'.join([*version.split('.'), '0', '0'][:3])}.*" for name, version in lowest.items())


if __name__ == "__main__":
    print(*lowest_versions(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]), sep="\n")
