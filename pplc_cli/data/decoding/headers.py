"""Headers of PNG, WebP, HEIC and AVIF, and why a file is not a readable image."""

from __future__ import annotations

import codecs
import functools
import zlib
from typing import Optional

from PIL import features

from pplc_cli.base.errors import ImageError
from pplc_cli.base.language.messages import tr
from pplc_cli.data.decoding.tiff import describe, read_tags

_AVIF = {b"avif", b"avis"}
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_TEXT = {b"tEXt", b"zTXt", b"iTXt"}
_PNG = b"\x89PNG\r\n\x1a\n"


def formats_of(data: bytes) -> tuple[str, ...]:
    """The names of Pillow's formats that the bytes can have.

    Raises:
        ImageError: the package that reads the format is missing.
    """
    kind = _phone_format(data)
    if kind is None:
        return ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
    if kind == "HEIF" and not _heif_opener():
        raise ImageError(tr("is a HEIC image; to read it: pip install 'pplc[heif]', or convert it to JPEG"))
    if kind == "AVIF" and not features.check("avif"):
        raise ImageError(tr("is an AVIF image; to read it: pip install --upgrade pillow, or convert it to JPEG"))
    return (kind,)


def _phone_format(data: bytes) -> Optional[str]:
    """HEIF or AVIF, by the brands in the first box; None for others, as for videos."""
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[place : place + 4] for place in range(16, end, 4))}
    return "AVIF" if brands & _AVIF else "HEIF" if brands & _HEIF else None


@functools.cache
def _heif_opener() -> bool:
    """Whether Pillow can read HEIC now."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def webp_size(data: bytes) -> Optional[tuple[int, int]]:
    """Width and height that a WebP declares; Pillow reserves the memory before it tells them."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def checked_png(data: bytes) -> bytes:
    """Compare the checksums, which Pillow skips for pixels, and leave out texts, whose length Pillow limits.

    Raises:
        ImageError: a checksum is wrong.
    """
    if not data.startswith(_PNG):
        return data
    kept, view, start, position = [], memoryview(data), 0, len(_PNG)
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        if kind in _TEXT:
            kept.append(view[start:position])
            start = end
        elif kind[:1].isupper() and end <= len(data):  # a lower-case letter marks an ancillary chunk
            if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
                raise ImageError(
                    tr("is broken: the checksum of its {chunk} data is wrong", chunk=kind.decode("latin-1"))
                )
            if kind == b"IEND":
                break
        position = end
    return b"".join([*kept, view[start:]]) if kept else data


def why_not_opened(data: bytes) -> str:
    """The reason to refuse bytes that Pillow does not recognise."""
    if not data.strip(b"\0"):
        return tr("is not an image: all {count} bytes are zero", count=len(data))
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    known = {
        b"<!doctype": tr("a web page"),
        b"<html": tr("a web page"),
        b"<svg": tr("an SVG drawing"),
        b"<?xml": tr("an XML file"),
        b"%pdf": tr("a PDF"),
        b"pk\x03\x04": tr("a ZIP archive"),
        b"\x1f\x8b": tr("a gzip archive"),
        b"8bps": tr("a Photoshop file"),
        b"\x7felf": tr("a program"),
        b"version https://git-lfs": tr("a Git LFS pointer to one"),
    }
    for magic, what in known.items():
        if head.startswith(magic):
            return tr("is not an image but {what}", what=what)
    if data[4:8] == b"ftyp":
        kind = {"HEIF": "HEIC", "AVIF": "AVIF"}.get(_phone_format(data) or "")
        return tr("is broken: a damaged {kind} file", kind=kind) if kind else tr("is not an image but a video")
    if tags := read_tags(data):
        return tr("{layout}, which is not supported or damaged; convert it to 8-bit RGB or grey", layout=describe(tags))
    starts = {b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"BM": "BMP"}
    for magic, kind in starts.items():
        if data.startswith(magic):
            return tr("is broken: a {kind} file whose header is damaged or cut off", kind=kind)
    if data.startswith(b"RIFF"):
        return tr("is broken or not an image: a RIFF file, but not a readable WebP image")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data[:512])  # the last character may be cut
        return tr("is not an image but text")
    except UnicodeDecodeError:
        return tr("is not an image in a supported format (JPEG, PNG, BMP, TIFF, WebP, GIF, HEIC, AVIF)")
