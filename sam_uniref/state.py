"""State dicts that are checked by name, and files and folders that are whole or not there."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import pickle
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sam_uniref.nearest import nearest_path

# Of Linux's renameat2: AT_FDCWD and RENAME_EXCHANGE.
_HERE, _EXCHANGE = -100, 2


def compare_names(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    """Refuse a state dict that does not fit.

    Raises:
        ValueError: Naming the missing, unexpected and misshapen tensors.
    """
    missing = sorted(wanted.keys() - got.keys())
    unexpected = sorted(got.keys() - wanted.keys())
    misshapen = [
        f"{name} {tuple(got[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & got.keys())
        if got[name].shape != wanted[name].shape
    ]
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if names
    ]
    if problems:
        raise ValueError(f"{what} does not fit the model: {'; '.join(problems)}")


def load_checked(module: nn.Module, state_dict: Mapping[str, Tensor], what: str) -> None:
    """Load a whole state dict, or name what does not fit.

    Raises:
        ValueError: Naming the missing, unexpected and misshapen tensors; nothing is loaded then.
    """
    compare_names(state_dict, module.state_dict(), what)
    module.load_state_dict(dict(state_dict))


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """A state dict from ``.safetensors`` or a PyTorch file; a pickle with anything but tensors is refused.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is broken, or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}{nearest_path(path)}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(_other_objects(path, error)) from error
    except Exception as error:  # torch and safetensors raise half a dozen types for a broken file
        # Pickle's own errors are of its stack, not of the file.
        told = error if isinstance(error, RuntimeError | SafetensorError) else "it is broken, or of another kind"
        raise ValueError(f"{path} is no readable checkpoint of plain tensors ({told})") from error
    for key in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ValueError(f"{path} holds no state dict (names to tensors), got {type(loaded).__name__}")
    return loaded


def _other_objects(path: Path, error: pickle.UnpicklingError) -> str:
    """What to tell of a file that is not plain tensors; torch's own advice is to read it all the same."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    what = f"it holds {found[1]}" if found else "it is broken, or holds something else"
    return (
        f"{path} is no readable checkpoint of plain tensors: {what}. Other objects can run code of their own while "
        "they are read, so they are refused. If you trust whoever made the file, keep its tensors alone, where the "
        "program that wrote it is installed: torch.save({'model': torch.load(old, weights_only=False)['model']}, new)"
    )


def without_aliases(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop names that share another one's memory (tied embeddings), which safetensors would refuse."""
    seen: set[tuple[int, torch.Size, tuple[int, ...]]] = set()
    unique = {}
    for name, tensor in state_dict.items():
        # Of a tensor that processes share out (FSDP2) this one's share has an address; shapes alone have none.
        address = (tensor.to_local() if hasattr(tensor, "to_local") else tensor).data_ptr()
        key = (address, tensor.shape, tensor.stride())
        if address and key in seen:
            continue
        seen.add(key)
        unique[name] = tensor
    return unique


def file_sha256(path: str | Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name only when the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: object) -> None:
    """Write JSON for people and programs; the file is whole or not there."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its name, and an old one's place, when the block ends well.

    Its files are on the disk before they take the name, so a crash of the machine, too, leaves the old or the new. On
    Linux the two change places in one step; elsewhere there is a moment without either, in which a kill leaves the old
    one in a hidden folder beside it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield temporary
        # Temporary folders, and what safetensors writes, are their owner's alone to read.
        for inner in [temporary, *temporary.rglob("*")]:
            inner.chmod(0o755 if inner.is_dir() else 0o644)
            _flush(inner)
        if not path.exists():
            temporary.replace(path)
        elif not _exchange(temporary, path):
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
            path.replace(old / path.name)
            temporary.replace(path)
            shutil.rmtree(old)
        _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(path: Path) -> None:
    """Wait until a file or a folder's list of names is on the disk; a full one that put off saying so says it here."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks know no such thing of a folder
            raise
    finally:
        os.close(handle)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; whether the system and the disk can."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0
