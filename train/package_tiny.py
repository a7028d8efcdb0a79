"""Make the packaged tiny model from trained ones: half precision, the text encoder as a folder of its own.

    python train/package_tiny.py runs/sam_tiny_video/model runs/sam_tiny/sam_tiny.safetensors sam_uniref/pretrained/tiny

The text encoder is set apart so that fresh adapters can start from it, as from any Hugging Face encoder. README.md
and results.json in the folder are kept; their figures are then those of the model before, and are to be measured again.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sam_uniref.checkpoint import TEXT_FOLDER, TRAINED_FILE
from sam_uniref.models import CONFIG_FILE
from sam_uniref.packaged import base_checkpoint
from sam_uniref.samref import SamRef
from sam_uniref.state import compare_names, whole_folder

logger = logging.getLogger("sam_uniref.train")

_NAME = "tiny"
_KEPT = ("README.md", "results.json")
_CONTENT = {CONFIG_FILE, TRAINED_FILE, TEXT_FOLDER, base_checkpoint(_NAME).name, *_KEPT}


def package(model_folder: Path, base: Path, out: Path, average_with: Sequence[Path] = ()) -> int:
    """Write the folder; whole or not at all.

    Args:
        model_folder: That `save_pretrained` wrote.
        base: Its base SAM's file.
        out: The folder to write.
        average_with: Models of other moments of the same training; what is packaged is the mean of all their weights
            (Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization").

    Returns:
        Bytes of the folder.

    Raises:
        FileNotFoundError: If the model or the base is not there.
        FileExistsError: If ``out`` holds something else than a packaged model, which would be replaced.
        ValueError: If they don't belong together, or the model has no text encoder.
    """
    if out.exists() and {path.name for path in out.iterdir()} - _CONTENT:
        raise FileExistsError(f"{out} holds something else than a packaged model; give another folder, or empty it")
    model = SamRef.from_pretrained(model_folder, base)
    if model.config.sam.sha256 is None:
        raise ValueError(f"{model_folder} has no base SAM of its own; train it with model.checkpoint={base}")
    if model.text_encoder is None:
        raise ValueError(f"{model_folder} has no text encoder; the packaged model answers sentences")
    others = [SamRef.from_pretrained(folder, base).trained_state_dict() for folder in average_with]
    model.load_trained_state_dict(_mean([model.trained_state_dict(), *others]))
    model.config.sam.checkpoint = base_checkpoint(_NAME).name
    model.config.text_encoder.name = _NAME
    # Its weights are those of its name from here on.
    model.config.text_encoder.trained = False
    encoder: Any = model.text_encoder.model
    with whole_folder(out) as temporary:
        (temporary / CONFIG_FILE).write_text(json.dumps(model.config.to_dict(), indent=2) + "\n")
        save_file(_half(model.trained_state_dict()), temporary / TRAINED_FILE, {"format": "pt"})
        shutil.copyfile(base, temporary / base_checkpoint(_NAME).name)
        model.text_encoder.tokenizer.save_pretrained(temporary / TEXT_FOLDER)
        encoder.to(torch.float16).save_pretrained(temporary / TEXT_FOLDER)
        for name in _KEPT:
            if (out / name).is_file():
                shutil.copyfile(out / name, temporary / name)
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def _mean(state_dicts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor.

    Raises:
        ValueError: If they are not of one model.
    """
    for other in state_dicts[1:]:
        compare_names(other, state_dicts[0], "a model to average with")
    return {name: torch.stack([state[name] for state in state_dicts]).mean(dim=0) for name in state_dicts[0]}


def _half(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """In half precision, ready to be written."""
    return {name: tensor.detach().cpu().half().contiguous() for name, tensor in state_dict.items()}


def main() -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder that training wrote")
    parser.add_argument("base", type=Path, help="its base SAM's file")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument(
        "--average-with", type=Path, nargs="+", default=[], metavar="MODEL", help="folders of the same training's"
    )
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        size = package(given.model, given.base, given.out, given.average_with)
    except (ValueError, OSError) as error:
        logger.error("error: %s", error)
        return 2
    logger.info("%s: %.1f MB", given.out, size / 1e6)
    return 0


if __name__ == "__main__":
    sys.exit(main())
