"""The wheel: built from the tracked files, installed without network, used from an empty folder."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement

from helpers.commands import ROOT
from helpers.images import random_image, write_image
from pplc_cli import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


class Installed(NamedTuple):
    """The wheel, installed into an environment of its own.

    Attributes:
        clone: the folder that it was built from.
        wheel: the file.
        scripts: the folder with ``pplc`` and ``python``.
        library: the folder with ``pplc_cli``.
    """

    clone: Path
    wheel: Path
    scripts: Path
    library: Path

    def __call__(self, command: str, *words: str, cwd: Path) -> str:
        """Run a command of the environment and return its standard output."""
        program = shutil.which(command, path=str(self.scripts))
        assert program is not None, f"no {command} in {self.scripts}"
        return run(program, *words, cwd=cwd)


def run(*words: str, cwd: Path) -> str:
    hidden = ("PYTHONPATH", "PYTHONHOME", "PIP_")  # neither the clone nor settings of pip may leak in
    env = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    done = subprocess.run(
        words, cwd=cwd, env={**env, "PYTHONUTF8": "1"}, capture_output=True, encoding="utf-8", timeout=300, check=False
    )
    assert done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_tracked_files(target: Path) -> None:
    """Copy the files that git tracks, as they are in the work tree."""
    try:
        listed = run("git", "ls-files", "-z", cwd=ROOT)
    except (OSError, AssertionError):
        pytest.skip("needs a git clone")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # it may be deleted and not yet committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in a fresh environment that finds the packages of this one, but not the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    copy_tracked_files(folder / "clone")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "wheels", "./clone", cwd=folder)
    (wheel,) = (folder / "wheels").glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=folder)
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    library = Path(run(str(scripts / "python"), "-c", ask, cwd=folder).strip())
    run(*pip, f"--python={scripts / 'python'}", "install", "--no-deps", "--no-index", str(wheel), cwd=folder)
    # A path that a .pth file adds is only searched; its own .pth files are not run, so that an editable install there
    # does not bring the clone in.
    others = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    (library / "others.pth").write_text("\n".join(dict.fromkeys(others)), encoding="utf-8")
    return Installed(folder / "clone", wheel, scripts, library)


def test_the_wheel_holds_the_package_and_its_data(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names}
    information = f"pplc-{__version__}.dist-info"
    assert tops == {"pplc_cli", information}
    package = {name.removeprefix("pplc_cli/") for name in names if name.startswith("pplc_cli/")}
    code = installed.clone / "pplc_cli"
    source = {path.relative_to(code).as_posix() for path in code.rglob("*.py")}
    weights = {f"models/weights/builtin_weights/PPLCNet_x{size}.safetensors" for size in ("0_25", "0_5", "1_0")}
    locale = "base/language/locale/zh/LC_MESSAGES"
    messages = {f"{locale}/{name}.{kind}" for name in ("click", "pplc_cli") for kind in ("po", "mo")}
    page = {path.relative_to(code).as_posix() for path in (code / "serve" / "page").iterdir()}
    assert {path.rpartition(".")[2] for path in page} == {"html", "css", "js", "svg"}
    assert package == source | weights | messages | {"py.typed", "models/counts.json", "analysis/report.html.j2"} | page
    assert f"{information}/licenses/LICENSE" in names


def test_the_installed_package_is_used_and_not_the_clone(installed: Installed, tmp_path: Path) -> None:
    code = "import pplc_cli, numpy; print(pplc_cli.__file__, pplc_cli.__version__)"
    file, version = installed("python", "-c", code, cwd=tmp_path).rsplit(maxsplit=1)
    assert Path(file).resolve().is_relative_to(installed.library.resolve()) and version == __version__


def test_commands_run_from_an_empty_folder(installed: Installed, tmp_path: Path) -> None:
    assert "Usage: pplc" in installed("pplc", "--help", cwd=tmp_path)
    assert __version__ in installed("pplc", "--version", cwd=tmp_path)
    assert "PPLCNet_x1_0" in installed("pplc", "models", cwd=tmp_path)
    for index in range(12):
        write_image(tmp_path / "photos" / f"class {index % 2}" / f"{index}.png", random_image(index))
    installed("pplc", "init", "photos", cwd=tmp_path)
    installed("pplc", "split", "--config", "configs/photos.yaml", cwd=tmp_path)
    assert (tmp_path / "photos" / "train_list.txt").is_file()


def test_built_in_weights_are_found(installed: Installed, tmp_path: Path) -> None:
    code = "from pplc_cli.models.weights.builtin import builtin_names; print(*builtin_names())"
    assert installed("python", "-c", code, cwd=tmp_path).split() == ["PPLCNet_x0_25", "PPLCNet_x0_5", "PPLCNet_x1_0"]


@pytest.mark.parametrize("extra", sorted(PROJECT["optional-dependencies"]))
def test_extras_can_be_read(extra: str) -> None:
    """Each requirement parses, and the extras of pplc that it names exist."""
    for text in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if requirement.name == "pplc":
            assert requirement.extras <= set(PROJECT["optional-dependencies"])


def test_a_python_that_is_too_old_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pip shows what setup.py says."""
    monkeypatch.setattr(sys, "version_info", (3, 8, 18, "final", 0))
    with pytest.raises(SystemExit, match=r"^pplc needs Python 3\.9 to 3\.13; this is Python 3\.8$"):
        runpy.run_path(str(ROOT / "setup.py"))
    assert PROJECT["requires-python"] == ">=3.9,<3.14"
