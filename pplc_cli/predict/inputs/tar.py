"""Images in tar archives."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from typing import Any

from pplc_cli.base.errors import one_line
from pplc_cli.base.language.messages import tr
from pplc_cli.data.image_files import IGNORED_FILES, is_image_name
from pplc_cli.predict.inputs.source import MAX_ENCODED, Source

MAX_EXTENSION = 1 << 20  # bytes of a header with a long name and the like, which tarfile reads whole
_EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip


def read_tar(path: str, skipped: Callable[[str], None] = lambda name: None) -> Iterator[Source]:
    """Yield the images of a tar archive, which may be compressed, named ``path/member``; writes nothing to the disk.

    An archive without images yields one source with an error; a damaged one yields it after the images before the
    damage. A member is refused by its declared size, before it is read.

    Args:
        path: the archive.
        skipped: called with the name of each member that is not an image.
    """
    empty = True
    try:
        with tarfile.open(path, "r:*", tarinfo=Member) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # tarfile would keep them all, a kilobyte each
                name = f"{path}/{member.name}"
                base = member.name.rpartition("/")[2]
                if member.isdir() or base.startswith(".") or base.lower() in IGNORED_FILES:
                    continue
                if not is_image_name(base):
                    skipped(base)
                    continue
                empty = False
                yield _source(archive, member, name)
            while archive.fileobj is not None and archive.fileobj.read(1 << 20):
                pass  # read to the end, where a compressed file has its checksum
    except FileNotFoundError:
        yield Source(path, error=tr("no such file"))
    except Exception as error:  # errors of tarfile, gzip, bz2, lzma, zlib and io
        yield Source(
            path,
            error=tr("is a damaged tar archive, the rest of it is missing: {reason}", reason=one_line(error)),
        )
    else:
        if empty:
            yield Source(path, error=tr("the archive holds no images"))


def _source(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> Source:
    """The image of a member, or why it is refused."""
    content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
    if content is None:
        return Source(name, error=tr("is a link, a device or a sparse file in the archive, expected an image"))
    if member.size > MAX_ENCODED:
        megabytes, limit = member.size >> 20, MAX_ENCODED >> 20
        return Source(
            name, error=tr("is {megabytes} MB large, expected at most {limit}", megabytes=megabytes, limit=limit)
        )
    try:
        return Source(name, content.read())
    except MemoryError:
        return Source(name, error=tr("needs more memory than there is"))


class Member(tarfile.TarInfo):
    """Raises for a damaged header or a missing end, which tarfile treats like the end of the archive."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Member:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENSIONS and header.size > MAX_EXTENSION:
            raise tarfile.InvalidHeaderError(tr("a name is too long"))  # type: ignore[attr-defined]
        return header

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Member:
        try:
            member = super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # two blocks of zeros: the end
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            raise tarfile.ReadError(tr("it is cut off")) from None
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None
        if member.size < 0:  # tarfile would go back and read the same members for ever
            raise tarfile.ReadError(tr("a member has a negative size"))
        return member
