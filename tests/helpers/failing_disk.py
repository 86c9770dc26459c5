"""A disk that fails: writes below a folder end with an error of the operating system, as on a full or broken disk."""

from __future__ import annotations

import subprocess
from pathlib import Path

# Takes the place of the C library's functions in a process. FAIL_AFTER bytes below FAIL_UNDER are still written.
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static long left = -1;

static int failing(int fd, size_t count) {
    char link[64], path[4096];
    const char *under = getenv("FAIL_UNDER");
    if (!under) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, under, strlen(under))) return 0;
    if (left < 0) left = atol(getenv("FAIL_AFTER"));
    if (left >= (long)count) { left -= count; return 0; }
    close(open(getenv("FAIL_MARK"), O_CREAT | O_WRONLY, 0600));
    errno = atoi(getenv("FAIL_ERRNO"));
    return 1;
}

ssize_t write(int fd, const void *data, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    return failing(fd, count) ? -1 : real(fd, data, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    static ssize_t (*real)(int, const struct iovec *, int);
    if (!real) real = (ssize_t (*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
    size_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += parts[i].iov_len;
    return failing(fd, bytes) ? -1 : real(fd, parts, count);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return failing(fd, 1) ? -1 : real(fd);
}
"""


def build_failing_disk(folder: Path) -> Path:
    """Compile the library into a folder, and return its path."""
    source, library = folder / "failing_disk.c", folder / "failing_disk.so"
    source.write_text(_SOURCE)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def failing_disk(library: Path, under: Path, error: int, after: int = 0) -> dict[str, str]:
    """Return the environment of a process for which a folder's disk fails.

    Args:
        library: see :func:`build_failing_disk`.
        under: the folder.
        error: number of the error, such as ``errno.EIO``.
        after: bytes that are still written.

    The file ``failed`` beside the library is there after the first error.
    """
    return {
        **{"LD_PRELOAD": str(library), "FAIL_UNDER": str(under.resolve()) + "/"},
        **{"FAIL_ERRNO": str(error), "FAIL_AFTER": str(after)},
        "FAIL_MARK": str(library.with_name("failed")),
    }
