"""Files and folders by path or URL: on disk as ever, in an object store through fsspec, read in ranges.

A path with ``://`` in it is an fsspec URL (``s3://bucket/J42``); anything else, and ``file://``, is a path on disk, for
which every function here does what the system's own does. Paths stay strings, or ``Path`` and the like-made ``UPath``
of universal_pathlib, so that nothing secret travels with them.

Options such as keys and endpoints are given once for a process, and kept in fsspec's own configuration, by protocol;
`carried_options` takes them to a worker. `storing` writes, copies and removes.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from regroup_dask.errors import InputError
from regroup_dask.formats.store_errors import store_errors

if TYPE_CHECKING:
    from typing_extensions import TypeIs

PathOrUrl = str | os.PathLike[str]

STREAM_BYTES = 2**20
"""What a stream of a remote file reads ahead."""

COPY_BYTES = 8 * 2**20

# Workers write what others list: a listing kept from before would hide it. With one part of a file at a time on its way
# ten of 50 MB are not in memory, and an object is read without asking for its size first.
_OF_S3: dict[str, Any] = {"use_listings_cache": False, "max_concurrency": 1}
DEFAULTS = {"s3": _OF_S3, "s3a": _OF_S3}
LOCAL_PROTOCOLS = ("file", "local")

_given: dict[str, Any] = {}
_found_before: dict[str, dict[str, Any]] = {}
_configured: set[str] = set()


class CarriedOptions(NamedTuple):
    """Options of each protocol, for another process; what they are is not shown."""

    by_protocol: dict[str, dict[str, Any]]

    def __repr__(self) -> str:
        return f"CarriedOptions({', '.join(sorted(self.by_protocol))})"

    def adopt(self) -> None:
        """Use them in this process, in place of those it had."""
        if not self.by_protocol:
            return
        import fsspec.config

        for protocol, options in self.by_protocol.items():
            if fsspec.config.conf.get(protocol) != options:
                fsspec.config.conf[protocol] = dict(options)
            _configured.add(protocol)


def use_storage_options(options: Mapping[str, Any]) -> None:
    """Use options, as fsspec's file systems take them, for every URL this process opens from now on.

    They take the place of those given before.
    """
    _given.clear()
    _given.update(options)
    _configured.clear()


def carried_options() -> CarriedOptions:
    """Options of the protocols that this process has used."""
    if not _configured:
        return CarriedOptions({})
    import fsspec.config

    return CarriedOptions({name: dict(fsspec.config.conf.get(name, {})) for name in sorted(_configured)})


def is_remote(path: PathOrUrl) -> bool:
    """Whether a path is a URL."""
    text = str(path)
    return "://" in text and text.split("://", 1)[0] not in LOCAL_PROTOCOLS


def is_path(value: Any) -> TypeIs[str | Path]:
    """Whether a value names a file: text, a path, or what `location` makes of a URL, which is no `Path`."""
    return isinstance(value, str | os.PathLike) or type(value).__module__.split(".")[0] == "upath"


def location(path: PathOrUrl) -> Path:
    """Return a path, or for a URL what behaves like one: ``/``, ``name``, ``exists``, ``read_text`` and the like."""
    if not is_remote(path):
        return Path(_on_disk(path))
    _configure(str(path))
    try:
        from upath import UPath
    except ImportError as error:
        raise _missing("universal_pathlib", str(path)) from error
    return cast(Path, UPath(str(path).rstrip("/")))


def absolute(path: PathOrUrl) -> str:
    """Return a path that does not depend on the working directory; workers have their own."""
    if is_remote(path):
        return str(path).rstrip("/")
    return os.path.abspath(_on_disk(path))


def resolved(path: PathOrUrl) -> str:
    """Return an absolute path without links."""
    return absolute(path) if is_remote(path) else os.path.realpath(_on_disk(path))


def filesystem(url: PathOrUrl) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    Raises
    ------
    InputError
        There is no such protocol, or what it needs is not installed.
    """
    text = str(url)
    _configure(text)
    import fsspec.core

    try:
        with store_errors(text):
            return cast(tuple[Any, str], fsspec.core.url_to_fs(text))
    except ImportError as error:
        raise _missing(str(error), text) from error
    except ValueError as error:
        raise InputError(f"{text} cannot be opened: {error}.") from error


def folders_above(path: PathOrUrl) -> list[str]:
    """Folders that a path lies in, the nearest first; the last of a URL is its bucket."""
    found, below = [], absolute(path)
    while (above := os.path.dirname(below)) != below and (not is_remote(below) or is_remote(above)):
        found.append(above)
        below = above
    return found


def given(path: PathOrUrl) -> str:
    """Return a path as a person gave it, with ``~`` and ``file://`` resolved."""
    return str(path) if is_remote(path) else _on_disk(path)


def change_stamp(path: PathOrUrl) -> tuple[Any, ...] | None:
    """What differs when a file has been changed; None for a folder."""
    if not is_remote(path):
        status = os.stat(path) if os.path.isfile(path) else None
        return status and (status.st_mtime_ns, status.st_size)
    facts = file_facts(path)
    stamp = next((str(facts[name]) for name in ("ETag", "etag", "mtime", "LastModified", "created") if name in facts), "")
    return None if facts["type"] != "file" else (stamp, facts["size"])


def exists(path: PathOrUrl) -> bool:
    """Whether there is a file or folder."""
    return os.path.exists(path) if not is_remote(path) else _kind(path) != ""


def is_file(path: PathOrUrl) -> bool:
    """Whether there is a file."""
    return os.path.isfile(path) if not is_remote(path) else _kind(path) == "file"


def is_folder(path: PathOrUrl) -> bool:
    """Whether there is a folder; in an object store: files whose names begin so."""
    return os.path.isdir(path) if not is_remote(path) else _kind(path) == "directory"


def size_bytes(path: PathOrUrl) -> int:
    """Size of a file.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
    """
    if not is_remote(path):
        return os.path.getsize(path)
    facts = file_facts(path)
    if facts["type"] != "file":
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    return int(facts["size"])


def file_facts(url: PathOrUrl) -> dict[str, Any]:
    """What a store says of one file or folder: ``size``, ``type`` and, in most, ``ETag``."""
    fs, inside = filesystem(url)
    with store_errors(str(url)):
        facts: dict[str, Any] = fs.info(inside)
    return facts


def _kind(url: PathOrUrl) -> str:
    try:
        return str(file_facts(url)["type"])
    except (FileNotFoundError, NotADirectoryError):
        return ""


def file_names(folder: PathOrUrl) -> list[str]:
    """Names of the files in a folder, sorted; folders in it are left out."""
    if not is_remote(folder):
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    fs, inside = filesystem(folder)
    with store_errors(str(folder)):
        found = [item["name"] for item in fs.ls(inside, detail=True) if item["type"] == "file"]
    return sorted(name.rsplit("/", 1)[-1] for name in found if not name.endswith("/"))


def files_below(folder: PathOrUrl) -> list[str]:
    """Every file in a folder and the folders in it, sorted, as paths or URLs."""
    if not is_remote(folder):
        return sorted(os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)
    fs, inside = filesystem(folder)
    with store_errors(str(folder)):
        return sorted(_as_url(name, str(folder), inside) for name in fs.find(inside) if not name.endswith("/"))


def matching(pattern: str) -> list[str]:
    """Files and folders that match a pattern with ``*``, ``?``, ``[...]`` and ``**``, sorted."""
    import glob

    if not is_remote(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    return sorted(_matching_remote(pattern))


def matching_files(pattern: str) -> list[str]:
    """Files that match a pattern, sorted."""
    if not is_remote(pattern):
        return [path for path in matching(pattern) if os.path.isfile(path)]
    return sorted(url for url, kind in _matching_remote(pattern).items() if kind == "file")


def _matching_remote(pattern: str) -> dict[str, str]:
    """URLs that match a pattern, with the kind of each."""
    fs, inside = filesystem(pattern)
    root = pattern[: re.search(r"[*?\[]|$", pattern).start()].rpartition("/")[0]  # type: ignore[union-attr]
    with store_errors(pattern):
        found = fs.glob(inside, detail=True)
    return {_as_url(name, root, filesystem(root)[1]): str(facts["type"]) for name, facts in found.items()}


def _as_url(name: str, folder: str, inside: str) -> str:
    """Name of a file system's own in a folder, as a URL; `inside` is the folder's own name."""
    return f"{folder.rstrip('/')}/{name[len(inside.rstrip('/')) :].lstrip('/')}"


def open_reading(path: PathOrUrl, *, buffering: int = STREAM_BYTES) -> BinaryIO:
    """Open a file for reading bytes; of a remote one only what is read is fetched.

    Parameters
    ----------
    buffering
        Bytes read ahead of a remote file; 0 for none.

    Raises
    ------
    FileNotFoundError
    """
    if not is_remote(path):
        return open(path, "rb") if buffering else cast(BinaryIO, open(path, "rb", buffering=0))
    stream = _RangeStream(str(path), size_bytes(path))
    return cast(BinaryIO, io.BufferedReader(stream, buffering) if buffering else stream)


def read_range(path: PathOrUrl, start: int, stop: int) -> bytes:
    """Read bytes ``start`` to ``stop`` of a file, all of them.

    Raises
    ------
    InputError
        The file is shorter.
    FileNotFoundError
    """
    if stop <= start:
        return b""
    if is_remote(path):
        fs, inside = filesystem(path)
        with store_errors(str(path)):
            data: bytes = fs.cat_file(inside, start=start, end=stop)
    else:
        with open(path, "rb") as stream:
            stream.seek(start)
            data = stream.read(stop - start)
    if len(data) != stop - start:
        raise InputError(f"{path} became shorter while it was read: it ends at byte {start + len(data)}.")
    return data


def read_bytes(path: PathOrUrl) -> bytes:
    """Read a small file whole."""
    with open_reading(path) as stream:
        return stream.read()


@contextlib.contextmanager
def on_this_machine(path: PathOrUrl) -> Iterator[Path]:
    """Yield a small file as one on disk: itself, or a temporary copy, for libraries that only know paths."""
    if not is_remote(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="regroup_dask_") as folder:
        copy = Path(folder) / str(path).rsplit("/", 1)[-1]
        with open_reading(path, buffering=0) as stream, open(copy, "wb") as copied:
            shutil.copyfileobj(stream, copied, COPY_BYTES)
        yield copy


class _RangeStream(io.RawIOBase):
    """A remote file as a stream; each read is one request for just these bytes."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._position = url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, begin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self._position + len(view), self._size)
        data = read_range(self._url, self._position, stop)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def _on_disk(path: PathOrUrl) -> str:
    text = os.fspath(path)
    head, found, rest = text.partition("://")
    return os.path.expanduser(rest if found and head in LOCAL_PROTOCOLS else text)


def _configure(url: str) -> None:
    """Give fsspec the options for the protocol of a URL."""
    protocol = url.split("://", 1)[0]
    if protocol in _configured:
        return
    import dask.config
    import fsspec.config

    before = _found_before.setdefault(protocol, dict(fsspec.config.conf.get(protocol, {})))
    known = {**DEFAULTS.get(protocol, {}), **before}
    configured = dask.config.get("regroup.storage-options", None) or {}
    fsspec.config.conf[protocol] = {**known, **dict(configured), **_given}
    _configured.add(protocol)


def _missing(what: str, url: str) -> InputError:
    return InputError(f"{url} cannot be opened ({what}): pip install 'regroup-dask[s3]' for s3://, or the fsspec package of it.")
