"""What comes with the package: the tiny model, by its name wherever a folder, a file or a hub id is expected.

``"tiny"`` is always the packaged one; a folder of your own of that name is ``"./tiny"`` (or a ``Path``). And the
configurations of runs.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from sam_uniref.nearest import did_you_mean, nearest_path

PACKAGED = ("tiny",)

_FOLDER = Path(__file__).parent / "pretrained"
_BASE_FILE = "sam_{name}.safetensors"
_TEXT_FOLDER = "text_encoder"


def model_folder(name: str | Path) -> Path:
    """The folder of a SamRef: a packaged one's by its name, or the path itself."""
    return _FOLDER / name if _is_packaged(name) else Path(name)


def base_checkpoint(name: str | Path) -> Path:
    """The file of a base SAM: a packaged one's by its name, or the path itself."""
    return _FOLDER / name / _BASE_FILE.format(name=name) if _is_packaged(name) else Path(name)


def text_encoder(name: str | Path) -> str | Path:
    """A text encoder's folder or hub id: a packaged one's folder by its name, or the name itself."""
    return _FOLDER / name / _TEXT_FOLDER if _is_packaged(name) else name


def base_folders() -> list[Path]:
    """Folders in which packaged base SAMs are."""
    return [_FOLDER / name for name in PACKAGED]


def packaged_configurations(folder: str = "") -> dict[str, Path]:
    """The files of `sam_uniref.configs`, by their names without ``.yaml``.

    Args:
        folder: One of theirs, such as ``"accelerate"``; by default those of runs and comparisons.
    """
    place = Path(str(files("sam_uniref.configs"))) / folder
    return {path.stem: path for path in sorted(place.glob("*.yaml"))}


def configuration(name: str | Path, folder: str = "") -> Path:
    """The file of a configuration: the path itself if there is such a file, else a packaged one's by its name.

    Args:
        name: A path, or a name with or without ``.yaml``.
        folder: As in `packaged_configurations`.

    Raises:
        FileNotFoundError: If there is neither, naming the nearest.
    """
    path, known = Path(name), packaged_configurations(folder)
    if path.is_file():
        return path
    if str(path.parent) == "." and path.name.removesuffix(".yaml") in known:
        return known[path.name.removesuffix(".yaml")]
    hint = nearest_path(path) or did_you_mean(path.name.removesuffix(".yaml"), known)
    raise FileNotFoundError(
        f"there is no configuration {name}, neither a file nor packaged{hint or '; packaged are ' + ', '.join(known)}"
    )


def _is_packaged(name: str | Path) -> bool:
    """Only a bare string is a name; a path is a path."""
    return isinstance(name, str) and name in PACKAGED
