"""How weights that know something are fitted to new pictures: which layers learn, how fast, and from where.

A linear probe first and fine-tuning then keeps features that a random classifier's gradients would spoil: Kumar et al.,
2022, arXiv:2202.10054. Rates that fall towards the input: Howard and Ruder, 2018, arXiv:1801.06146.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Optional

import numpy as np
import paddle

from .data.loader import Batch
from .frozen import place_parameters
from .runtime import as_tensor

DECAY = 0.7  # of the learning rate from a part of the network to the one before it
FEW = 30  # pictures a class; see scripts/benchmark_transfer.py
PROBE_VIEWS = 2  # augmented versions of each picture that the probe sees
PROBE_C = 1.0  # how far scikit-learn's logistic regression may go, on features of unit variance


def choose(pictures: int, classes: int, pretrained: bool) -> tuple[str, str]:
    """What ``train.transfer: auto`` takes, and why.

    Args:
        pictures: to train on.
        classes: how many there are.
        pretrained: whether the network starts from weights.
    """
    each = pictures / max(1, classes)
    if not pretrained:
        return "full", "random weights have to learn everything"
    if each < FEW:
        return "head", f"{each:.0f} pictures a class are few"
    return "stages", f"{each:.0f} pictures a class are enough to fit the features too"


def rate_factors(network: Any, size: tuple[int, int], decay: float = DECAY) -> dict[str, float]:
    """By parameter name, what its learning rate is multiplied with: 1 in the classifier, less towards the input.

    Args:
        network: with ``parts``, see :class:`pplc_cli.models.layers.PartedNetwork`.
        size: height and width of its pictures.
        decay: from a part to the one before it.
    """
    last = len(network.parts()) - 1
    return {name: decay ** (last - number) for name, number in place_parameters(network, size).items()}


def probe(network: Any, front: Any, classifier: Any, batches: Iterable[Batch]) -> Optional[str]:
    """Fit the classifier to the features as they are, by logistic regression.

    Args:
        network: with ``parts``.
        front: all of it but its last part, images to features.
        classifier: the linear layer in the last part.
        batches: of pictures to train on.

    Returns:
        Why it stays as it is; None: it was fitted.
    """
    if not isinstance(classifier, paddle.nn.Linear):
        return "its classifier is no linear layer"
    training, seen, labels = network.training, [], []
    network.eval()
    with paddle.no_grad():
        for batch in batches:
            seen.append(front(as_tensor(batch.images)).numpy())
            labels.append(batch.labels)
        # Dropout may scale what comes before the classifier, also in evaluation.
        one = paddle.ones([1, seen[0].shape[1]])
        part = float(((network.parts()[-1][1](one) - classifier.bias) / (classifier(one) - classifier.bias)).mean())
    if training:
        network.train()
    features, targets = np.concatenate(seen) * part, np.concatenate(labels)
    known = targets >= 0
    features, targets = features[known].astype(np.float64), targets[known]
    classes = np.unique(targets)
    if len(classes) < 2:
        return "its pictures are all of one class"
    from sklearn.linear_model import LogisticRegression

    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    fitted = LogisticRegression(C=PROBE_C / len(features), max_iter=300).fit((features - mean) / deviation, targets)
    rows, bias = fitted.coef_, fitted.intercept_
    if len(classes) == 2:  # one row stands for both
        rows, bias = np.stack([-rows[0] / 2, rows[0] / 2]), np.array([-bias[0] / 2, bias[0] / 2])
    weight = np.zeros((features.shape[1], classifier.weight.shape[1]))
    shift = np.full(classifier.weight.shape[1], bias.min() - 10.0)  # classes without a picture are never the answer
    weight[:, classes] = (rows / deviation).T
    shift[classes] = bias - (rows / deviation) @ mean
    classifier.weight.set_value(weight.astype(np.float32))
    classifier.bias.set_value(shift.astype(np.float32))
    return None
