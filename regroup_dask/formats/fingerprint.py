"""What a file holds, in a line of run.json: by its content, or by what a store stamps it with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from regroup_dask.formats import storage

WHOLE_BYTES = 256 * 2**20
SAMPLES = 64
OF_STAMPS = "sha256_of_etags"


def fingerprint(path: str | Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, or of a store's files.

    Content beyond 256 MB counts by 64 samples of 1 MB, and by its time of change. What lies in an object store counts
    by the stamps that the store itself makes of content (ETag).
    """
    if storage.is_remote(path):
        return _remote_fingerprint(path)
    target = Path(path)
    digest = hashlib.sha256()
    if not target.is_dir():
        size = _digest_file(target, digest)
        return {"path": str(target), "bytes": size, "sha256": digest.hexdigest()}
    total = 0
    for entry in sorted(item for item in target.rglob("*") if item.is_file()):
        digest.update(f"{entry.relative_to(target)};".encode())
        if total <= WHOLE_BYTES:
            total += _digest_file(entry, digest)
        else:
            status = entry.stat()
            total += status.st_size
            digest.update(f"{status.st_size}:{status.st_mtime_ns};".encode())
    return {"path": str(target), "bytes": total, "sha256": digest.hexdigest()}


def _remote_fingerprint(path: str | Path) -> dict[str, Any]:
    """Sizes and the store's own stamps of content (ETag); nothing is fetched."""
    files = storage.files_below(path) if storage.is_folder(path) else [str(path)]
    stamps = [storage.change_stamp(name) for name in files]
    total = sum(storage.size_bytes(name) for name in files)
    content = [[name[len(str(path)) :], *(stamp or ())] for name, stamp in zip(files, stamps, strict=True)]
    return {"path": str(path), "bytes": total, OF_STAMPS: _digest_of_stamps(content)}


def _digest_of_stamps(content: list[list[Any]]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def has_content(path: str | Path, known: dict[str, Any]) -> bool | None:
    """Whether a file has the content that a fingerprint was taken of, wherever it lay then; None where that cannot be told.

    A file that went from disk to a store is read there. Of one that was in a store only the ETag is known, which is the MD5
    of what was sent in one piece, and says nothing of content where it was sent in parts.
    """
    if fingerprint(path) == {**known, "path": str(path)}:
        return True
    was_in_store = OF_STAMPS in known
    if storage.is_folder(path):
        return False if storage.is_remote(path) == was_in_store else None
    size = storage.size_bytes(path)
    if size != known["bytes"] or not (was_in_store or storage.is_remote(path)):
        return False
    if was_in_store:
        stamp = f'"{_digest_read(path, hashlib.md5(usedforsecurity=False))}"'
        return True if _digest_of_stamps([["", stamp, size]]) == known[OF_STAMPS] else None
    return None if size > WHOLE_BYTES else _digest_read(path, hashlib.sha256()) == known["sha256"]


def _digest_read(path: str | Path, digest: Any) -> str:
    with storage.open_reading(path) as stream:
        for block in iter(lambda: stream.read(2**20), b""):
            digest.update(block)
    return str(digest.hexdigest())


def _digest_file(path: Path, digest: Any) -> int:
    status = path.stat()
    size = status.st_size
    with open(path, "rb") as stream:
        if size <= WHOLE_BYTES:
            for block in iter(lambda: stream.read(2**20), b""):
                digest.update(block)
        else:
            for number in range(SAMPLES):
                stream.seek(number * (size - 2**20) // (SAMPLES - 1))
                digest.update(stream.read(2**20))
            digest.update(f"{size}:{status.st_mtime_ns};".encode())
    return size
