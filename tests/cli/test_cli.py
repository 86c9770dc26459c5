"""The commands as a user runs them: processes and files."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from helpers.images import write_image

HEAVY = {"paddle", "paddlex", "numpy", "cv2", "PIL", "yaml", "matplotlib", "sklearn", "rich"}


def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from pplc_cli.cli.main import cli\n"
        "commands = [[], *([name] for name in cli.list_commands(None))]\n"
        "commands += [['weights', name] for name in cli.get_command(None, 'weights').commands]\n"
        "for command in commands:\n"
        "    result = CliRunner().invoke(cli, [*command, '--help'])\n"
        "    assert result.exit_code == 0 and 'Usage' in result.output, command\n"
        "    assert '--quiet' in result.output and '--verbose' in result.output, command\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not HEAVY & set(loaded)


@pytest.mark.parametrize("start", [["-m", "pplc_cli"], ["-c", "from pplc_cli.cli.main import main; main()"]])
def test_both_ways_to_start_print_the_version(start):
    from pplc_cli.base.version import __version__

    assert __version__ in subprocess.check_output([sys.executable, *start, "--version"], text=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["split"], "expected a configuration"),
        (["split", "--dataset", "nowhere"], "no data set 'nowhere'"),
        (["train", "nosuch.yaml"], "no such file"),
        (["train", "--dataset", "nowhere"], "no data set"),
        (["eval"], "no run here yet"),
        (["eval", "--run", "nowhere"], "no trained run"),
        (["export"], "no run here yet"),
        (["predict", "x.jpg"], "no run here yet"),
        (["predict", "--model", "nowhere", "x.jpg"], "no such folder"),
        (["predict"], "INPUT"),
        (["predict", "x.jpg", "--threads", "many"], "not a valid integer"),
        (["init", "nowhere"], "no such folder"),
        (["preview", "nosuch.yaml"], "no such file"),
        (["weights", "fetch", "PPLCNet_x9"], "did you mean PPLCNet"),
        (["weights", "fetch", "PPLCNet_x2_0", "--source", "imagenet_ssld"], "use model.pretrained: imagenet"),
        (["weights", "fetch", "SqueezeNext_1_0_23"], "no official weights"),
        (["weights", "import", "nowhere.pdparams"], "no such weights file"),
        (["weights", "import", "nowhere.onnx"], "no such weights file"),
        (["weights", "verfy"], "No such command"),
        (["trian"], "No such command"),
    ],
)
def test_user_errors_give_one_line_and_no_traceback(pplc, arguments, message):
    result = pplc(*arguments, check=False)
    assert result.returncode in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_every_fault_of_a_configuration_is_reported(pplc, tmp_path):
    (tmp_path / "bad.yaml").write_text("data: {dir: nowhere}\ntrain: {epoch: 3, batch_size: four}\n", encoding="utf-8")
    result = pplc("train", "bad.yaml", "-o", "model.name=PPLCNet_x9", check=False)
    assert result.returncode == 1
    for message in ("did you mean train.epochs?", "train.batch_size: expected an integer", "PPLCNet_x", "model.name"):
        assert message in result.stderr


def test_init_split_preview(pplc, class_folders, tmp_path):
    folder = class_folders((12, 12))
    pplc("init", str(folder), "--output", "mine.yaml")
    assert pplc("init", str(folder), "--output", "mine.yaml", check=False).returncode == 1
    pplc("split", "--config", "mine.yaml")
    assert (folder / "train_list.txt").is_file()
    pplc("preview", "mine.yaml", "--output", "sheet.png", "--images", "2")
    from pplc_cli import read_image

    assert read_image(tmp_path / "sheet.png").std() > 10  # not blank


def test_predict_inputs_and_outputs(pplc, trained, tmp_path):
    """Files, folders, globs, lists, standard input; text, JSON, CSV; an unusable file among good ones."""
    images = sorted((trained.data / "猫 cat").glob("*.jpg"))
    model = ["--model", str(trained.run / "inference_model")]
    predictions = _json_lines(pplc("predict", *model, "--json", str(images[0]), "--top-k", "2"))
    assert predictions[0]["path"] == str(images[0]) and len(predictions[0]["top"]) == 2
    assert abs(sum(t["score"] for t in predictions[0]["top"]) - 1) < 1e-4  # there are two classes

    by_glob = _json_lines(pplc("predict", *model, "--json", str(trained.data / "猫 cat" / "*.jpg")))
    by_folder = _json_lines(pplc("predict", *model, "--json", str(trained.data / "猫 cat")))
    assert [a["path"] for a in by_glob] == [str(p) for p in images] == [a["path"] for a in by_folder]

    by_list = _json_lines(pplc("predict", *model, "--json", str(trained.data / "test_list.txt")))
    assert len(by_list) == len((trained.data / "test_list.txt").read_text(encoding="utf-8").splitlines())
    assert all("error" not in prediction for prediction in by_list)

    by_bytes = _json_lines(pplc("predict", *model, "--json", "-", stdin=images[0].read_bytes()))
    by_names = _json_lines(pplc("predict", *model, "--json", "-", stdin=f"{images[0]}\n".encode()))
    assert by_bytes[0]["top"] == by_names[0]["top"]

    (tmp_path / "broken.jpg").write_bytes(b"no image")
    mixed = pplc("predict", *model, str(images[0]), "broken.jpg", str(images[1]), "--csv", check=False)
    assert mixed.returncode == 1
    assert "broken.jpg" in mixed.stdout and mixed.stdout.count("\n") == 4
    assert "is not an image but text" in mixed.stderr

    text = pplc("predict", *model, str(images[0]), "--save", "drawn", "--threads", "1", "--no-mkldnn", "--time")
    assert "Inference Time Info" in text.stdout and "average latency time(ms)" in text.stdout
    assert (tmp_path / "drawn" / f"{images[0].stem}.jpg").is_file()
    again = pplc("predict", *model, str(images[0]), "--save", "drawn", "--quiet")  # an annotated image is replaced
    assert again.returncode == 0 and len(list((tmp_path / "drawn").iterdir())) == 1

    photograph = tmp_path / "own" / "photograph.jpg"
    photograph.parent.mkdir()
    photograph.write_bytes(images[0].read_bytes())
    refused = pplc("predict", *model, "own", "--save", "own", check=False)
    assert refused.returncode == 1 and "photograph.jpg exists and is not an annotated image" in refused.stderr
    assert photograph.read_bytes() == images[0].read_bytes()


def test_an_image_that_cannot_be_drawn_does_not_end_the_others(pplc, trained, tmp_path):
    write_image(tmp_path / "a long strip.png", np.zeros((330, 65501, 3), np.uint8))
    write_image(tmp_path / "b.png", np.zeros((40, 40, 3), np.uint8))
    done = pplc("predict", "--run", str(trained.run), ".", "--save", "drawn", check=False)
    assert done.returncode == 1 and "a long strip.png: " in done.stdout
    assert "a long strip.png: cannot be drawn: 65501 x 330 pixels, JPEG ends at 65,500" in done.stderr
    assert [file.name for file in (tmp_path / "drawn").iterdir()] == ["b.jpg"]
    assert "2 images: " in done.stdout and "Traceback" not in done.stderr
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    nothing = pplc("predict", "--run", str(trained.run), "broken.jpg", "--save", "empty", check=False)
    assert nothing.returncode == 1 and "annotated images written" not in nothing.stderr


def test_commands_take_the_latest_run(pplc, trained):
    assert "top-1" in pplc("eval", cwd=trained.folder).stdout
    figures = json.loads(pplc("eval", "--json", "--split", "val", cwd=trained.folder).stdout)
    assert figures["images"] == 8 and len(figures["classes"]) == 2
    image = next((trained.data / "dog").glob("*.jpg"))
    assert "dog" in pplc("predict", str(image), cwd=trained.folder).stdout
    both = pplc("eval", "--run", "run", "--dataset", str(trained.data), cwd=trained.folder, check=False)
    assert both.returncode == 1 and "--run cannot be combined with --config or --dataset" in both.stderr


def test_split_train_and_predict_with_bad_files(pplc, class_folders, tmp_path, trained):
    from helpers.bad_files import write_bad_files

    folder = class_folders((20, 20))
    kinds = write_bad_files(folder / sorted(p.name for p in folder.iterdir() if p.is_dir())[0])
    bad = [name for name, kind in kinds.items() if kind == "bad"]
    assert len(bad) >= 20 and len(kinds) >= 30

    result = pplc("split", "--dataset", str(folder))
    assert "Traceback" not in result.stderr
    for name in bad:
        assert f"/{name} " in result.stdout, name
    lists = "".join(p.read_text(encoding="utf-8") for p in folder.glob("*_list.txt"))
    assert not [name for name in bad if f"/{name} " in lists]

    recipe = ["-o", "train.epochs=1", "--model", "PPLCNet_x0_25", "--pretrained", "none", "--output", "odd"]
    recipe += ["-o", "train.transforms=[{RandomCrop: {crop_size: 32}}, Normalize]"]
    recipe += ["-o", "eval.transforms=[{Resize: {target_size: 32}}, Normalize]"]
    pplc("train", "--dataset", str(folder), *recipe)  # every listed image can be used

    names = [str(p) for p in folder.rglob("*") if p.name in kinds and p.parent != folder]
    predicted = pplc("predict", "--json", "--model", str(trained.run / "inference_model"), *names, check=False)
    assert predicted.returncode == 1 and "Traceback" not in predicted.stderr
    predictions = {a["path"]: a for a in _json_lines(predicted)}
    for name in names:
        if name in predictions and kinds[name.rpartition("/")[2]] == "bad" and not name.endswith(".txt"):
            assert predictions[name].get("error"), name


def _json_lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]
