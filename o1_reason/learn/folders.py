"""Files and folders that are there whole or not at all, and what is in them."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError


def read_json(path: Path) -> dict[str, Any]:
    """Raises ConfigurationError for a file that was tampered with."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}); restore it, or begin another run") from error


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """The file appears whole, or not at all, and is on the disk when this returns."""
    half = path.with_name(path.name + ".half")
    with open(half, "w", encoding="utf-8") as file:
        json.dump(data, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(half, path)
    _sync(path.parent)


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `folder` when the block ends without an error; what was there goes."""
    half = folder.with_name(folder.name + ".half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    yield half
    shutil.rmtree(folder, ignore_errors=True)
    half.rename(folder)
    _sync(folder.parent)


def _share(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def gather(into: Path, policy: Path, prm: Path, copy: Callable[..., Any] = _share) -> None:
    """A folder of weights: the policy of one, the reward model of another. Files are shared, for nobody writes those of
    a run; of others `shutil.copy2` makes copies."""
    with whole(into) as folder:
        for source, role in ((policy, "policy"), (prm, "prm")):
            for each in source.glob(f"{role}*"):
                if each.is_dir():
                    shutil.copytree(each, folder / each.name, copy_function=copy)
                else:
                    copy(each, folder / each.name)


def _sync(folder: Path) -> None:
    if os.name != "nt":  # where a folder cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def digests(root: Path, *paths: Path) -> dict[str, str]:
    """sha256 of files, those in folders included, by their place below `root`."""
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return {file.relative_to(root).as_posix(): _digest(file) for file in files if file.is_file()}


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
