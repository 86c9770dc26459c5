"""The files for containers name only what exists, and do what hadolint's rules ask for."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from helpers.commands import ROOT

pytest.importorskip("fastapi_offline", reason="needs pplc[serve]")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text("utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name.upper(), " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines)]


def arguments_of(name: str) -> list[str]:
    (text,) = [rest for instruction, rest in instructions() if instruction == name]
    words: list[str] = json.loads(text)
    return words


def test_every_path_exists_and_is_sent_to_docker():
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").split() if line.startswith("!")}
    copied = {path for name, rest in instructions() if name == "COPY" for path in rest.split()[:-1]}
    assert {path.removeprefix("./") for path in copied} == sent
    assert all((ROOT / path).exists() for path in sent)
    # What the package's own description needs to be built.
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert all(name in sent for name in re.findall(r'(?:readme|license-files) = \[?"([^"]+)"', project))


def test_the_command_is_one_of_pplc():
    from pplc_cli.cli.commands.serve import serve
    from pplc_cli.serve.routes.own import router

    known = {option for parameter in serve.params for option in parameter.opts}
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]["pplc"]
    given: list[str] = compose["command"]
    program, command, *words = arguments_of("ENTRYPOINT") + given
    assert (program, command) == ("pplc", "serve")
    assert {word for word in words if word.startswith("--")} <= known
    (health,) = [rest for name, rest in instructions() if name == "HEALTHCHECK"]
    port = words[words.index("--port") + 1]
    path = re.search(rf"http://127\.0\.0\.1:{port}(/\w+)", health)
    assert path is not None and path[1] in {getattr(route, "path", "") for route in router.routes}
    assert ("EXPOSE", port) in instructions() and compose["ports"] == [f"{port}:{port}"]
    places = [volume.rpartition(":/")[2].removesuffix(":ro") for volume in compose["volumes"]]
    assert {"models/model", "collected"} <= set(places)
    assert arguments_of("CMD") == ["/models/model"] == [word for word in compose["command"] if "models" in word]
    assert sum(":ro" in volume for volume in compose["volumes"]) == 1


def test_the_rules_of_hadolint():
    steps = instructions()
    names = [name for name, _ in steps]
    image = dict(steps)["FROM"]
    assert re.fullmatch(r"python:3\.\d+-slim", image)  # DL3006, DL3007: a tag that is not latest
    assert names.index("USER") < names.index("ENTRYPOINT") and dict(steps)["USER"] != "root"  # DL3002
    for name, rest in steps:
        if name == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest and "-y" in rest  # DL3014, DL3015
            assert "apt-get update" in rest and "rm -rf /var/lib/apt/lists" in rest  # DL3009
        if name == "RUN" and "pip install" in rest:
            assert "--no-cache-dir" in rest  # DL3042
        if name == "WORKDIR":
            assert rest.startswith("/")  # DL3000
        assert name != "ADD" and "sudo" not in rest  # DL3020, DL3004
    for name in ("ENTRYPOINT", "CMD"):
        assert arguments_of(name)  # DL3025: JSON
