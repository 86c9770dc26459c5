"""Files as in real data sets: broken ones, and unusual ones that must be readable."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.images import random_image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode an image with Pillow."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """Build a PNG by hand.

    Args:
        rows: unfiltered samples.
        more: chunks before the image data.
    """
    stride = len(rows) // height if height else 0
    filtered = b"".join(b"\0" + rows[i * stride : (i + 1) * stride] for i in range(height if rows else 0))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(filtered)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Build one chunk of a PNG, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def rotated_jpeg(image: Image.Image, orientation: int) -> bytes:
    """Build a JPEG with this EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", exif=exif.tobytes(), quality=95)


def _bad() -> dict[str, bytes]:
    photo = Image.fromarray(random_image(1, (96, 80)))
    frames = [Image.fromarray(random_image(seed, (96, 80))) for seed in (2, 3)]
    rng = np.random.default_rng(0)
    jpeg, plain_png = encoded(photo, "JPEG"), encoded(photo, "PNG")
    gif, webp = encoded(photo, "GIF"), encoded(photo, "WEBP")
    tiff = bytearray(encoded(photo, "TIFF"))
    (directory,) = struct.unpack("<I", tiff[4:8])
    tiff[directory : directory + 40] = b"\xff" * 40
    packed_tiff = encoded(photo, "TIFF", compression="tiff_lzw")
    flipped = bytearray(plain_png)
    flipped[plain_png.index(b"IDAT") + 500] ^= 0x10
    bmp = bytearray(encoded(photo, "BMP"))
    bmp[18:26] = struct.pack("<ii", 60000, 60000)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("image.jpg", jpeg)
    return {
        "half.jpg": jpeg[: len(jpeg) // 2],
        "header_only.jpg": jpeg[:100],
        "two_bytes.jpg": jpeg[:2],
        "half.png": plain_png[: len(plain_png) // 2],
        "no_end_of_data.png": plain_png[: plain_png.index(b"IDAT") + 30],
        "header_only.png": plain_png[:20],
        "half.gif": gif[: len(gif) // 2],
        "half.webp": webp[: len(webp) // 2],
        "half.bmp": encoded(photo, "BMP")[:3000],
        "half_lzw.tif": packed_tiff[: len(packed_tiff) // 2],
        "cut_animation.webp": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])[:300],
        "empty.jpg": b"",
        "zeros.jpg": bytes(5000),
        "one_zero.png": b"\0",
        "text.jpg": b"this is not an image\n" * 20,
        "chinese_text.jpg": "图".encode() * 400,
        "page.jpg": b"\n<!DOCTYPE html><html><body>404 not found</body></html>",
        "drawing.jpg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "document.jpg": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n",
        "archive.jpg": archive.getvalue(),
        "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        "noise.png": rng.bytes(4000),
        "heic.jpg": b"\0\0\0\x18ftypheic" + rng.bytes(400),
        "huge.png": png(60000, 60000, 8, 2, b""),
        "huge.bmp": bytes(bmp),
        "no_width.png": png(0, 10, 8, 2, b""),
        "elongated.png": png(1, 20000, 8, 0, bytes(20000)),
        "flipped_bit.png": bytes(flipped),
        "damaged_directory.tif": bytes(tiff),
        "photograph.txt.gif": b"GIF89a",
    }


def _odd() -> dict[str, bytes]:
    photo = Image.fromarray(random_image(4, (96, 80)))
    frames = [Image.fromarray(random_image(seed, (96, 80))) for seed in (5, 6, 7)]
    rng = np.random.default_rng(1)
    wide = rng.integers(0, 65536, (20, 24), dtype=np.uint16)
    wide_rgb = rng.integers(0, 65536, (20, 24, 3), dtype=np.uint16)
    palette = photo.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    alpha = photo.copy()
    alpha.putalpha(Image.fromarray(random_image(8, (96, 80))[..., 0]))
    jpeg = encoded(photo, "JPEG")
    return {
        "one_pixel.png": encoded(photo.crop((0, 0, 1, 1)), "PNG"),
        "animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated.webp": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "really_png.jpg": encoded(photo, "PNG"),
        "really_jpeg.png": jpeg,
        "cmyk.jpg": encoded(photo.convert("CMYK"), "JPEG"),
        "grey.jpg": encoded(photo.convert("L"), "JPEG"),
        "rotated.jpg": rotated_jpeg(photo, 6),
        "damaged_exif.jpg": jpeg[:2] + b"\xff\xe1\0\x12Exif\0\0MM\0*\xff\xff\xff\xff\0\0" + jpeg[2:],
        "rest_behind.jpg": jpeg + bytes(500),
        "two_pictures.jpg": encoded(frames[0], "MPO", save_all=True, append_images=frames[1:2]),
        "grey16.png": png(24, 20, 16, 0, wide.astype(">u2").tobytes()),
        "dark_grey16.png": png(24, 20, 16, 0, (wide >> 8).astype(">u2").tobytes()),
        "rgb16.png": png(24, 20, 16, 2, wide_rgb.astype(">u2").tobytes()),
        "bilevel.png": encoded(photo.convert("1"), "PNG"),
        "palette.png": encoded(palette, "PNG", transparency=3),
        "rgba.png": encoded(alpha, "PNG"),
        "la.png": encoded(alpha.convert("LA"), "PNG"),
        "float.tif": encoded(Image.fromarray(random_image(9, (20, 24))[..., 0].astype(np.float32) / 255), "TIFF"),
        "nan.tif": encoded(Image.fromarray(np.full((20, 24), np.nan, np.float32)), "TIFF"),
        "lzw.tif": encoded(photo, "TIFF", compression="tiff_lzw"),
        "with spaces (1).jpg": jpeg,
        "照片 一.png": encoded(photo, "PNG"),
        "Mixed.JpEg": jpeg,
    }


def write_bad_files(folder: Path) -> dict[str, str]:
    """Write every kind of file that the file system allows.

    Returns:
        By file name, ``bad`` (must be refused with a reason) or ``odd`` (must be used).
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {}
    for verdict, files in (("bad", _bad()), ("odd", _odd())):
        for name, data in files.items():
            with contextlib.suppress(OSError, UnicodeError):
                (folder / name).write_bytes(data)
                kinds[name] = verdict
    (folder / "folder.jpg").mkdir(exist_ok=True)
    kinds["folder.jpg"] = "bad"
    with contextlib.suppress(OSError, NotImplementedError):
        (folder / "dangling.jpg").symlink_to("nowhere.jpg")
        kinds["dangling.jpg"] = "bad"
    with contextlib.suppress(OSError, AttributeError):
        os.mkfifo(folder / "pipe.jpg")
        kinds["pipe.jpg"] = "bad"
    return kinds
