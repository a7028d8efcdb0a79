"""What comes with the package: the tiny model, by its name wherever a folder, a file or a hub id is expected.

``"tiny"`` is always the packaged one; a folder of your own of that name is ``"./tiny"`` (or a ``Path``).
"""

from __future__ import annotations

from pathlib import Path

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


def _is_packaged(name: str | Path) -> bool:
    """Only a bare string is a name; a path is a path."""
    return isinstance(name, str) and name in PACKAGED
