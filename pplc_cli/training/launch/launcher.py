"""Start several training processes through Paddle's launcher, and follow them until they end."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from pplc_cli.base.errors import TrainError
from pplc_cli.base.hardware import WORKER
from pplc_cli.base.language.messages import current_language, tr
from pplc_cli.base.paddle import QUIET
from pplc_cli.base.processes.signals import EndingSignals
from pplc_cli.base.storage.files import user_path, write_text
from pplc_cli.config.own_code import loaded_files
from pplc_cli.config.sections import Config
from pplc_cli.training.progress import Reporter
from pplc_cli.training.runs.run import Run
from pplc_cli.training.runs.run_folder import RunFolder
from pplc_cli.training.train import TrainResult


@dataclasses.dataclass(frozen=True)
class ClusterSpec:
    """The machines and processes of a run.

    Attributes:
        nproc: processes on this machine.
        nnodes: number of machines.
        master: ``HOST:PORT`` of machine 0, the same on all machines; None for one machine.
        node: this machine's number, 0 for the first.
    """

    nproc: int = 1
    nnodes: int = 1
    master: Optional[str] = None
    node: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            TrainError: they are incomplete or contradict each other.
        """
        if self.nnodes > 1 and not self.master:
            raise TrainError(
                tr(
                    "--nnodes {nnodes} needs the address of machine 0 on every machine, as in --master "
                    "192.168.0.1:8765",
                    nnodes=self.nnodes,
                )
            )
        host, _, port = (self.master or "").rpartition(":")
        if self.master and not (host and port.isdecimal() and 0 < int(port) < 65536):
            raise TrainError(
                tr(
                    "--master {master}: expected HOST:PORT of machine 0, as in --master 192.168.0.1:8765",
                    master=self.master,
                )
            )
        if self.nnodes == 1 and (self.node or self.master):
            option = f"--node {self.node}" if self.node else f"--master {self.master}"
            raise TrainError(tr("{option} is for several machines; give their number with --nnodes", option=option))
        if not 0 <= self.node < self.nnodes:
            raise TrainError(
                tr(
                    "--node {node}: expected a number from 0 to {last}, different on each machine",
                    node=self.node,
                    last=self.nnodes - 1,
                )
            )


def launch(
    config: Config, hosts: ClusterSpec, *, resume: bool, force: bool, reporter: Reporter
) -> Optional[TrainResult]:
    """Train with several processes, as :func:`pplc_cli.training.train.train` does with one.

    Returns:
        The result; None on all machines but the first.

    Raises:
        TrainError: a process failed or was killed; the others are ended, and the last checkpoint is intact. The
            message is the worker's own if it has one.
    """
    with EndingSignals(), tempfile.TemporaryDirectory(prefix="pplc-") as name:
        folder = Path(name)
        job = {"config": config.to_dict(), "code": loaded_files(), "resume": resume, "force": force}
        job["language"] = current_language()
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        with _launcher(folder, hosts, config.train.device) as process:
            result = _follow(process, folder, reporter)
        if process.returncode != 0:
            raise TrainError(_reason(folder, config))
    if result is None:
        return None
    return TrainResult(Run(user_path(config.output)), result["epochs"], result["best"], result["seconds"])


@contextlib.contextmanager
def _launcher(folder: Path, hosts: ClusterSpec, device: str) -> Iterator[subprocess.Popen]:
    """Run Paddle's launcher and its workers; they are ended when the block is left.

    The workers hold the reading end of a pipe and end when its writing end is closed. They therefore also end if this
    process or the launcher is killed.
    """
    command = [sys.executable, "-m", "paddle.distributed.launch", "--log_dir", str(folder / "log")]
    command += ["--nproc_per_node", str(hosts.nproc), "--max_restart", "0", "--job_id", "pplc"]
    if device.startswith("gpu:"):
        command += ["--devices", device.partition(":")[2]]
    if hosts.nnodes > 1:
        command += ["--nnodes", str(hosts.nnodes), "--master", str(hosts.master), "--rank", str(hosts.node)]
    else:
        command += ["--host", "127.0.0.1"]  # do not listen to other machines
    command += [str(Path(__file__).with_name("worker.py")), str(folder)]
    # The launcher would use variables left over from another job.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PADDLE_")}
    environment[WORKER] = "1"
    environment.setdefault(*QUIET)
    with (folder / "launcher.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _follow(process: subprocess.Popen, folder: Path, reporter: Reporter) -> Optional[dict[str, Any]]:
    """Pass on process 0's reports until the launcher ends; returns the result in its last one, or None."""
    events, position, result = folder / "events.jsonl", 0, None
    while True:
        ended = process.poll() is not None
        if events.exists():
            with events.open(encoding="utf-8") as file:
                file.seek(position)
                while (line := file.readline()).endswith("\n"):
                    position = file.tell()
                    name, *values = json.loads(line)
                    if name == "done":
                        result = values[0]
                    else:
                        getattr(reporter, name)(*values)
        if ended:
            return result
        reporter.check()
        time.sleep(0.1)


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns


def _reason(folder: Path, config: Config) -> str:
    """Say in one line why the workers failed."""
    # The first failure is the cause; the others may have failed because they lost that process.
    for path in sorted(folder.glob("error.*"), key=_written):
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    for path in sorted(folder.glob("crash.*"), key=_written):
        text = path.read_text(encoding="utf-8", errors="replace")
        kept = RunFolder(user_path(config.output)).crash
        write_text(kept, text)
        last = text.strip().splitlines()[-1]
        return tr(
            "training process {rank} failed: {error} (more in {file}); the others were ended",
            rank=path.suffix[1:],
            error=last,
            file=kept,
        )
    log = (folder / "launcher.log").read_text(encoding="utf-8", errors="replace")
    dead = [line for line in log.splitlines() if "status failed" in line]
    what = tr("a training process died")
    if dead and " code " in dead[0]:
        rank, code = dead[0].split("rank ")[1].split()[0], dead[0].rpartition(" code ")[2].split()[0]
        if code.startswith("-"):
            what = tr("training process {rank} died (signal {signal})", rank=rank, signal=code[1:])
        else:
            what = tr("training process {rank} died (status {status})", rank=rank, status=code)
    if RunFolder(user_path(config.output)).last.exists():
        return tr(
            "{what}; the others were ended. The last epoch is saved: repeat the command with --resume to continue",
            what=what,
        )
    return tr("{what} before the end of the first epoch; the others were ended", what=what)
