"""Saved models by their hub id: which names are ids, and a checked copy of the repository's files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, TypedDict, Unpack

from sam_uniref import packaged
from sam_uniref.hub.offline import is_offline
from sam_uniref.version import __version__

SCHEME = "hf://"
# The largest repository that is downloaded, and the largest configuration, in bytes.
LARGEST_MODEL = 8 * 10**9
LARGEST_CONFIG = 10**6

# What saved models are made of: tensors and text. Anything else in a repository stays there, pickles above all.
_FILES = (
    "config.json",
    "README.md",
    "*.safetensors",
    "text_encoder/*.json",
    "text_encoder/*.txt",
    "text_encoder/*.model",
    "lora_*/adapter_config.json",
    "lora_*/adapter_model.safetensors",
)
_PART = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
_ID = re.compile(rf"(?P<id>{_PART}/{_PART})(?:@(?P<revision>[\w./-]+))?")


class HubOptions(TypedDict, total=False):
    """How the hub is asked.

    Attributes:
        revision: Branch, tag or commit; ``"user/name@revision"`` says the same.
        token: For private repositories; by default the one that ``hf auth login`` kept. False: none.
        cache_dir: Where copies are kept; by default the hub's own cache folder.
        force_download: Download what is there already.
        local_files_only: Never ask the net: neither for the model nor for its base SAM or its text encoder.
    """

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    force_download: bool
    local_files_only: bool


def is_hub_id(name: str | Path) -> bool:
    """Whether a name means a repository on the hub.

    ``"hf://user/name"`` always does. ``"user/name"`` does unless there is such a folder, or a folder ``user`` in which
    it was to be. A ``Path`` never does.
    """
    if not isinstance(name, str) or name in packaged.PACKAGED:
        return False
    if name.startswith(SCHEME):
        return True
    return _ID.fullmatch(name) is not None and not Path(name).exists() and not Path(name).parent.exists()


def model_folder(name: str | Path, **options: Unpack[HubOptions]) -> Path:
    """A saved model's folder: a packaged one's by its name, a copy of a repository's by its hub id, or the path itself.

    Raises:
        FileNotFoundError: If a repository is neither here nor to be had.
        ValueError: If an id is none, a revision is given twice or to a folder, or the repository is too large or points
            out of itself.
    """
    if not is_hub_id(name):
        if options.get("revision") is not None:
            raise ValueError(f"revision= is of a model on the hub, and {name} is a folder; leave it out")
        return packaged.model_folder(name)
    match = _ID.fullmatch(str(name).removeprefix(SCHEME))
    if match is None:
        raise ValueError(f"a model on the hub is called {SCHEME}user/name or {SCHEME}user/name@revision, got {name!r}")
    if match["revision"]:
        if options.get("revision") not in (None, match["revision"]):
            raise ValueError(f"{name} has a revision of its own, and revision={options['revision']!r} is another one")
        options["revision"] = match["revision"]
    folder = snapshot(match["id"], "model", _FILES, **options)
    _check_names(folder / "config.json")
    return folder


def snapshot(repository: str, what: str, files: Sequence[str], **options: Unpack[HubOptions]) -> Path:
    """A folder with the named files of a repository.

    Args:
        repository: Its hub id.
        what: It is, for messages.
        files: Patterns of the files' names.
        options: How the hub is asked.

    Raises:
        FileNotFoundError: If it is neither here nor to be had.
        ValueError: If the id is none, or the files are too large.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        if not options.get("local_files_only") and not is_offline():
            _check_sizes(repository, files, options)
        folder = snapshot_download(
            repository, allow_patterns=list(files), library_name="sam_uniref", library_version=__version__, **options
        )
    except HFValidationError as error:
        raise ValueError(f"{repository!r} is no hub id ({error})") from error
    except (OSError, HfHubHTTPError) as error:
        raise FileNotFoundError(_unavailable(repository, what, options, error)) from error
    return Path(folder)


def _check_sizes(repository: str, files: Sequence[str], options: HubOptions) -> None:
    """Refuse a repository that is too large, before anything of it is downloaded."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import filter_repo_objects

    api = HfApi(token=options.get("token"))
    try:
        info = api.model_info(repository, revision=options.get("revision"), files_metadata=True)
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except Exception:  # the client's own types differ between versions; what can't be reached may still be here
        return
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    wanted = list(filter_repo_objects(sizes, allow_patterns=list(files)))
    if sizes.get("config.json", 0) > LARGEST_CONFIG:
        raise ValueError(f"the config.json of {repository} is larger than {LARGEST_CONFIG:,} bytes; it is no model's")
    total = sum(sizes[name] for name in wanted)
    if total > LARGEST_MODEL:
        raise ValueError(
            f"{repository} has {total:,} bytes to download, more than the {LARGEST_MODEL:,} that are; if that is "
            "right, download it yourself and give its folder"
        )


def _check_names(path: Path) -> None:
    """Refuse a configuration from the hub that names files elsewhere on this machine.

    Raises:
        ValueError: If it does, or is larger than configurations are.
    """
    if not path.is_file():
        return  # the reader of configurations says so
    if path.stat().st_size > LARGEST_CONFIG:
        raise ValueError(f"{path} is larger than {LARGEST_CONFIG:,} bytes; it is no model's configuration")
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
        base, text = ((config.get(part) or {}) for part in ("sam", "text_encoder"))
        checkpoint, encoder = base.get("checkpoint"), text.get("name")
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"{path} is no model's configuration ({error})") from error
    if checkpoint is not None and not is_bare_name(checkpoint):
        raise ValueError(f"{path}: sam.checkpoint must be a file's name without folders, got {checkpoint!r}")
    known = encoder is None or encoder in packaged.PACKAGED or _is_text_encoder_id(encoder)
    if not known and not text.get("trained"):
        raise ValueError(
            f"{path}: text_encoder.name must be a hub id, got {encoder!r}, which is a place on the machine that it was "
            "saved on; save it with a text encoder that has an id"
        )


def is_bare_name(name: object) -> bool:
    """Whether this is a file's name that leads out of no folder, on any system."""
    return isinstance(name, str) and name not in ("", ".", "..") and PureWindowsPath(name).name == name


def _is_text_encoder_id(name: object) -> bool:
    """Whether this is a hub id, of one part or two, that no folder of the machine answers to."""
    return (
        isinstance(name, str)
        and re.fullmatch(rf"(?:{_PART}/)?{_PART}", name) is not None
        and ".." not in name
        and not Path(name).exists()
    )


def _unavailable(repository: str, what: str, options: HubOptions, error: Exception) -> str:
    """Why a repository can't be had, and what to do."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    name = f"the {what} {repository}"
    by_hand = f"or get its files on a machine with a network (hf download {repository}) and give their folder"
    if isinstance(error, GatedRepoError):
        return f"{name} is given to those who asked its owner; do so on its page, and log in with hf auth login"
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no revision {options.get('revision')!r}; leave revision= out for the newest"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"there is no {what} {repository}, neither as a folder nor on the hub; check the name, and if it is "
            "private, log in with hf auth login or give token="
        )
    if options.get("local_files_only") or is_offline():
        return f"{name} is not on this machine, and the net is not to be asked; allow it once, {by_hand}"
    reason = " ".join(str(error).split())
    return f"{name} is not on this machine and could not be downloaded ({reason}); try again with a network, {by_hand}"
