"""CryoSPARC result groups: ``.csg`` files in YAML that say which ``.cs`` file holds which slot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from regroup_dask.errors import InputError
from regroup_dask.formats import storage, storing

MAX_GROUP_BYTES = 2**20


class ResultGroup(NamedTuple):
    """A result group as read."""

    path: str
    name: str
    type: str
    files_of_slot: dict[str, str]
    """absolute path of the ``.cs`` file of each slot"""

    @property
    def files(self) -> tuple[str, ...]:
        """The files, each once, in the order of the slots."""
        return tuple(dict.fromkeys(self.files_of_slot.values()))


class ResultSlot(NamedTuple):
    """One slot of a group to be written."""

    metafile: str
    """name of the ``.cs`` file, in the folder of the group"""
    num_items: int
    type: str
    """such as ``particle.ctf``"""


def read_result_group(path: str) -> ResultGroup:
    """Read a ``.csg`` file; the files it names lie in its own folder or below.

    Raises
    ------
    InputError
        The file is no result group, or names a file that is missing or outside its folder.
    """
    try:
        if storage.size_bytes(path) > MAX_GROUP_BYTES:
            raise InputError(f"{path} is larger than a CryoSPARC result group can be")
        content: Any = yaml.safe_load(storage.read_bytes(path).decode("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError):
        raise InputError(f"{path} is no CryoSPARC result group: its YAML cannot be read") from None
    group = content.get("group") if isinstance(content, dict) else None
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(group, dict) or not isinstance(results, dict) or not results:
        raise InputError(f"{path} is no CryoSPARC result group: it has no group and results")
    files_of_slot = {}
    for slot, result in results.items():
        metafile = result.get("metafile") if isinstance(result, dict) else None
        if not isinstance(metafile, str) or not metafile.startswith(">"):
            raise InputError(f"{path}: the slot {slot} names no file relative to the group (metafile: '>file.cs')")
        files_of_slot[str(slot)] = _inside(path, metafile[1:])
    return ResultGroup(path, str(group.get("name", "")), str(group.get("type", "")), files_of_slot)


def _inside(group_path: str, name: str) -> str:
    """Resolve a file of a group, and refuse what leaves its folder, through links too."""
    if "\0" in name:
        raise InputError(f"{group_path} names a file with a NUL byte")
    if storage.is_remote(group_path):
        return _inside_store(group_path, name)
    folder = os.path.realpath(os.path.dirname(os.path.abspath(group_path)))
    path = os.path.realpath(os.path.join(folder, name))
    if os.path.isabs(name) or os.path.commonpath([folder, path]) != folder or path == folder:
        raise InputError(f"{group_path} names {name}, which is outside its own folder; only files below it are read")
    if not os.path.isfile(path):
        raise InputError(f"{group_path} names {name}, which is not there")
    return path


def _inside_store(group_path: str, name: str) -> str:
    """Resolve a file of a group in an object store, where there are no links and ``..`` is a name like any other."""
    if name.startswith("/") or ".." in name.split("/") or not name.strip("/"):
        raise InputError(f"{group_path} names {name}, which is outside its own folder; only files below it are read")
    path = f"{os.path.dirname(group_path)}/{name}"
    if not storage.is_file(path):
        raise InputError(f"{group_path} names {name}, which is not there")
    return path


def write_result_group(
    path: str, *, name: str, title: str, description: str, type: str, slots: Mapping[str, ResultSlot]
) -> None:
    """Write a ``.csg`` file, such as CryoSPARC's Import Result Group reads.

    The same input gives the same bytes: the field ``created`` is a fixed day, because a clock would differ.
    """
    content = {
        "created": "2026-01-01 00:00:00.000000",
        "group": {"description": description, "name": name, "title": title, "type": type},
        "results": {
            slot: {"metafile": f">{result.metafile}", "num_items": int(result.num_items), "type": result.type}
            for slot, result in slots.items()
        },
        "version": "v4.5.3",
    }
    text = yaml.safe_dump(content, sort_keys=True, default_flow_style=False)
    storing.write_bytes(path, text.encode())
