"""Images in tar archives."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from pplc_cli.base.errors import one_line
from pplc_cli.data.image_files import IGNORED_FILES, MAX_BYTES, is_image_name
from pplc_cli.predict.inputs.source import Source


def read_tar(path: str) -> Iterator[Source]:
    """Yield the images of a tar archive, which may be compressed, named ``path/member``; writes nothing to the disk.

    An archive without images yields one source with an error; a damaged one yields it after the images before the
    damage.
    """
    empty = True
    try:
        with tarfile.open(path, "r:*", tarinfo=_Member) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # tarfile would keep them all, a kilobyte each
                name = f"{path}/{member.name}"
                base = member.name.rpartition("/")[2]
                if member.isdir() or not is_image_name(base) or base.startswith(".") or base.lower() in IGNORED_FILES:
                    continue
                empty = False
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    yield Source(name, error="is a link or a device in the archive, expected an image")
                elif member.size > MAX_BYTES:
                    yield Source(name, error=f"is {member.size >> 30} GB large, expected at most {MAX_BYTES >> 30}")
                else:
                    yield Source(name, content.read())
            while archive.fileobj is not None and archive.fileobj.read(1 << 20):
                pass  # read to the end, where a compressed file has its checksum
    except FileNotFoundError:
        yield Source(path, error="no such file")
    except Exception as error:  # errors of tarfile, gzip, bz2, lzma, zlib and io
        yield Source(path, error=f"is a damaged tar archive, the rest of it is missing: {one_line(error)}")
    else:
        if empty:
            yield Source(path, error="the archive holds no images")


class _Member(tarfile.TarInfo):
    """Raises for a damaged header or a missing end, which tarfile treats like the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # two blocks of zeros: the end
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            raise tarfile.ReadError("it is cut off") from None
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None
