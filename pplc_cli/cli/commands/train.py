"""``pplc train`` and ``pplc distill``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Optional, Union

import click

from pplc_cli.base.errors import PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.cli.command import Command, Interrupted, echo
from pplc_cli.cli.options import RenamedOption, config_options, overrides_of

if TYPE_CHECKING:
    from pplc_cli.cli.console.progress import TrainProgress
    from pplc_cli.config.sections import Config
    from pplc_cli.training.launch.launcher import ClusterSpec


class _BatchSize(click.ParamType):
    """Parses a number or ``auto``."""

    name = "integer or auto"

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> Union[int, str]:
        try:
            return "auto" if value == "auto" else int(value)
        except ValueError:
            self.fail(tr("expected an integer or auto, got {value!r}", value=value), param, ctx)


def _recipe(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that both commands share."""
    for option in reversed(
        (
            click.option(
                "--resume",
                is_flag=True,
                help="Continue an interrupted run after its last complete epoch; by itself, the latest run.",
            ),
            click.option("--force", is_flag=True, help="Replace an existing run."),
            click.option(
                "--output",
                metavar="FOLDER",
                help="The folder for the run.  [default: the configuration's, else output/NAME of the data set]",
            ),
            click.option(
                "--network",
                "--model",
                "model",
                cls=RenamedOption,
                metavar="NAME",
                help="The network; pplc models lists them.  [default: PPLCNet_x1_0]",
            ),
            click.option(
                "--pretrained",
                metavar="WEIGHTS",
                help="Starting weights: auto, none, imagenet, imagenet_ssld, builtin, a file or a best_model folder.  "
                "[default: auto]",
            ),
            click.option("--epochs", type=int, help="Passes over the training list.  [default: 10]"),
            click.option("--batch-size", type=_BatchSize(), help="Images per training step, or auto.  [default: 32]"),
            click.option("--learning-rate", type=float, help="Peak learning rate.  [default: 0.025]"),
            click.option("--seed", type=int, help="Random seed; the same seed repeats the run.  [default: 0]"),
            click.option("--threads", type=int, help="Threads for training.  [default: physical cores]"),
        )
    ):
        command = option(command)
    return command


@click.command(cls=Command)
@click.argument("config_argument", metavar="[CONFIG]", required=False)
@config_options
@_recipe
@click.option(
    "--device", metavar="NAME", help="cpu, auto, gpu:0, or gpu:0,1 for one process on each GPU.  [default: cpu]"
)
@click.option(
    "--nproc",
    type=click.IntRange(1),
    help="Training processes on this machine, which share each batch.  [default: one, or one per GPU]",
)
@click.option(
    "--nnodes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of machines; run the same command on each.",
)
@click.option("--master", metavar="HOST:PORT", help="Address of machine 0; give the same value on every machine.")
@click.option("--node", type=click.IntRange(0), default=0, show_default=True, help="Number of this machine, from 0.")
@click.option(
    "--folds",
    type=click.IntRange(2, 20),
    metavar="K",
    help="Cross-validate: divide training and validation images into K folds, and train once for each.",
)
@click.option(
    "--find-lr", is_flag=True, help="Do not train: measure which learning rates are possible, and suggest one."
)
def train(
    config_argument: Optional[str],
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    resume: bool,
    force: bool,
    device: Optional[str],
    nproc: Optional[int],
    nnodes: int,
    master: Optional[str],
    node: int,
    folds: Optional[int],
    find_lr: bool,
    **recipe: Any,
) -> None:
    """Train a network.

    CONFIG is a YAML file, as with --config; the defaults apply where it sets no value. Without it, give --dataset.
    """
    from pplc_cli.cli.locate import find_recipe

    flags = overrides_of(overrides, **_keys(recipe), train__device=device)
    if find_lr and resume:
        raise PplcError(tr("--find-lr always starts from the beginning; leave out --resume"))
    if folds and resume and not (config_argument or config_option or dataset):
        raise PplcError(tr("expected the configuration: pplc train CONFIG --folds K --resume"))
    config = find_recipe(config_argument or config_option, dataset, flags, resume=resume)
    processes = (nproc or config.train.device.count(",") + 1) * nnodes
    if (folds or find_lr) and (processes > 1 or (folds and find_lr)):
        raise PplcError(tr("--folds, --find-lr and several processes cannot be combined; choose one of them"))
    if find_lr:
        _find_rate(config)
        return
    if folds:
        _train_folds(config, folds, resume, force)
        return
    from pplc_cli.training.launch.launcher import ClusterSpec

    _train(config, ClusterSpec(nproc or config.train.device.count(",") + 1, nnodes, master, node), resume, force)


def _find_rate(config: Config) -> None:
    """Run the range test, and keep its picture and its numbers in the folder of the configuration."""
    from pplc_cli.cli.console.progress import TrainProgress
    from pplc_cli.cli.console.tuning import print_rates
    from pplc_cli.tuning.lr_finder import find_learning_rate

    with TrainProgress() as reporter:
        found = find_learning_rate(config, reporter=reporter)
    print_rates(found, config.output)


def _train_folds(config: Config, folds: int, resume: bool, force: bool) -> None:
    from pplc_cli.cli.console.tuning import print_folds
    from pplc_cli.tuning.folds import train_folds

    with _training() as reporter:
        result = train_folds(config, folds, resume=resume, force=force, reporter=reporter)
    print_folds(result)


@click.command(cls=Command)
@click.argument("config_argument", metavar="[CONFIG]", required=False)
@config_options
@click.option(
    "--teacher", metavar="MODEL", help="The teacher: a run, an exported folder, an ONNX file, or a network's name."
)
@click.option(
    "--weights",
    metavar="WEIGHTS",
    help="Weights for a --teacher given by name, with values as for --pretrained.  [default: its best official ones]",
)
@click.option("--unlabelled", metavar="FOLDER", help="More training images, without labels.")
@click.option("--divergence", metavar="NAME", help="Loss: js (Jensen-Shannon) or kl (Kullback-Leibler).  [default: js]")
@click.option(
    "--temperature", type=float, help="Softmax temperature; above 1, improbable classes count more.  [default: 1]"
)
@click.option("--soft", type=float, help="Weight of the loss against the teacher's probabilities.  [default: 1]")
@click.option("--features", type=float, help="Weight of the loss against the teacher's features.  [default: 0]")
@click.option("--hard", type=float, help="Weight of the loss against the labels of the lists.  [default: 0]")
@click.option(
    "--views", type=int, help="Augmented versions of each image; the teacher classifies each once.  [default: 4]"
)
@_recipe
def distill(
    config_argument: Optional[str],
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    teacher: Optional[str],
    weights: Optional[str],
    unlabelled: Optional[str],
    divergence: Optional[str],
    temperature: Optional[float],
    soft: Optional[float],
    features: Optional[float],
    hard: Optional[float],
    views: Optional[int],
    resume: bool,
    force: bool,
    **recipe: Any,
) -> None:
    """Train a network on the predictions of a teacher.

    CONFIG is a YAML file, as for pplc train; the defaults apply where it sets no value. Without a teacher, the best
    network whose ImageNet weights are on this machine is fitted to the images first, and kept as a run beside that of
    the student; a measured recipe then replaces the defaults below. Images without labels can be added with
    --unlabelled. The teacher classifies each augmented version of an image once; its predictions are kept in
    the run's folder. The result is a run like those of pplc train.
    """
    from pplc_cli.cli.locate import find_recipe
    from pplc_cli.config.sections import OWN_TEACHER

    flags = overrides_of(
        overrides,
        **_keys(recipe),
        data__unlabelled=unlabelled,
        distill__teacher=teacher,
        distill__weights=weights,
        distill__divergence=divergence,
        distill__temperature=temperature,
        distill__soft=soft,
        distill__features=features,
        distill__hard=hard,
        distill__views=views,
    )
    config = find_recipe(config_argument or config_option, dataset, flags, resume=resume)
    if config.distill.teacher in (None, OWN_TEACHER):
        from pplc_cli.training.distill.own_teacher import with_own_teacher
        from pplc_cli.training.train import train as run_training

        with _training() as reporter:
            config = with_own_teacher(config, reporter, run_training, given=flags, resume=resume, force=force)
    from pplc_cli.training.launch.launcher import ClusterSpec

    _train(config, ClusterSpec(1, 1, None, 0), resume, force)


@contextlib.contextmanager
def _training() -> Iterator[TrainProgress]:
    """Show the progress of training; an interruption ends it with the advice to resume."""
    from pplc_cli.cli.console.progress import TrainProgress

    with TrainProgress() as reporter:
        try:
            yield reporter
        except KeyboardInterrupt as error:
            advice = tr("Repeat the command with --resume to continue after the last complete epoch.")
            raise Interrupted(error, advice) from None


def _keys(recipe: dict[str, Any]) -> dict[str, Any]:
    """Name the shared options by their keys in the configuration, with two underscores for a dot."""
    sections = {"output": "output", "model": "model__name", "pretrained": "model__pretrained"}
    return {sections.get(name, f"train__{name}"): value for name, value in recipe.items()}


def _train(config: Config, hosts: ClusterSpec, resume: bool, force: bool) -> None:
    """Train in this process or in several, with progress."""
    from pplc_cli.cli.console import results
    from pplc_cli.training.launch.launcher import launch
    from pplc_cli.training.train import train as run_training

    with _training() as reporter:
        if hosts.nproc * hosts.nnodes == 1:
            result = run_training(config, resume=resume, force=force, reporter=reporter)
        else:
            launched = launch(config, hosts, resume=resume, force=force, reporter=reporter)
            if launched is None:
                echo(tr("finished; the run is on machine 0, {address}", address=hosts.master))
                return
            result = launched
    results.print_trained(result)
