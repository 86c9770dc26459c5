"""What all commands share: --quiet and --verbose, Ctrl-C, colours, completion, and the paths they print."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.commands import Pplc, Trained

PPLC = [sys.executable, "-m", "pplc_cli"]
BAR = "checking images"  # beside the progress bar of split


@pytest.mark.slow
def test_quiet_prints_the_results_alone(pplc: Pplc, trained: Trained, class_folders) -> None:
    folder = class_folders((12, 12))
    assert pplc("init", str(folder), "--output", "a.yaml").stdout == (
        "a.yaml written\nNext: pplc split --config a.yaml\n"
    )
    assert pplc("init", str(folder), "--output", "b.yaml", "--quiet").stdout == "b.yaml written\n"
    quiet = pplc("split", "--config", "b.yaml", "-q")
    assert "written to" in quiet.stdout and not quiet.stderr

    image = str(next((trained.data / "dog").glob("*.jpg")))
    model = ["--model", str(trained.run / "inference_model")]
    assert "Inference Time Info" in pplc("predict", *model, image, image).stdout
    assert "Inference Time Info" not in pplc("predict", *model, image).stdout
    quiet = pplc("predict", *model, image, "-q")
    assert re.fullmatch(re.escape(image) + r": \S.* \d\.\d{4}\n", quiet.stdout) and not quiet.stderr
    (pplc.cwd / "broken.jpg").write_bytes(b"no image")
    quiet = pplc("predict", *model, image, "broken.jpg", "--json", "--quiet", check=False)
    assert quiet.returncode == 1 and len(quiet.stdout.splitlines()) == 2 and not quiet.stderr
    failed = pplc("predict", *model, "broken.jpg", "-q", check=False)
    assert "broken.jpg: " in failed.stderr and not failed.stdout

    exported = pplc("export", "--run", str(trained.run), "--output", "out", "-q")
    assert exported.stdout.startswith("out written. Checked: ") and exported.stdout.count("\n") == 1


def test_quiet_training_prints_the_result_alone(pplc: Pplc, trained: Trained) -> None:
    args = [*trained.args[: trained.args.index("--output")], "--output", "run", "-o", "train.epochs=1"]
    quiet = pplc("train", "--quiet", *args)
    assert not quiet.stderr and re.fullmatch(r"best epoch: 1 of 1; .*\nwritten to run: .*\n", quiet.stdout)


def test_quiet_keeps_errors_and_goes_before_or_after_the_command(pplc: Pplc) -> None:
    for arguments in (["-q", "eval"], ["eval", "-q"]):
        failed = pplc(*arguments, check=False)
        assert failed.returncode == 1 and failed.stderr.startswith("Error: no run here yet")
    assert pplc("weights", "list", "--json", "--quiet").stdout.startswith("[")
    assert pplc("-v", "weights", "list", "--quiet", check=False).returncode == 2
    both = pplc("models", "--quiet", "--verbose", check=False)
    assert both.returncode == 2 and "--quiet and --verbose exclude each other" in both.stderr


def test_verbose_prints_tracebacks_and_logs(pplc: Pplc, trained: Trained) -> None:
    failed = pplc("train", "nosuch.yaml", "-v", check=False)
    assert failed.returncode == 1 and "Traceback" in failed.stderr and "ConfigError" in failed.stderr
    assert failed.stderr.strip().splitlines()[-1].startswith("Error: nosuch.yaml")
    (pplc.cwd / "broken.onnx").write_bytes(b"nothing")
    hidden_cause = pplc("weights", "import", "broken.onnx", "--verbose", check=False)
    assert hidden_cause.stderr.count("Traceback") >= 2 and "This caused:" in hidden_cause.stderr

    image = str(next((trained.data / "dog").glob("*.jpg")))
    code = (
        "import logging, pplc_cli.predict.predictor as p, sys\n"
        "old = p.Predictor.predict\n"
        "def predict(*args, **options):\n"
        "    logging.getLogger('some.library').info('a line')\n"
        "    return old(*args, **options)\n"
        "p.Predictor.predict = predict\n"
        "from pplc_cli.cli.main import main\n"
        "main()\n"
    )
    arguments = ["predict", "--json", "--model", str(trained.run / "inference_model"), image]
    for options, shown in (([], False), (["-v"], True)):
        done = subprocess.run([sys.executable, "-c", code, *arguments, *options], capture_output=True, text=True)
        assert ("some.library: INFO: a line" in done.stderr) == shown, done.stderr
        json.loads(done.stdout)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("command", [["weights", "list"], ["models", "--json"]])
def test_ctrl_c_in_any_command(command, tmp_path: Path) -> None:
    """The library call of each command is replaced by one that waits."""
    code = (
        "import time, pplc_cli.base.errors, pplc_cli.models.catalog as c, pplc_cli.models.weights.inventory as i\n"
        "def wait(*_, **__):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "c.list_networks = i.inventory = wait\n"
        "from pplc_cli.cli.main import main\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, "Interrupted.\n")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_while_measuring(trained: Trained, tmp_path: Path) -> None:
    """pplc bench has processes of its own, which must end too."""
    arguments = [
        "bench",
        str(trained.run / "inference_model"),
        "--engine",
        "paddle",
        "--seconds",
        "30",
        "--rounds",
        "9",
    ]
    process = subprocess.Popen([*PPLC, *arguments], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)  # ends when all processes that hold stderr have ended
    assert (process.returncode, stderr) == (130, "Interrupted.\n")


def on_a_terminal(arguments: list[str], cwd: Path, **environment: str) -> str:
    """Run pplc on a pseudo-terminal and return all it prints."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [*PPLC, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd,
        env={**clean, "TERM": "xterm-256color", "COLUMNS": "120", **environment},
    )  # fmt: skip
    os.close(theirs)
    output = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # EIO: the process has ended
            break
        if not part:
            break
        output += part
    os.close(ours)
    assert process.wait(60) == 0, output
    return output.decode("utf-8")


def colours(text: str) -> list[str]:
    """Escape sequences that set a colour (30 to 49, 90 to 107), not bold or the cursor."""
    return [code for code in re.findall(r"\x1b\[([\d;]*)m", text) if re.search(r"(?:^|;)(?:[34]\d|9\d|10\d)", code)]


def test_colours_on_terminals_only(pplc: Pplc, class_folders) -> None:
    folder = class_folders((12, 12))
    arguments = ["split", "--dataset", str(folder), "--force"]
    coloured = on_a_terminal(arguments, pplc.cwd)
    assert colours(coloured) and BAR in coloured
    plain = on_a_terminal(arguments, pplc.cwd, NO_COLOR="1")
    assert not colours(plain) and BAR in plain
    assert BAR not in on_a_terminal([*arguments, "--quiet"], pplc.cwd)
    piped = pplc(*arguments)
    assert "\x1b" not in piped.stdout + piped.stderr and BAR not in piped.stderr


def complete(typed: str, index: int) -> list[str]:
    environment = {**os.environ, "_PPLC_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(index)}
    done = subprocess.run(
        [sys.executable, "-c", "from pplc_cli.cli.main import main; main()"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_completion() -> None:
    assert complete("pplc tr", 1) == ["train"]
    assert complete("pplc weights ", 2) == ["fetch", "import", "list", "verify"]
    assert complete("pplc train --epo", 2) == ["--epochs"]


@pytest.mark.parametrize(("shell", "text"), [("bash", "complete -o"), ("zsh", "#compdef pplc"), ("fish", "complete")])
def test_completion_scripts(shell: str, text: str, tmp_path: Path) -> None:
    """The scripts are printed, and valid where the shell is installed."""
    import shutil

    if shell == "bash" and not shutil.which("bash"):
        pytest.skip("click asks bash for its version")
    code = "from pplc_cli.cli.main import main; main()"
    environment = {**os.environ, "_PPLC_COMPLETE": f"{shell}_source"}
    script = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert text in script and "pplc" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script, encoding="utf-8")
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


@pytest.mark.slow
def test_paths_are_printed_as_given(trained: Trained) -> None:
    """The latest run is kept as an absolute path; below the current folder it is printed as the user gave it."""
    pplc = Pplc(trained.folder)
    run = trained.run.name
    assert f"report in {run}/eval_val: " in pplc("eval", "--split", "val").stdout.replace("\\", "/")
    image = next((trained.data / "dog").glob("*.jpg")).relative_to(trained.folder)
    assert pplc("predict", str(image)).stdout.startswith(f"{image}: ")
    missing = pplc("eval", "--data", "nowhere", check=False)
    assert "nowhere" in missing.stderr and str(trained.folder) not in missing.stderr


@pytest.mark.slow
def test_top5_is_printed_for_more_than_five_classes(pplc: Pplc, trained: Trained, capsys) -> None:
    assert "top-5" not in pplc("eval", "--run", str(trained.run)).stdout
    assert json.loads(pplc("eval", "--run", str(trained.run), "--json").stdout)["top5"] is None  # of two classes
    from pplc_cli.cli.console.results import print_evaluation
    from pplc_cli.training.evaluation.evaluate import Evaluation

    row = {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    for classes in (5, 6):
        metrics = {
            "classes": [{"label": str(n), "support": 1, **row} for n in range(classes)],
            "macro": row, "images": 20, "top1": 0.5, "top5": 0.9 if classes > 5 else None, "calibration_error": 0.1,
            "calibration": None, "unusable": [],
        }  # fmt: skip
        print_evaluation(Evaluation("a list", metrics, pplc.cwd), as_json=False)
        assert ("top-5 90% (95% interval 70% to 97%)" in capsys.readouterr().out) == (classes > 5)
