"""One of several training processes: Paddle's launcher runs this file with a folder that launcher.py prepared."""

import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Optional

# Seconds that a worker waits after it has lost another one. Meanwhile the launcher ends it, and reports the worker that
# died; only for a worker on another machine it does not.
PATIENCE = 20


def end_with_parent() -> None:
    """End this process as soon as the parent process ends, which closes the pipe that is standard input."""
    os.read(0, 1)  # not sys.stdin, which would still be locked when this process exits
    os._exit(1)


def main(folder: Path) -> int:
    """Train with the settings of ``folder/job.json``; write the message of a failure to ``folder/error.RANK``."""
    from pplc_cli.base.errors import PplcError
    from pplc_cli.base.language.messages import use_language
    from pplc_cli.config.load import check_config
    from pplc_cli.config.own_code import load_files
    from pplc_cli.training.progress import Reporter
    from pplc_cli.training.world import ConnectionLost, is_main_process

    class Events(Reporter):
        """Writes each report as a line with a JSON list."""

        def _write(self, *event: Any) -> None:
            if is_main_process():
                with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(event) + "\n")

        def note(self, text: str) -> None:
            self._write("note", text)

        def download(self, done: int, total: Optional[int]) -> None:
            self._write("download", done, total)

        def step(self, record: dict[str, Any]) -> None:
            self._write("step", record)

        def epoch(self, record: dict[str, Any]) -> None:
            self._write("epoch", record)

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    use_language(job["language"])
    events, rank = Events(), os.environ.get("PADDLE_TRAINER_ID", "0")
    try:
        from pplc_cli.training.train import train

        load_files(job["config"], job["code"])
        result = train(check_config(job["config"]), resume=job["resume"], force=job["force"], reporter=events)
    except PplcError as error:
        if isinstance(error, ConnectionLost):
            time.sleep(PATIENCE)
        (folder / f"error.{rank}").write_text(str(error), encoding="utf-8", errors="surrogateescape")
        return 1
    except Exception:
        (folder / f"crash.{rank}").write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
        raise
    events._write("done", {"epochs": result.epochs, "best": result.best, "seconds": result.seconds})
    return 0


if __name__ == "__main__":
    # The folder that holds the package takes the place of this file's folder, whose modules would hide others.
    own = Path(__file__).resolve().parent
    sys.path[:] = [str(own.parents[2]), *(entry for entry in sys.path if entry != str(own))]
    for proxy in ("http_proxy", "https_proxy"):  # the launcher hides them from itself
        if f"{proxy}_original" in os.environ:
            os.environ[proxy] = os.environ[f"{proxy}_original"]
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.exit(main(Path(sys.argv[1])))
