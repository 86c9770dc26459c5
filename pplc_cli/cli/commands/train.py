"""``pplc train`` and ``pplc distill``. Only click and the standard library load here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

import click

from pplc_cli.cli.options import common, overrides_of

if TYPE_CHECKING:
    from pplc_cli.config.sections import Config
    from pplc_cli.training.launch.launcher import ClusterSpec


def _recipe(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of everything that trains."""
    for option in reversed(
        (
            click.option("--resume", is_flag=True, help="Go on after the last whole epoch."),
            click.option("--force", is_flag=True, help="Replace a run that is there."),
            click.option("--output", metavar="FOLDER", help="The run's folder."),
            click.option("--model", metavar="NAME", help="The network, as in PPLCNet_x0_5."),
            click.option(
                "--pretrained", metavar="WHAT", help="auto, none, imagenet, imagenet_ssld, builtin or a file."
            ),
            click.option("--epochs", type=int, help="Passes over the training list."),
            click.option("--batch-size", type=int, help="Images a step."),
            click.option("--learning-rate", type=float, help="Before warm-up and decay."),
            click.option("--seed", type=int, help="Another seed gives another run."),
            click.option("--threads", type=int, help="Default: physical cores."),
        )
    ):
        command = option(command)
    return command


@click.command()
@click.argument("config_argument", metavar="[CONFIG]", required=False)
@common
@_recipe
@click.option("--device", metavar="WHERE", help="cpu, auto, gpu:0, or gpu:0,1 for a process on each.")
@click.option("--nproc", type=click.IntRange(1), help="Training processes on this machine, sharing each batch.")
@click.option("--nnodes", type=click.IntRange(1), default=1, help="Machines; start the same command on each.")
@click.option("--master", metavar="HOST:PORT", help="The first machine, the same on all.")
@click.option("--node", type=click.IntRange(0), default=0, help="This machine's number, 0 for the first.")
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
    **recipe: Any,
) -> None:
    """Train the network that CONFIG describes."""
    from pplc_cli.cli.locate import find_config

    flags = overrides_of(overrides, **_keys(recipe), train__device=device)
    config = find_config(config_argument or config_option, dataset, flags, must_exist=("data.dir", "model.pretrained"))
    from pplc_cli.training.launch.launcher import ClusterSpec

    _train(config, ClusterSpec(nproc or config.train.device.count(",") + 1, nnodes, master, node), resume, force)


@click.command()
@click.argument("config_argument", metavar="[CONFIG]", required=False)
@common
@click.option("--teacher", metavar="WHAT", help="A run, an exported folder, an ONNX file, or a network of the zoo.")
@click.option("--weights", metavar="WHAT", help="Of a network of the zoo, as --pretrained.")
@click.option("--unlabelled", metavar="FOLDER", help="More images to learn from, without labels.")
@click.option("--divergence", metavar="NAME", help="js (Jensen-Shannon) or kl (Kullback-Leibler).")
@click.option("--temperature", type=float, help="Above 1, the unlikely classes count more (1).")
@click.option("--soft", type=float, help="Weight of the teacher's labels (1).")
@click.option("--features", type=float, help="Weight of what the teacher's classifier reads (0).")
@click.option("--hard", type=float, help="Weight of the lists' own labels (0).")
@click.option("--views", type=int, help="Augmented versions of each image that the teacher sees (4).")
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
    """Train the network that CONFIG describes to say what a teacher says, also of images without labels.

    What the teacher says is computed once and kept in the run's folder. The run is one like those of pplc train.
    """
    from pplc_cli.base.errors import ConfigError
    from pplc_cli.cli.locate import find_config

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
    file = config_argument or config_option
    config = find_config(file, dataset, flags, must_exist=("data.dir", "model.pretrained"))
    if config.distill.teacher is None:
        raise ConfigError(file or "the options", ["distill.teacher: expected a teacher; name it with --teacher"])
    from pplc_cli.training.launch.launcher import ClusterSpec

    _train(config, ClusterSpec(1, 1, None, 0), resume, force)


def _keys(recipe: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys of the shared options, dots as two underscores."""
    sections = {"output": "output", "model": "model__name", "pretrained": "model__pretrained"}
    return {sections.get(name, f"train__{name}"): value for name, value in recipe.items()}


def _train(config: Config, hosts: ClusterSpec, resume: bool, force: bool) -> None:
    """Train, in this process or several, telling how it goes."""
    from pplc_cli.cli.console import results
    from pplc_cli.cli.console.progress import TrainProgress
    from pplc_cli.training.launch.launcher import launch
    from pplc_cli.training.train import train as run_training

    with TrainProgress() as reporter:
        try:
            if hosts.nproc * hosts.nnodes == 1:
                result = run_training(config, resume=resume, force=force, reporter=reporter)
            else:
                launched = launch(config, hosts, resume=resume, force=force, reporter=reporter)
                if launched is None:
                    print(f"done; the run is on the first machine, {hosts.master}")
                    return
                result = launched
        except KeyboardInterrupt:
            reporter.note("interrupted; the same command with --resume goes on after the last whole epoch")
            sys.exit(130)
    results.print_trained(result)
