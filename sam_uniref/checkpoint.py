"""Saving and loading what is plugged into a SAM: what was trained, the configuration, the base SAM by name and hash."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sam_uniref import packaged
from sam_uniref.config import ModelConfig, PluggedConfig, SentenceConfig
from sam_uniref.lora_files import read_lora, write_lora
from sam_uniref.models import CONFIG_FILE
from sam_uniref.state import file_sha256, read_tensors, whole_folder, without_aliases

if TYPE_CHECKING:
    from torch import nn

    from sam_uniref.plugged import PluggedSam
    from sam_uniref.trainable import TrainableModel

Plugged = TypeVar("Plugged", bound="PluggedSam")
Config = TypeVar("Config", bound=ModelConfig)

logger = logging.getLogger(__name__)

TRAINED_FILE = "adapters.safetensors"
BASE_FILE = "base_sam.safetensors"
TEXT_FOLDER = "text_encoder"
# Where base checkpoints are looked for by name, beside the places that are given.
CHECKPOINT_FOLDER_VARIABLE = "SAM_UNIREF_CHECKPOINTS"

_KNOWN_URLS = {
    "sam_vit_b_01ec64.pth": "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",
    "sam_vit_l_0b3195.pth": "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_l_0b3195.pth",
    "sam_vit_h_4b8939.pth": "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth",
}


def save_pretrained(model: PluggedSam, folder: str | Path) -> None:
    """Write a folder that `load_pretrained` reads; it is whole or not there.

    It holds ``config.json``, ``adapters.safetensors`` (what was trained), ``text_encoder/`` (tokenizer and
    configuration) and, of LoRA, ``lora_image/`` and ``lora_text/`` in ``peft``'s own format. A base SAM without a
    checkpoint of its own has nowhere else to come from, so its weights are added as ``base_sam.safetensors``, with its
    tables of positions as they are at SAM's own image size.

    Raises:
        FileExistsError: If there is something else than a saved model, which would be replaced.
        ValueError: If the base SAM is to be written and its image encoder is held in half precision.
    """
    from safetensors.torch import save_file

    if model.config.sam.checkpoint is None and model.sam.is_rounded:
        raise ValueError(
            "the base SAM has no file and would be saved with this model, but its image encoder was rounded to half "
            'precision; build or load the model with encoder_precision="float32" to save it'
        )
    with model_folder(model, folder, TRAINED_FILE) as temporary:
        if model.config.sam.checkpoint is None:
            with model.without_lora():
                base = {
                    n: t.detach().cpu().contiguous() for n, t in without_aliases(model.sam.own_state_dict()).items()
                }
            save_file(base, temporary / BASE_FILE, {"format": "pt"})


@contextmanager
def model_folder(model: TrainableModel, folder: str | Path, weights: str) -> Iterator[Path]:
    """A folder that takes its name, with what every saved model has in it, when the block ends well.

    Args:
        model: Its configuration, what was trained, and its text encoder's tokenizer and configuration are written.
        folder: Its name; an older model there is replaced.
        weights: Name of the file of what was trained.

    Raises:
        FileExistsError: If there is something else than a saved model, which would be replaced.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    if folder.exists() and not (folder / CONFIG_FILE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} holds something else than a {type(model).__name__}; give another folder, or empty it first"
        )
    with whole_folder(folder) as temporary:
        (temporary / CONFIG_FILE).write_text(json.dumps(model.config.to_dict(), indent=2) + "\n")
        trained = {name: tensor.detach().cpu().contiguous() for name, tensor in model.trained_state_dict().items()}
        save_file(write_lora(model, trained, temporary), temporary / weights, {"format": "pt"})
        if model.text_encoder is not None:
            text_config: Any = model.text_encoder.model.config
            model.text_encoder.tokenizer.save_pretrained(temporary / TEXT_FOLDER)
            text_config.save_pretrained(temporary / TEXT_FOLDER)
        yield temporary


def load_pretrained(
    model_class: type[Plugged],
    folder: str | Path,
    checkpoint: str | Path | None = None,
    *,
    image_size: int | None = None,
) -> Plugged:
    """Load a folder that `save_pretrained` wrote.

    Args:
        model_class: Of the model that is in it.
        folder: That folder; or ``"tiny"``, the packaged model.
        checkpoint: The base SAM's file. By default it is looked for by its name in the folder, beside it, in
            the working folder, in ``$SAM_UNIREF_CHECKPOINTS`` and in the package; its SHA-256 must be the recorded one,
            and one of that name with another SHA-256 is passed over.
        image_size: Side of the input square in pixels, as in `PluggedSam.from_sam`; by default that of the saved model.

    Raises:
        FileNotFoundError: If the folder or the base checkpoint is not there.
        ValueError: If a file is broken or does not fit, the model is of another class, or the base checkpoint is
            another one; or the image size is no multiple of the patch size.
    """
    from sam_uniref.hosts.registry import saved_host

    folder = packaged.model_folder(folder)
    config = read_config(folder, model_class.config_class, model_class.__name__)
    if image_size is not None:
        config.sam.image_size = image_size
    file = None if config.sam.checkpoint is None else _find_base(folder, config, checkpoint)
    host = saved_host(config.sam, file, folder / BASE_FILE)
    text = None
    loaded = read_text_model(folder, config.text_encoder)
    if loaded is not None:
        text = model_class.wrap_text_model(*loaded, host.channels, config.text_encoder)
    model = model_class(host, text, config)
    model.load_trained_state_dict(read_tensors(folder / TRAINED_FILE) | read_lora(model, folder))
    return model


def read_text_model(folder: Path, config: SentenceConfig) -> tuple[nn.Module, Any] | None:
    """A saved model's language model and tokenizer; None where it has none.

    One that was trained has random weights here: they come with the model's. Another one is loaded by its name.

    Raises:
        FileNotFoundError: If it is not there.
    """
    from sam_uniref.adapters import load_text_model

    if config.name is None:
        return None
    source = folder / TEXT_FOLDER if config.trained else packaged.text_encoder(config.name)
    return load_text_model(source, random_weights=config.trained)


def read_config(folder: Path, config_class: type[Config], name: str) -> Config:
    """A saved model's configuration.

    Args:
        folder: That the model was saved to.
        config_class: Of its configuration.
        name: Of its class, for messages.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it can't be read, or is another kind of model's.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {name}: there is no {CONFIG_FILE}; save one with save_pretrained")
    try:
        return config_class.from_dict(json.loads(path.read_text()))
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no {name} configuration ({error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _find_base(folder: Path, config: PluggedConfig, given: str | Path | None) -> Path:
    """The base SAM's checkpoint, checked by its hash."""
    from sam_uniref.hosts.registry import family_of

    # Only the name counts: a configuration from elsewhere must not point out of these folders.
    name = Path(str(config.sam.checkpoint)).name
    places = [folder, folder.parent, Path.cwd()]
    if os.environ.get(CHECKPOINT_FOLDER_VARIABLE):
        places.append(Path(os.environ[CHECKPOINT_FOLDER_VARIABLE]))
    places += packaged.base_folders()
    candidates = [packaged.base_checkpoint(given)] if given is not None else [place / name for place in places]
    weights_file = family_of(config.sam).weights_file
    there = [weights_file(path) for path in candidates if weights_file(path).is_file()]
    if not there:
        where = f"; it is published at {_KNOWN_URLS[name]}" if name in _KNOWN_URLS else ""
        raise FileNotFoundError(
            f"this model needs the base SAM {name} (sha256 {config.sam.sha256}), which is not in "
            f"{', '.join(str(path.parent) for path in candidates)}{where}. Give its path with checkpoint=, or its "
            f"folder in {CHECKPOINT_FOLDER_VARIABLE}"
        )
    if not config.sam.sha256:
        return there[0]
    # Another model's base may have the same name.
    hashes = {path: file_sha256(path) for path in there}
    found = next((path for path, got in hashes.items() if got == config.sam.sha256), None)
    if found is None:
        got = "; ".join(f"{path} is another one, sha256 {value}" for path, value in hashes.items())
        raise ValueError(
            f"{name} with sha256 {config.sam.sha256} is the base SAM of this model, and {got}. Give the right "
            "one's path with checkpoint=, on the command line --checkpoint"
        )
    return found
