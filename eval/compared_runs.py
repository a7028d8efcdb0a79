"""The training runs of a comparison: what they need is looked for before anything is trained; several side by side."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from tqdm.auto import tqdm

from sam_uniref.eval.baselines.base_sam import is_released
from sam_uniref.eval.compared_methods import OURS
from sam_uniref.eval.comparison import ComparedMethod, Comparison
from sam_uniref.eval.trained_runs import claim_folder, is_trained, train_run, trained_model
from sam_uniref.models import kind_of
from sam_uniref.state import write_json
from sam_uniref.train.settings import RunSettings, load_settings


def check_runs(comparison: Comparison, place: tuple[Path, Path]) -> None:
    """See that what the methods are trained by, or made of, is there.

    Args:
        comparison: What is compared.
        place: Folder of the configurations, and of the results.

    Raises:
        FileNotFoundError: If a configuration, its data, or a model that is started from is not there.
        ValueError: If a configuration is broken, or trains another kind of model.
    """
    configs, out = place
    made = set()
    for method in comparison.methods:
        if method.train is not None:
            try:
                made |= _check_training(comparison, method, configs / method.train, out)
            except (FileNotFoundError, ValueError) as error:
                raise type(error)(f"{method.name}: {error}") from error
    if (
        any(comparison.trainer(method) is None for method in comparison.methods)
        and Path(comparison.sam).absolute() not in made
    ):
        try:
            if not is_released(comparison.sam):
                kind_of(comparison.sam)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"sam: {error}") from error


def _check_training(comparison: Comparison, method: ComparedMethod, config: Path, out: Path) -> set[Path]:
    """One method's; the models that it will leave."""
    settings = load_settings(config)
    wanted = OURS.get(method.method, method.method)
    if settings.model.kind != wanted:
        raise ValueError(f"{config} trains a {settings.model.kind}, but {method.method} asks a {wanted}")
    models = {trained_model(config, seed_folder(method, seed, out)) for seed in comparison.seeds}
    if not all(is_trained(model) for model in models):
        _check_needs(settings, config)
    return {model.absolute() for model in models}


def _check_needs(settings: RunSettings, config: Path) -> None:
    """What a run that is still to come starts from and learns from."""
    if settings.model.start_from is not None:
        try:
            kind_of(settings.model.start_from)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{config} starts from the model {settings.model.start_from}, which no run of this comparison makes; "
                f"train it before, or change model.start_from ({error})"
            ) from error
    for stage in settings.stages():
        for name, data in stage.data.items():
            if data.weight and data.root and not Path(data.root).is_dir():
                raise FileNotFoundError(f"{config}: there is no folder {data.root} of data.{name}")


def train_all(comparison: Comparison, place: tuple[Path, Path], together: int) -> None:
    """Train what needs it, so many runs side by side. A run says in ``training.log`` of its folder how it fares.

    Args:
        comparison: What is compared.
        place: Folder of the configurations, and of the results.
        together: Runs at a time; each has a process of its own.

    Raises:
        ValueError: If a folder's run was made by another configuration.
        RuntimeError: If training fails.
    """
    configs, out = place
    with ThreadPoolExecutor(together) as pool:
        runs = [
            pool.submit(train, configs / method.train, seed, seed_folder(method, seed, out))
            for method in comparison.methods
            if method.train is not None
            for seed in comparison.seeds
        ]
        try:
            for run in tqdm(runs, desc="trained", unit="run", disable=all(run.done() for run in runs)):
                run.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # those that run are let end, no other begins
            raise


def train(config: Path, seed: int, folder: Path) -> float | None:
    """Train one run, or go on with it.

    Returns:
        Seconds that it took, all its parts together; None if a part was not measured.

    Raises:
        ValueError: If the folder's run was made by another configuration.
        RuntimeError: If training fails; what it said is in ``training.log``.
    """
    claim_folder(folder / "made_of.json", {"config": yaml.safe_load(config.read_text(encoding="utf-8")), "seed": seed})
    spent = folder / "training.json"
    began = (folder / "settings.yaml").is_file()
    before = json.loads(spent.read_text())["seconds"] if spent.is_file() else None if began else 0.0
    if is_trained(trained_model(config, folder)):
        return before
    start = time.monotonic()
    try:
        train_run(config, folder, seed, log=folder / "training.log")
    finally:
        seconds = None if before is None else before + time.monotonic() - start
        write_json(spent, {"seconds": seconds})
    return seconds


def seed_folder(method: ComparedMethod, seed: int, out: Path) -> Path:
    """Where a method's run with a seed is, and its answers."""
    return out / method.folder / f"seed_{seed}"
