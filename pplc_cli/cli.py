"""The command line: it parses, calls the library once, and prints. Only click and the standard library load here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Optional

import click

from . import __version__
from .cli_weights import weights


class _Group(click.Group):
    """Turns every error that a user can cause into one message and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        from .errors import PplcError

        try:
            return super().invoke(ctx)
        except PplcError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error}") from error
        except MemoryError as error:
            raise click.ClickException("out of memory; try a smaller batch size (-o train.batch_size=4)") from error


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that every command takes."""
    for option in (
        click.option("-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE",
                     help="Set a value of the configuration, as in -o train.epochs=5."),
        click.option("--dataset", metavar="NAME", help="A folder, a name under datasets/, or of configs/NAME.yaml."),
        click.option("--config", "config_option", metavar="FILE", help="The YAML that drives every step."),
    ):  # fmt: skip
        command = option(command)
    return command


def _run_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--run", metavar="FOLDER", help="The trained run; default: the latest.")(command)


def _overrides(texts: tuple[str, ...], **flags: Any) -> dict[str, Any]:
    """Dotted keys from -o and from flags (section__key); a flag wins."""
    from .config import parse_override

    values = dict(parse_override(text) for text in texts)
    values.update({key.replace("__", "."): value for key, value in flags.items() if value is not None})
    return values


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pplc")
def cli() -> None:
    """Train, export and run light image classifiers on computers without a GPU.

    \b
    pplc split --dataset pandatiger       cut a folder of classes into lists
    pplc train configs/pandatiger.yaml    train PP-LCNet
    pplc eval                             measure it
    pplc export                           write the model that PaddleX loads
    pplc predict img.jpg                  ask it
    """


@cli.command()
@click.argument("folder")
@click.option("--output", metavar="FILE", help="The YAML to write; default: configs/NAME.yaml.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(folder: str, output: Optional[str], force: bool) -> None:
    """Write a commented configuration for the data set FOLDER."""
    from pathlib import Path

    from .files import user_path
    from .init import write_config

    file = write_config(folder, output or Path("configs") / f"{user_path(folder).resolve().name}.yaml", force=force)
    click.echo(f"{file} written. Next: pplc split --config {file}")


@cli.command()
@_common
@click.option("--val", type=float, help="Share of each class for validation (0.2).")
@click.option("--test", type=float, help="Share of each class kept for testing (0.1).")
@click.option("--seed", type=int, help="Another seed gives another split (0).")
@click.option("--group", metavar="REGEX", help="Pictures whose paths match with the same (group) stay together.")
@click.option("--format", "list_format", help="paddlex2 (train_list.txt, ...) or paddlex3 (train.txt, ...).")
@click.option("--force", is_flag=True, help="Replace lists that are there.")
def split(
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    val: Optional[float],
    test: Optional[float],
    seed: Optional[int],
    group: Optional[str],
    list_format: Optional[str],
    force: bool,
) -> None:
    """Cut a folder with one folder a class into training, validation and test lists."""
    from . import ui
    from .data.split import split_dataset
    from .find import find_config

    flags = _overrides(
        overrides, split__val=val, split__test=test, split__seed=seed, split__group=group, split__format=list_format
    )
    config = find_config(config_option, dataset, flags, must_exist=("data.dir",))
    with ui.counter("checking pictures") as progress:
        report = split_dataset(config.data.dir, config.split, force=force, progress=progress)
    ui.print_split(config.data.dir, report)


@cli.command()
@click.argument("config_argument", metavar="[CONFIG]", required=False)
@_common
@click.option("--output", metavar="FILE", help="The PNG to write; default: preview.png in the run's folder.")
@click.option("--images", type=click.IntRange(1, 50), default=6, show_default=True, help="Rows.")
@click.option("--seed", type=int, default=0, help="Other random draws.")
def preview(
    config_argument: Optional[str],
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    output: Optional[str],
    images: int,
    seed: int,
) -> None:
    """Draw what the training operators do to pictures."""
    from pathlib import Path

    from .find import find_config
    from .preview import preview as draw

    config = find_config(config_argument or config_option, dataset, _overrides(overrides), must_exist=("data.dir",))
    click.echo(f"{draw(config, output or Path(config.output) / 'preview.png', images=images, seed=abs(seed))} written")


@cli.command()
@click.argument("config_argument", metavar="[CONFIG]", required=False)
@_common
@click.option("--resume", is_flag=True, help="Go on after the last whole epoch.")
@click.option("--force", is_flag=True, help="Replace a run that is there.")
@click.option("--output", metavar="FOLDER", help="The run's folder.")
@click.option("--model", metavar="NAME", help="The network, as in PPLCNet_x0_5.")
@click.option("--pretrained", metavar="WHAT", help="none, imagenet, imagenet_ssld or a weights file.")
@click.option("--epochs", type=int, help="Passes over the training list.")
@click.option("--batch-size", type=int, help="Pictures a step.")
@click.option("--learning-rate", type=float, help="Before warm-up and decay.")
@click.option("--seed", type=int, help="Another seed gives another run.")
@click.option("--threads", type=int, help="Default: physical cores.")
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
    output: Optional[str],
    model: Optional[str],
    pretrained: Optional[str],
    epochs: Optional[int],
    batch_size: Optional[int],
    learning_rate: Optional[float],
    seed: Optional[int],
    threads: Optional[int],
    device: Optional[str],
    nproc: Optional[int],
    nnodes: int,
    master: Optional[str],
    node: int,
) -> None:
    """Train the network that CONFIG describes."""
    from . import ui
    from .find import find_config

    flags = _overrides(
        overrides,
        output=output,
        model__name=model,
        model__pretrained=pretrained,
        train__epochs=epochs,
        train__batch_size=batch_size,
        train__learning_rate=learning_rate,
        train__seed=seed,
        train__threads=threads,
        train__device=device,
    )
    file = config_argument or config_option
    config = find_config(file, dataset, flags, must_exist=("data.dir", "model.pretrained"))
    from .launch import Hosts, launch
    from .training import train as run_training

    hosts = Hosts(nproc or config.train.device.count(",") + 1, nnodes, master, node)
    with ui.TrainProgress() as reporter:
        try:
            if hosts.nproc * hosts.nnodes == 1:
                result = run_training(config, resume=resume, force=force, reporter=reporter)
            else:
                launched = launch(config, hosts, resume=resume, force=force, reporter=reporter)
                if launched is None:
                    print(f"done; the run is on the first machine, {master}")
                    return
                result = launched
        except KeyboardInterrupt:
            reporter.note("interrupted; the same command with --resume goes on after the last whole epoch")
            sys.exit(130)
    ui.print_trained(result)


@cli.command(name="eval")
@_common
@_run_option
@click.option("--split", "part", metavar="NAME", help="train, val or test; default: test, else val.")
@click.option("--data", metavar="FOLDER", help="A folder with one folder a class, instead of a list.")
@click.option("--output", metavar="FOLDER", help="The report's folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def evaluate(
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    run: Optional[str],
    part: Optional[str],
    data: Optional[str],
    output: Optional[str],
    as_json: bool,
) -> None:
    """Measure a trained network: accuracy, per-class figures, confusion matrix, worst mistakes."""
    from . import ui
    from .evaluation import evaluate as measure
    from .find import find_trained

    trained, config = find_trained(run, config_option, dataset, _overrides(overrides, eval__split=part))
    with ui.counter("measuring") as progress:
        found = measure(trained, config, data=data, output=output, progress=progress)
    ui.print_evaluation(found, as_json)


@cli.command()
@_common
@_run_option
@click.option("--output", metavar="FOLDER", help="The folder to write; default: inference_model in the run.")
def export(
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    run: Optional[str],
    output: Optional[str],
) -> None:
    """Write the model that PaddleX 3 loads, and check it against the trained network."""
    from .exporting import export as write
    from .find import find_trained

    trained, config = find_trained(run, config_option, dataset, _overrides(overrides))
    done = write(trained, config, output=output)
    click.echo(
        f"{done.folder} written: agrees with the trained network to {done.difference:.1e} on {done.images} pictures."
    )
    if done.in_paddlex:
        click.echo(f"PaddleX loads it with: paddlex.create_model({done.model_name!r}, model_dir={str(done.folder)!r})")
    else:
        click.echo(
            f"pplc predict and Paddle Inference run it. PaddleX has no {done.model_name}, and looks at the name alone: "
            "-o export.model_name=PP-LCNet_x1_0 writes one that it takes"
        )


@cli.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@_common
@_run_option
@click.option("--model", metavar="FOLDER", help="An exported folder, ours or PaddleX's.")
@click.option("--threads", type=int, help="Default: physical cores.")
@click.option("--mkldnn/--no-mkldnn", default=None, help="oneDNN kernels (on).")
@click.option("--batch-size", type=int, help="Pictures that run together (8).")
@click.option("--top-k", type=int, help="Labels a picture (1).")
@click.option("--json", "style", flag_value="json", help="A line of JSON a picture.")
@click.option("--csv", "style", flag_value="csv", help="A line of CSV a picture.")
@click.option("--save", metavar="FOLDER", help="Save the pictures with their labels drawn in.")
@click.option("--show", is_flag=True, help="Open them in the system's viewer.")
def predict(
    inputs: tuple[str, ...],
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    run: Optional[str],
    model: Optional[str],
    threads: Optional[int],
    mkldnn: Optional[bool],
    batch_size: Optional[int],
    top_k: Optional[int],
    style: Optional[str],
    save: Optional[str],
    show: bool,
) -> None:
    """Say what is on pictures: files, folders, globs, list files, addresses, or - for standard input.

    The exit status is 1 where a picture could not be used; the others are predicted all the same.
    """
    from . import ui
    from .find import find_predictor

    flags = _overrides(
        overrides,
        predict__threads=threads,
        predict__mkldnn=mkldnn,
        predict__batch_size=batch_size,
        predict__top_k=top_k,
    )
    predictor, settings = find_predictor(model, run, config_option, dataset, flags)
    from .inputs import expand

    answers = predictor.predict(expand(inputs), top_k=settings.top_k, keep_images=bool(save or show))
    failed = ui.print_predictions(answers, predictor, style or "text", save, show)
    if failed:
        sys.exit(1)


@cli.command()
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("--max-params", type=float, metavar="MILLIONS", help="None with more parameters.")
@click.option("--max-macs", type=float, metavar="MILLIONS", help="None with more multiply-adds.")
@click.option("--min-top1", type=float, metavar="PERCENT", help="None with a lower published accuracy.")
@click.option("--cached", is_flag=True, help="Only those whose weights are in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
def models(
    words: tuple[str, ...],
    max_params: Optional[float],
    max_macs: Optional[float],
    min_top1: Optional[float],
    cached: bool,
    as_json: bool,
) -> None:
    """List the networks; WORDs choose those whose names have one of them."""
    from .models.zoo import list_networks
    from .printing import print_models

    found = list_networks(words, max_params=max_params, max_macs=max_macs, min_top1=min_top1, cached=cached)
    print_models(found, as_json)


_PICTURE_SIZE = click.option(
    "--size", type=click.IntRange(8, 4096), default=224, show_default=True, help="Side of the pictures."
)


@cli.command()
@click.argument("target", metavar="NETWORK|RUN|FILE.py[:CLASS]")
@_PICTURE_SIZE
@click.option("--batch-size", type=click.IntRange(1, 1024), default=1, show_default=True, help="Pictures at a time.")
@click.option("--threads", type=click.IntRange(1), help="Default: physical cores.")
@click.option("--output", metavar="FILE", help="Draw time and multiply-adds by layer, as a PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def profile(
    target: str, size: int, batch_size: int, threads: Optional[int], output: Optional[str], as_json: bool
) -> None:
    """What each layer of a network costs on this CPU, and what the design rules say of it."""
    from .files import user_path
    from .runtime import load_paddle

    load_paddle(threads)
    from .printing import print_profile
    from .profiling import profile as measure
    from .rules import check
    from .targets import find_target

    name, network = find_target(target)
    found = measure(network, name, size=(size, size), batch=batch_size, threads=threads)
    print_profile(found, check(found), as_json)
    if output:
        from .charts import draw_profile

        draw_profile(user_path(output), found)
        click.echo(f"{output} written", err=as_json)


@cli.command()
@click.argument("targets", nargs=-1, required=True, metavar="NETWORK|RUN|FILE.py[:CLASS]...")
@_PICTURE_SIZE
@click.option("--batch-size", type=click.IntRange(2, 1024), default=16, show_default=True, help="For the throughput.")
@click.option("--threads", type=click.IntRange(1), help="Default: physical cores.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Turns of each network.")
@click.option("--output", metavar="FILE", help="Draw accuracy against latency, as a PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
def compare(
    targets: tuple[str, ...],
    size: int,
    batch_size: int,
    threads: Optional[int],
    rounds: int,
    output: Optional[str],
    as_json: bool,
) -> None:
    """Latency and throughput of several networks on this machine, measured in turn."""
    from .comparing import compare as measure
    from .files import user_path
    from .printing import print_comparison

    found = measure(targets, size=(size, size), batch=batch_size, threads=threads, rounds=rounds)
    print_comparison(found, batch_size, as_json)
    if output:
        from .charts import draw_comparison

        draw_comparison(user_path(output), found)
        click.echo(f"{output} written", err=as_json)


cli.add_command(weights)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names that are no UTF-8 must not stop a command
    cli(prog_name="pplc")
