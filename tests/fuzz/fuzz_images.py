"""Decode damaged images in processes with little memory: ``python tests/fuzz/fuzz_images.py --count 5000``.

A decoder may refuse a file with an ImageError. A signal, another exception, more than five seconds of computing or more
memory than the limit are failures; the files are then kept in the folder ``--keep``.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from helpers.bad_files import encoded, rotated_jpeg  # noqa: E402
from helpers.images import random_image  # noqa: E402
from helpers.memory import peak_megabytes  # noqa: E402
from helpers.raw_images import empty_webp, lossless_jpeg, progressive_jpeg, tiff, tiff_file  # noqa: E402

REDUCTIONS = (1, 2, 4, 8)
MAX_SECONDS = 5.0  # of computing, for one image at one reduction
MAX_WAIT = 60.0  # the machine may be busy
MEMORY = 1 << 30  # beyond what the process has at its start


def corpus() -> dict[str, bytes]:
    """Small images of every format, and the smallest files that claimed much memory or time."""
    photo = Image.fromarray(random_image(1, (72, 80)))
    grey, frames = photo.convert("L"), [photo.rotate(angle) for angle in (90, 180)]
    wide = (np.asarray(photo).astype(np.uint16) << 8) | 77
    jpeg = encoded(photo, "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    found = {
        "baseline.jpg": jpeg,
        "progressive.jpg": encoded(photo, "JPEG", progressive=True),
        "grey.jpg": encoded(grey, "JPEG"),
        "inks.jpg": encoded(photo.convert("CMYK"), "JPEG"),
        "restarts.jpg": encoded(photo, "JPEG", restart_marker_blocks=2),
        "rotated.jpg": rotated_jpeg(photo, 6),
        "two.jpg": encoded(photo, "MPO", save_all=True, append_images=frames),
        "lossless.jpg": lossless_jpeg(random_image(2, (72, 80))),
        "lossless_grey.jpg": lossless_jpeg(np.ascontiguousarray(random_image(2, (72, 80))[..., :1])),
        "arithmetic.jpg": jpeg.replace(b"\xff\xc0", b"\xff\xc9", 1),
        "arithmetic_progressive.jpg": jpeg.replace(b"\xff\xc0", b"\xff\xca", 1),
        "hierarchical.jpg": jpeg.replace(b"\xff\xc0", b"\xff\xc5", 1),
        "scans.jpg": progressive_jpeg(64, 64, 600),
        "large_scans.jpg": progressive_jpeg(4000, 4000, 60),
        "photo.png": encoded(photo, "PNG"),
        "palette.png": encoded(photo.convert("P"), "PNG", transparency=1),
        "wide.png": encoded(Image.fromarray(wide[..., 0]), "PNG"),
        "animated.png": encoded(photo, "PNG", save_all=True, append_images=frames),
        "exif.png": encoded(photo, "PNG", exif=exif.tobytes()),
        "animated.gif": encoded(photo, "GIF", save_all=True, append_images=frames),
        "photo.bmp": encoded(photo, "BMP"),
        "lossy.webp": encoded(photo, "WEBP"),
        "lossless.webp": encoded(photo, "WEBP", lossless=True),
        "animated.webp": encoded(photo, "WEBP", save_all=True, append_images=frames),
        "large.webp": empty_webp(13000, 13000),
        "photo.tif": encoded(photo, "TIFF"),
        "lzw.tif": encoded(photo, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": encoded(photo, "TIFF", compression="jpeg"),
        "deflate.tif": tiff(wide, packed=True, order=">"),
        "planes.tif": tiff(np.asarray(photo), planar=True),
        "float.tif": tiff(np.asarray(grey)[..., None].astype(np.float32)),
        "fax.tif": encoded(photo.convert("1"), "TIFF", compression="group4"),
        "tile.tif": tiff_file(
            bytes(9),
            [{256: 40, 257: 30, 258: 8, 259: 8, 262: 1, 277: 1, 322: 60000, 323: 60000, 324: 8, 325: 9}],
        ),
    }
    if features.check("avif"):
        found["photo.avif"] = encoded(photo, "AVIF", exif=exif.tobytes())
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return found
    register_heif_opener()
    return {**found, "photo.heic": encoded(photo, "HEIF", exif=exif.tobytes())}


def mutated(index: int, seed: int, files: dict[str, bytes]) -> tuple[str, bytes]:
    """Return the name and the bytes of one damaged file; the first ones are the corpus itself."""
    names = list(files)
    if index < len(names):
        return names[index], files[names[index]]
    rng = random.Random(f"{seed} {index}")
    name = rng.choice(names)
    data = bytearray(files[name])
    for _ in range(rng.choice((1, 1, 2, 4, 8, 30))):
        # Most faults concern the header, which a TIFF may have at its end.
        place = rng.choice((rng.randrange(len(data)), rng.randrange(min(200, len(data))), -rng.randrange(1, 200)))
        place = max(0, min(len(data) - 1, place % len(data)))
        action = rng.randrange(6)
        if action < 2:
            data[place] = rng.randrange(256)
        elif action == 2:
            data[place] ^= 1 << rng.randrange(8)
        elif action == 3:
            size = rng.choice((1, 2, 4))
            data[place : place + size] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * size
        elif action == 4:
            length = rng.randrange(1, 64)
            data[place:place] = data[(start := rng.randrange(len(data))) : start + length]
        else:
            del data[place : place + rng.choice((1, 2, 4, 50))]
        if not data:
            break
    if rng.random() < 0.15:
        del data[rng.randrange(len(data) + 1) :]
    return name, bytes(data)


def work(first: int, count: int, seed: int) -> None:
    """Decode files and print a line of JSON before and after each: the part of a child process."""
    import resource

    from pplc_cli.base.errors import ImageError
    from pplc_cli.data.decode import convert_pillow, decode_image, inspect_image, jpeg_size

    files = corpus()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def opened(data: bytes) -> None:
        try:
            image = Image.open(io.BytesIO(data))
        except Exception:  # Pillow's own
            return
        convert_pillow(image)

    actions: list[Any] = [lambda data, r=r: decode_image(data, r) for r in REDUCTIONS]
    actions += [inspect_image, jpeg_size, opened]
    for index in range(first, count):
        name, data = mutated(index, seed, files)
        print(json.dumps({"start": index, "name": name}), flush=True)
        signal.setitimer(signal.ITIMER_REAL, MAX_WAIT)  # ends the process, even within a decoder
        used, slowest, fault = False, 0.0, ""
        for action in actions:
            began = time.process_time()
            try:
                action(data)
                used |= action is inspect_image
            except ImageError as error:
                if not str(error).strip() or "\n" in str(error):
                    fault = f"not one line: {str(error)!r}"
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"
            slowest = max(slowest, time.process_time() - began)
        if slowest > MAX_SECONDS:
            fault = fault or f"took {slowest:.1f} s"
        peak = peak_megabytes()
        print(json.dumps({"end": index, "used": used, "seconds": slowest, "fault": fault, "peak": peak}), flush=True)


@dataclasses.dataclass
class Report:
    """What a run found; sizes in MB, times in seconds of computing."""

    images: int = 0
    used: int = 0
    slowest: float = 0.0
    slowest_name: str = ""
    peak: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)


def run(count: int, seed: int = 0, seconds: float = float("inf"), keep: Path | None = None) -> Report:
    """Decode ``count`` damaged files, or as many as the time allows."""
    report, files, ends = Report(), corpus(), time.monotonic() + seconds
    current = 0
    while current < count:
        name = ""
        for line in _lines(current, count, seed):
            if time.monotonic() > ends:
                return report
            if "start" in line:
                current, name = line["start"], line["name"]
                continue
            report.images += 1
            report.used += line["used"]
            report.peak = max(report.peak, line["peak"])
            if line["seconds"] > report.slowest:
                report.slowest, report.slowest_name = line["seconds"], f"{name} {current}"
            if line["fault"]:
                report.faults.append(f"{current} {name}: {line['fault']}")
            current, name = current + 1, ""
        if name:  # it ended within an image
            report.faults.append(f"{current} {name}: the process ended")
            report.images += 1
            current += 1
        elif current < count:
            raise RuntimeError("the process ended before it decoded an image")
    if keep is not None and report.faults:
        keep.mkdir(parents=True, exist_ok=True)
        for fault in report.faults:
            index = int(fault.split()[0])
            name, data = mutated(index, seed, files)
            (keep / f"{index}_{name}").write_bytes(data)
    return report


def _lines(first: int, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """The lines of a child process."""
    command = [sys.executable, __file__, "--work", str(first), "--count", str(count), "--seed", str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield from map(json.loads, child.stdout)
        finally:
            child.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=5000, help="number of damaged files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "pplc_fuzz", help="for failures")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        work(options.work, options.count, options.seed)
        return
    report = run(options.count, options.seed, keep=options.keep)
    print(json.dumps(dataclasses.asdict(report), indent=2))
    sys.exit(bool(report.faults))


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
    main()
