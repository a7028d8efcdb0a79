"""Saving and loading what is plugged into a SAM: what was trained, the configuration, the base SAM by name and hash."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from sam_uniref import packaged
from sam_uniref.config import ModelConfig, PluggedConfig, SentenceConfig
from sam_uniref.hub.card import write_card
from sam_uniref.hub.known import find_known, known_names, weights_of_sha256
from sam_uniref.hub.repositories import HubOptions
from sam_uniref.hub.repositories import model_folder as find_model_folder
from sam_uniref.hub.text_encoders import text_encoder
from sam_uniref.hub.weights import CHECKPOINT_FOLDER_VARIABLE, base_checkpoint, checkpoint_folders, fetch_weights
from sam_uniref.lora_files import read_lora, write_lora
from sam_uniref.models import CONFIG_FILE
from sam_uniref.nearest import did_you_mean, nearest_path
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
_COMMIT = re.compile(r"[0-9a-f]{40}")


def save_pretrained(model: PluggedSam, folder: str | Path, card: Mapping[str, Any] | None = None) -> None:
    """Write a folder that `load_pretrained` reads; it is whole or not there.

    It holds ``README.md`` (its card), ``config.json``, ``adapters.safetensors`` (what was trained), ``text_encoder/``
    (tokenizer and configuration) and, of LoRA, ``lora_image/`` and ``lora_text/`` in ``peft``'s own format. A base SAM
    without a checkpoint of its own has nowhere else to come from, so its weights are added as
    ``base_sam.safetensors``, with its tables of positions as they are at SAM's own image size.

    Args:
        model: The model.
        folder: Its name; an older model there is replaced.
        card: What the model's card says beside what the model knows, as `sam_uniref.hub.card.CardOptions`.

    Raises:
        FileExistsError: If there is something else than a saved model, which would be replaced.
        ValueError: If the base SAM is to be written and its image encoder is held in half precision.
    """
    from safetensors.torch import save_file

    check_base(model)
    with model_folder(model, folder, TRAINED_FILE, card) as temporary:
        if model.config.sam.checkpoint is None:
            with model.without_lora():
                base = {
                    n: t.detach().cpu().contiguous() for n, t in without_aliases(model.sam.own_state_dict()).items()
                }
            save_file(base, temporary / BASE_FILE, {"format": "pt"})


def check_base(model: PluggedSam) -> None:
    """Refuse a model whose base SAM would be saved with it, and was rounded.

    Raises:
        ValueError: If it is so.
    """
    if model.config.sam.checkpoint is None and model.sam.is_rounded:
        raise ValueError(
            "the base SAM has no file and would be saved with this model, but its image encoder was rounded to half "
            'precision; build or load the model with encoder_precision="float32" to save it'
        )


@contextmanager
def model_folder(
    model: TrainableModel, folder: str | Path, weights: str, card: Mapping[str, Any] | None = None
) -> Iterator[Path]:
    """A folder that takes its name, with what every saved model has in it, when the block ends well.

    Args:
        model: Its configuration, what was trained, and its text encoder's tokenizer and configuration are written.
        folder: Its name; an older model there is replaced.
        weights: Name of the file of what was trained.
        card: As in `save_pretrained`. A card that a person wrote or changed stays as it is.

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
        write_card(model, temporary, folder, card)
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
    **hub: Unpack[HubOptions],
) -> Plugged:
    """Load a folder that `save_pretrained` wrote.

    Args:
        model_class: Of the model that is in it.
        folder: That folder; or ``"tiny"``, the packaged model; or a hub id, ``"user/name"``.
        checkpoint: The base SAM's file, or a published one's name. By default it is looked for by its name in the
            folder, beside it, in the working folder, in ``$SAM_UNIREF_CHECKPOINTS``, among those fetched before and in
            the package; its SHA-256 must be the recorded one, and one of that name with another SHA-256 is passed over.
            A published one that is nowhere is fetched.
        image_size: Side of the input square in pixels, as in `PluggedSam.from_sam`; by default that of the saved model.
        hub: How the hub is asked.

    Raises:
        FileNotFoundError: If the folder, the base checkpoint or the text encoder is neither there nor to be had.
        ValueError: If a file is broken or does not fit, the model is of another class, or the base checkpoint is
            another one; or the image size is no multiple of the patch size.
    """
    from sam_uniref.hosts.registry import saved_host

    folder = find_model_folder(folder, **hub)
    local_files_only = hub.get("local_files_only", False)
    config = read_config(folder, model_class.config_class, model_class.__name__)
    if image_size is not None:
        config.sam.image_size = image_size
    local = config.sam.checkpoint is None
    file = None if local else _find_base(folder, config, checkpoint, local_files_only)
    host = saved_host(config.sam, file, folder / BASE_FILE)
    text = None
    loaded = read_text_model(folder, config.text_encoder, local_files_only=local_files_only)
    if loaded is not None:
        text = model_class.wrap_text_model(*loaded, host.channels, config.text_encoder)
    model = model_class(host, text, config)
    model.load_trained_state_dict(read_tensors(folder / TRAINED_FILE) | read_lora(model, folder))
    return model


def read_text_model(
    folder: Path, config: SentenceConfig, *, local_files_only: bool = False
) -> tuple[nn.Module, Any] | None:
    """A saved model's language model and tokenizer; None where it has none.

    One that was trained has random weights here: they come with the model's. Another one is loaded by its name.

    Args:
        folder: Of the saved model.
        config: Its text encoder's.
        local_files_only: Never ask the hub.

    Raises:
        FileNotFoundError: If it is neither there nor to be had.
    """
    from sam_uniref.adapters import load_text_model

    if config.name is None:
        return None
    if config.trained:
        return load_text_model(folder / TEXT_FOLDER, random_weights=True)
    source = text_encoder(config.name, local_files_only=local_files_only)
    return load_text_model(source, local_files_only=local_files_only)


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


def _find_base(folder: Path, config: PluggedConfig, given: str | Path | None, local_files_only: bool) -> Path:
    """The base SAM's checkpoint, checked by its hash; a published one that is nowhere is fetched."""
    from sam_uniref.hosts.registry import family_of, published_weights, repository_of

    family = family_of(config.sam)
    # Only the name counts: a configuration from elsewhere must not point out of these folders.
    name = PureWindowsPath(str(config.sam.checkpoint)).name
    if given is not None:
        candidates = [base_checkpoint(given, local_files_only=local_files_only)]
        if not candidates[0].exists():
            hint = nearest_path(given) or did_you_mean(str(given), [*known_names(), *packaged.PACKAGED])
            raise FileNotFoundError(f"there is no checkpoint at {given}{hint}")
    else:
        places = [folder, folder.parent, Path.cwd(), *checkpoint_folders(), *packaged.base_folders()]
        candidates = [place / name for place in places]
    there = [family.weights_file(path) for path in candidates if family.weights_file(path).is_file()]
    if there and not config.sam.sha256:
        return there[0]
    # Another model's base may have the same name.
    hashes = {path: file_sha256(path) for path in there}
    found = next((path for path, got in hashes.items() if got == config.sam.sha256), None)
    if found is not None:
        return found
    published = weights_of_sha256(config.sam.sha256)
    if given is None and published is not None:
        return fetch_weights(published, local_files_only=local_files_only)
    if given is None and repository_of(config.sam) is not None:
        commit = name if _COMMIT.fullmatch(name) else None  # what the hub's client calls a folder
        fetched = published_weights(config.sam, commit, local_files_only=local_files_only)
        if fetched is not None and file_sha256(family.weights_file(fetched)) == config.sam.sha256:
            return family.weights_file(fetched)
    if not there:
        known = find_known(name)
        where = f"; one of that name is published at {known.url}" if known is not None else ""
        raise FileNotFoundError(
            f"this model needs the base SAM {name} (sha256 {config.sam.sha256}), which is not in "
            f"{', '.join(str(path.parent) for path in candidates)}{where}. Give its path with checkpoint=, or its "
            f"folder in {CHECKPOINT_FOLDER_VARIABLE}"
        )
    got = "; ".join(f"{path} is another one, sha256 {value}" for path, value in hashes.items())
    raise ValueError(
        f"{name} with sha256 {config.sam.sha256} is the base SAM of this model, and {got}. Give the right "
        "one's path with checkpoint=, on the command line --checkpoint"
    )
