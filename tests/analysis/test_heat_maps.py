"""Heat maps: the arithmetic against finite differences of the network, and intervention on real photographs."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from PIL import Image

from helpers.commands import Pplc
from pplc_cli import Explainer
from pplc_cli.analysis.heat_maps import HeatMapFolder, _feature_maps
from pplc_cli.base.errors import PredictError
from pplc_cli.models.registry import build_network, find_network, network_names


def test_the_map_marks_what_the_answer_rests_on(trained):
    """The classes of ``trained`` differ by a coloured square in the middle: masking the hottest fifth costs more."""
    explainer = Explainer(trained.run)
    hot, random = 0.0, 0.0
    rng = np.random.default_rng()
    for file in sorted(trained.data.rglob("*.jpg"))[::8]:
        found = explainer.explain(file)
        assert found.heat.shape == found.image.shape[:2] and found.image.dtype == np.uint8
        assert found.heat.max() == pytest.approx(1) and found.heat.min() >= 0 and found.label == found.predicted
        mask = found.heat >= np.quantile(found.heat, 0.8)
        other = rng.permutation(mask.ravel()).reshape(mask.shape)
        before, with_hot, with_random = (score(explainer, found, each) for each in (mask & False, mask, other))
        hot, random = hot + before - with_hot, random + before - with_random
    assert hot > random


def score(explainer, found, mask):
    """The probability of the explained class with some pixels grey."""
    image = np.where(mask[..., None], np.uint8(128), found.image)
    prepared = np.empty((3, *image.shape[:2]), np.float32)
    explainer._normalize.write(image, prepared)
    return explainer.scores(prepared[None])[0, explainer.labels.index(found.label)]


@pytest.mark.parametrize("method", ["layercam", "gradcam"])
def test_the_map_is_the_one_of_the_papers(trained, method):
    """Recomputed in float64 from the features and the gradients that Paddle gives for them."""
    import cv2

    explainer = Explainer(trained.run, method=method)
    file = sorted(trained.data.rglob("*.jpg"))[3]
    found = explainer.explain(file, label="dog")
    network = explainer._network
    x = np.empty((1, 3, *found.image.shape[:2]), np.float32)
    explainer._normalize.write(found.image, x[0])
    with _feature_maps(network) as maps:
        network(paddle.to_tensor(x))
    features = leaf_instead_of(network, paddle.to_tensor(x), len(maps))
    activation, gradient = features.numpy()[0].astype(np.float64), features.grad.numpy()[0].astype(np.float64)
    weights = np.maximum(gradient, 0) if method == "layercam" else gradient.mean(axis=(1, 2), keepdims=True)
    expected = cv2.resize(np.maximum((weights * activation).sum(0), 0), x.shape[:1:-1], interpolation=cv2.INTER_CUBIC)
    expected = np.maximum(expected, 0)
    if expected.max() > 0:
        np.testing.assert_allclose(found.heat, expected / expected.max(), atol=2e-3)
    else:
        assert not found.heat.any()


def leaf_instead_of(network, x, number):
    """Run a network with a leaf in place of the feature map of that number, and back-propagate class 0 to the leaf."""
    seen, leaves = 0, []

    def replace(layer, inputs, output):
        nonlocal seen
        if output.ndim == 4 and min(output.shape[2:]) > 1:
            seen += 1
            if seen == number:
                leaves.append(output.detach().clone())
                leaves[0].stop_gradient = False
                return leaves[0]
        return None

    hooks = [layer.register_forward_post_hook(replace) for layer in network.sublayers()]
    network(x)[0, 0].backward()
    for hook in hooks:
        hook.remove()
    return leaves[0]


@pytest.mark.parametrize("name", [n for n in network_names() if "x" not in n or n.endswith("x0_25")])
def test_every_family_has_feature_maps_with_gradients(name):
    network = build_network(find_network(name).name, 3)
    network.eval()
    x = paddle.randn([1, 3, 96, 96])
    x.stop_gradient = False
    with _feature_maps(network) as maps:
        logits = network(x)
    (gradient,) = paddle.grad(logits.max(), [maps[-1]])  # of SqueezeNet, other logits may be 0
    assert gradient.shape == maps[-1].shape and min(gradient.shape[2:]) > 1
    assert float(gradient.abs().sum()) > 0


def test_the_command_writes_pictures_and_replaces_only_its_own(trained, tmp_path):
    pplc = Pplc(tmp_path)
    files = [str(file) for file in sorted(trained.data.rglob("*.jpg"))[:2]]
    (tmp_path / "junk.jpg").write_text("no image", encoding="utf-8")
    done = pplc("explain", "--run", str(trained.run), "--output", "maps", *files, "junk.jpg", check=False)
    assert done.returncode == 1 and "junk.jpg: " in done.stderr and len(done.stdout.splitlines()) == 2
    names = sorted(file.name for file in (tmp_path / "maps").iterdir())
    assert names == ["图 00.png", "图 01.png"]
    with Image.open(tmp_path / "maps" / names[0]) as picture:
        assert picture.size[0] > 600 and np.asarray(picture).std() > 10
    (tmp_path / "maps" / names[0]).write_bytes(b"mine")
    refused = pplc("explain", "--run", str(trained.run), "--output", "maps", files[0], check=False)
    assert "is no picture of pplc explain" in refused.stderr and (tmp_path / "maps" / names[0]).read_bytes() == b"mine"
    wrong = pplc("explain", "--run", str(trained.run), "--label", "dgo", files[0], check=False)
    assert wrong.stderr.strip() == "Error: no class 'dgo'; did you mean dog?"


def test_equal_names_get_numbers(trained, tmp_path):
    explainer, folder = Explainer(trained.run), HeatMapFolder(tmp_path / "out")
    file = next(trained.data.rglob("*.jpg"))
    assert [folder.save(explainer.explain(file)).name for _ in range(2)] == [f"{file.stem}.png", f"{file.stem}_2.png"]
    with pytest.raises(PredictError, match="unknown method"):
        Explainer(trained.run, method="guess")
