"""The ``sam-uniref cache`` command.

Heavy imports stand inside the command, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sam_uniref.commands.options import CheckpointOption, DeviceOption
from sam_uniref.output_checks import check_output_folder

if TYPE_CHECKING:
    from sam_uniref.cache import CacheDescription, WritingPlan
    from sam_uniref.cache.writer import Report
    from sam_uniref.data import SampleSource
    from sam_uniref.interfaces import ImageBackbone
    from sam_uniref.train.settings import RunSettings

# Views after which the time that is left is told.
_FIRST_FEW = 4
_GPU_BATCH = 8


def cache(
    data: Annotated[
        str,
        typer.Option("--data", help="A run's YAML: all it looks at. Or a folder, own or prepared; or refshapes."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings over the YAML's, or of the folder, such as views=4."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="A saved model, tiny, or vit_b, vit_l, vit_h with --checkpoint; or the YAML's."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The cache's folder; or the YAML's.")] = None,
    checkpoint: CheckpointOption = None,
    image_size: Annotated[int | None, typer.Option("--image-size", help="Side of the input square.")] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Of a folder: what it is for; all that it serves by default.")
    ] = None,
    precision: Annotated[str, typer.Option("--precision", help="On disk: bfloat16, int8 or float32.")] = "bfloat16",
    compute: Annotated[
        str | None, typer.Option("--compute", help="Of the encoder: float32 or bf16; float32, or as the YAML says.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the encoder first, SAM's own only: minutes, then faster.")
    ] = False,
    processes: Annotated[int, typer.Option("--processes", help="That encode, on a GPU each.")] = 1,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Views encoded at a time.")] = None,
    shard_views: Annotated[
        int | None, typer.Option("--shard-views", help="Views in a file; by default what makes 128 MiB.")
    ] = None,
    device: DeviceOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it takes, and stop.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Name broken files, and stop: exit code 1 if any.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Keep what the frozen image encoder makes of a data set's pictures: training with cache= then runs without it.

    What is there is checked and kept, what is broken or missing is computed; so the same command goes on after a crash.
    """
    _check_numbers(processes, batch_size, shard_views)
    settings = _run_settings(data, overrides or [])
    folder = _cache_folder(out, settings)
    if check:
        raise typer.Exit(_tell_broken(folder, as_json))
    check_output_folder(folder)
    from sam_uniref.cache import CacheDescription, plan_writing
    from sam_uniref.cache.processes import write_cache
    from sam_uniref.data.shown import shown_pictures
    from sam_uniref.loading import best_device, named_device

    place = best_device() if device is None else named_device(device)
    pictures = shown_pictures(_sources(data, overrides or [], task or [], settings))
    backbone = _backbone(model, checkpoint, image_size, settings)
    backbone.encoder.to(place).eval()
    compiled |= model is None and settings is not None and settings.model.compile
    description = CacheDescription.of(backbone, precision, _choose_computation(backbone, compute, compiled))
    _check_kind(folder, description)
    if not plan:
        _remove_broken(folder, description)
    planned = plan_writing(pictures, description, folder, shard_views=shard_views)
    if not as_json:
        _tell_plan(planned, description)
    planned.check(folder)
    if not plan:
        options = {"processes": processes, "batch_size": batch_size or (_GPU_BATCH if place.type == "cuda" else 1)}
        with _progress(planned, quiet=as_json) as report:
            write_cache(folder, backbone, description, pictures, planned.shard_views, **options, report=report)
    _tell_end(folder, planned, plan, as_json)


def _tell_end(folder: Path, planned: WritingPlan, plan: bool, as_json: bool) -> None:
    """What was made, or would be."""
    if as_json:
        typer.echo(json.dumps({"cache": str(folder), **asdict(planned), "needed_bytes": planned.needed_bytes}))
    elif not plan:
        typer.echo(f"in a run:\n  cache: {folder}")


def _remove_broken(folder: Path, description: CacheDescription) -> None:
    """Leave only whole shards in a cache that is begun, saying which are to be made again."""
    from sam_uniref.cache import broken_shards
    from sam_uniref.cache.plan import remove_leftovers

    remove_leftovers(folder)
    for path, error in broken_shards(folder, description).items():
        typer.echo(f"removed, to be made again: {error}", err=True)
        path.unlink(missing_ok=True)


def _check_numbers(processes: int, batch_size: int | None, shard_views: int | None) -> None:
    """Refuse numbers below 1."""
    for name, number in (("--processes", processes), ("--batch-size", batch_size), ("--shard-views", shard_views)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")


def _choose_computation(backbone: ImageBackbone, compute: str | None, compiled: bool) -> str:
    """Have the encoder compute as asked; what a cache of its features says that it computed in.

    SAM's own holds its weights in half precision, others run under autocast.
    """
    from sam_uniref.cache.description import held_precision
    from sam_uniref.sam import SamHost

    held = held_precision(backbone)
    if compute not in (None, "float32", "bf16"):
        raise ValueError(f"--compute must be float32 or bf16, got {compute!r}")
    if held not in ("float32", compute or held):
        raise ValueError(
            f"--compute {compute} is not what the run's model.encoder_precision says, {held}; leave one of them out"
        )
    if isinstance(backbone, SamHost):
        backbone.speed_up_encoder(compute or held, compiled)
        return compute or held
    if compiled:
        raise ValueError(
            f"--compile is for SAM's own image encoder, not for a {type(backbone).__name__}'s; leave it out"
        )
    return "bfloat16" if compute == "bf16" else "float32"


def _is_yaml(data: str) -> bool:
    return Path(data).suffix in (".yaml", ".yml")


def _run_settings(data: str, overrides: Sequence[str]) -> RunSettings | None:
    """Those of a run, if the data are a run's."""
    if not _is_yaml(data):
        return None
    from sam_uniref.train.settings import load_settings

    return load_settings(data, overrides)


def _cache_folder(out: Path | None, settings: RunSettings | None) -> Path:
    """Where the cache is to be."""
    if out is not None:
        return out
    if settings is None or settings.cache is None:
        raise ValueError("say where the features are to be kept: --out FOLDER, or cache: in the run's YAML")
    return Path(settings.cache)


def _sources(
    data: str, overrides: Sequence[str], tasks: Sequence[str], settings: RunSettings | None
) -> list[SampleSource]:
    """The data sets whose pictures are to be encoded."""
    if settings is not None:
        from sam_uniref.train.build import build_datasets

        if tasks:
            raise ValueError("--task is for folders; leave a run's data sets out with data.<name>.weight=0")
        return [source for stage in settings.stages() for source in build_datasets(stage)]
    from sam_uniref.data import TASKS, open_source
    from sam_uniref.data.prepared.shards import INFO_FILE

    reader = "refshapes" if data == "refshapes" else "prepared" if (Path(data) / INFO_FILE).is_file() else "folder"
    options = _source_options(data if reader != "refshapes" else "", overrides)
    unknown = sorted(set(tasks) - set(TASKS))
    if unknown:
        raise ValueError(f"--task must be one of {TASKS}, got {unknown}")
    found, errors = [], []
    for task in TASKS:
        if tasks and task not in tasks:
            continue
        try:
            found.append(open_source(reader, Path(data).name, task, options))
        except (ValueError, FileNotFoundError) as error:
            errors.append(error)
    if errors and (tasks or not found):
        raise errors[0]
    return found


def _source_options(root: str, overrides: Sequence[str]) -> Any:
    """What is asked of a folder, from ``key=value``."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from sam_uniref.data import SourceOptions
    from sam_uniref.train.settings import check_keys

    if wrong := [override for override in overrides if "=" not in override]:
        raise ValueError(f"a setting is key=value, got {wrong[0]!r}")
    try:
        given = OmegaConf.merge({"root": root}, OmegaConf.from_dotlist(list(overrides)))
        check_keys(OmegaConf.to_container(given), SourceOptions)
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SourceOptions), given))
    except OmegaConfBaseException as error:
        raise ValueError(f"{str(error).splitlines()[0]} (at {error.full_key or 'the top'})") from error


def _backbone(
    model: str | None, checkpoint: str | None, image_size: int | None, settings: RunSettings | None
) -> ImageBackbone:
    """The frozen encoder that is asked for."""
    from sam_uniref.hosts import HOST_NAMES
    from sam_uniref.loading import load_for_use

    if model is None:
        if settings is None:
            raise ValueError("say whose encoder it is: --model FOLDER, or vit_b with --checkpoint FILE")
        if checkpoint is not None or image_size is not None:
            raise ValueError("--checkpoint and --image-size go with --model; a run's are model.checkpoint=, ...")
        from sam_uniref.train.build import build_model

        return build_model(settings).frozen_backbone()
    if model in HOST_NAMES and model != "tiny" and not Path(model).is_dir():
        if checkpoint is None:
            raise ValueError(f"--model {model} needs --checkpoint: a file, or {model} for the published one")
        from sam_uniref.samref import SamRef

        return SamRef.from_sam(model, checkpoint, image_size=image_size).frozen_backbone()
    import torch

    return load_for_use(model, checkpoint, torch.device("cpu"), image_size).frozen_backbone()


def _check_kind(folder: Path, description: CacheDescription) -> None:
    """Refuse to mix a cache that is begun with another one, or with something else."""
    from sam_uniref.cache.description import read_description

    if folder.is_dir() and any(folder.iterdir()):
        read_description(folder).check(description, folder)


def _tell_broken(folder: Path, as_json: bool) -> int:
    """Name what is broken; the exit code."""
    from sam_uniref.cache import broken_shards
    from sam_uniref.cache.description import read_description

    broken = broken_shards(folder, read_description(folder))
    if as_json:
        typer.echo(
            json.dumps({"cache": str(folder), "broken": {str(path): str(error) for path, error in broken.items()}})
        )
    else:
        for error in broken.values():
            typer.echo(str(error))
        typer.echo(f"{len(broken)} broken shard(s)" if broken else "all is as it was written")
    return 1 if broken else 0


def _tell_plan(plan: WritingPlan, description: CacheDescription) -> None:
    """What it takes."""
    from sam_uniref.cache.plan import gigabytes

    kept = f"{plan.record_bytes / 2**20:.3g} MiB each in {description.precision}"
    typer.echo(f"{plan.pictures:,} pictures, at most {plan.views:,} views, {kept}: {gigabytes(plan.all_bytes)}")
    typer.echo(
        f"at most {plan.missing:,} are missing: {gigabytes(plan.needed_bytes)} in about {plan.shards:,} files; "
        f"{gigabytes(plan.free_bytes)} are free"
    )


@contextmanager
def _progress(plan: WritingPlan, *, quiet: bool) -> Iterator[Report | None]:
    """Progress on stderr, and after the first few views how long the rest will take."""
    if quiet:
        yield None
        return
    from tqdm.auto import tqdm

    begun, encoded = time.monotonic(), 0
    with tqdm(total=plan.views, unit="view", mininterval=1.0) as bar:

        def report(seen: int, computed: int) -> None:
            nonlocal encoded
            bar.update(seen)
            before, encoded = encoded, encoded + computed
            if before < _FIRST_FEW <= encoded:
                rate = encoded / (time.monotonic() - begun)
                hours = max(0, plan.missing - encoded) / rate / 3600
                bar.write(f"{rate:.2g} views a second: about {hours:.2g} hours for what is missing")

        yield report
