"""The configuration of a run: typed, from one YAML file plus ``key=value``; unknown keys are errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sam_uniref.config import unknown_key
from sam_uniref.data import SourceOptions
from sam_uniref.state import whole_file
from sam_uniref.train.kinds import KINDS, take_defaults
from sam_uniref.train.learning_settings import LossSettings, OptimiserSettings

T = TypeVar("T")

STAGE_TASKS = {
    "detection": ("detection",),
    "image": ("ris", "fss", "detection"),
    "video": ("vos", "rvos"),
    "joint": ("ris", "fss", "vos", "rvos", "detection"),
}
# Tasks whose samples have sentences.
SPOKEN_TASKS = ("ris", "rvos")


@dataclass
class ModelSettings:
    """What is trained."""

    kind: str = field(default="samref", metadata={"help": "samref, uniref, or refsam to compare with"})
    size: str = field(
        default="vit_h",
        metadata={"help": "tiny, vit_b, vit_l, vit_h or another of sam_uniref.hosts; a UniRef's: tiny, r50, swinl"},
    )
    checkpoint: str | None = field(
        default=None, metadata={"help": "file of the base SAM, or of a UniRef's backbone; none: random weights"}
    )
    image_size: int | None = field(
        default=None, metadata={"help": "input square's side in pixels, a UniRef's short side; none: the model's own"}
    )
    encoder_precision: str = field(
        default="float32",
        metadata={"help": "the frozen encoder's weights are held in it: float32, bf16 or fp16; SAM's own only"},
    )
    compile: bool = field(default=False, metadata={"help": "compile the frozen image encoder; SAM's own only"})
    text_encoder: str | None = field(default=None, metadata={"help": "hub id or folder; none: no sentences"})
    mask_encoder: str | None = field(
        default=None,
        metadata={
            "help": "file of torchvision's ResNet-18, which a SamRef's or UniRef's mask encoder starts from; needs "
            "options.mask_encoder {norm: batch, width: 64}; none: random weights"
        },
    )
    start_from: str | None = field(
        default=None,
        metadata={
            "help": "a saved model to go on from, in place of these; at image_size, if given; with the text "
            "encoder if it has none"
        },
    )
    train_text_encoder: bool | None = field(
        default=None, metadata={"help": "by default a SamRef's and a UniRef's in the image stage"}
    )
    options: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "sections of SamRefConfig, RefSamConfig or UniRefConfig"}
    )


@dataclass
class DataSettings(SourceOptions):
    """One data set for one task."""

    task: str = field(default="fss", metadata={"help": "ris, fss, vos, rvos, or a UniRef's detection"})
    reader: str = field(default="folder", metadata={"help": "which layout the folder has"})


@dataclass
class RunSettings:
    """Everything a run is made of."""

    stage: str = field(
        default="image", metadata={"help": "detection, image (ris, fss, detection), video (vos, rvos) or joint (all)"}
    )
    output: str = field(default="runs/finetune", metadata={"help": "folder of logs, checkpoints and the result"})
    steps: int = field(default=90_000, metadata={"help": "optimiser steps"})
    batch_size: int = field(default=2, metadata={"help": "samples a process"})
    accumulate: int = field(default=1, metadata={"help": "micro-batches an optimiser step"})
    one_orientation: bool = field(
        default=False, metadata={"help": "a step's pictures are all wider than high, or none is: less is padding"}
    )
    checkpoint_activations: bool = field(
        default=False, metadata={"help": "less memory, more time, the same gradients: activations are computed twice"}
    )
    precision: str = field(default="no", metadata={"help": "no, fp16 or bf16"})
    seed: int = field(default=0, metadata={"help": "of everything that is drawn"})
    workers: int = field(default=2, metadata={"help": "loader processes"})
    loader_timeout: int = field(
        default=300, metadata={"help": "seconds to wait for a loader process, which is then replaced; 0: for ever"}
    )
    process_timeout: int = field(
        default=900, metadata={"help": "seconds that processes wait for one another before the run ends"}
    )
    log_every: int = field(default=20, metadata={"help": "steps"})
    save_every: int = field(default=1000, metadata={"help": "steps"})
    keep: int = field(default=3, metadata={"help": "newest checkpoints kept"})
    best: str | None = field(
        default=None,
        metadata={"help": "data set, or mean of all, whose highest validation's model is kept in output/best"},
    )
    validate_every: int = field(default=0, metadata={"help": "steps; 0: not during the run"})
    validate_most: int = field(default=1000, metadata={"help": "episodes a data set, spread evenly; 0: all"})
    validate_at_end: bool = field(default=True, metadata={"help": "write validation.json"})
    cache: str | None = field(
        default=None, metadata={"help": "folder of sam-uniref cache: the frozen encoder's features; none: it runs"}
    )
    tracker: str = field(default="tensorboard", metadata={"help": "any of Accelerate's, or none"})
    model: ModelSettings = field(default_factory=ModelSettings)
    data: dict[str, DataSettings] = field(default_factory=dict)
    loss: LossSettings = field(default_factory=LossSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    then: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "the stage that follows: what differs from this one; it starts from this one's model"},
    )

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Rules across fields.

        Raises:
            ValueError: Saying what was got and what is allowed.
        """
        if self.stage not in STAGE_TASKS:
            raise ValueError(f"stage must be one of {sorted(STAGE_TASKS)}, got {self.stage!r}")
        self._check_kind()
        allowed = tuple(task for task in STAGE_TASKS[self.stage] if task in KINDS[self.model.kind].tasks)
        for name, dataset in self.data.items():
            if dataset.weight and dataset.task not in allowed:
                raise ValueError(
                    f"data.{name}.task must be one of {allowed} in stage {self.stage}, got {dataset.task!r}"
                )
        for name in ("steps", "batch_size", "accumulate", "log_every", "save_every", "keep", "process_timeout"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("seed", "workers", "validate_every", "validate_most", "loader_timeout"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        self._check_best()
        if self.process_timeout <= 2 * self.loader_timeout:
            raise ValueError(
                f"process_timeout must be more than twice loader_timeout, got {self.process_timeout} and "
                f"{self.loader_timeout}; the other processes wait while one replaces its loader"
            )
        if self.optimiser.clip <= 0:
            raise ValueError(f"optimiser.clip must be positive, got {self.optimiser.clip}; a large one clips nothing")
        for name, dataset in self.data.items():
            if dataset.together < 1 or self.batch_size % dataset.together:
                raise ValueError(
                    f"batch_size must be a multiple of data.{name}.together, {dataset.together}, got {self.batch_size}"
                )
        if self.model.start_from is not None and self.model.mask_encoder is not None:
            raise ValueError("model.mask_encoder does nothing with model.start_from, whose own is taken; leave it out")
        fixed = set(self.model.options) - set(KINDS[self.model.kind].refitted)
        if self.model.start_from is not None and fixed:
            raise ValueError(
                f"model.options do nothing with model.start_from, whose own are taken; leave {sorted(fixed)} out"
            )
        if self.precision == "False":  # YAML's reading of a bare no
            self.precision = "no"
        if self.precision not in ("no", "fp16", "bf16"):
            raise ValueError(f"precision must be no, fp16 or bf16, got {self.precision!r}")
        if self.then:
            self.following()

    def _check_best(self) -> None:
        """Refuse a measure that is never taken."""
        measured = ["mean", *(name for name, dataset in self.data.items() if dataset.weight)]
        if self.best is not None and self.best not in measured:
            raise ValueError(f"best must be one of {measured}, got {self.best!r}")
        if self.best is not None and not (self.validate_every and self.validate_at_end):
            raise ValueError("best needs validations; set validate_every to some steps, and validate_at_end=true")

    def _check_kind(self) -> None:
        """Refuse what the kind of model can't be trained with, and fill in what it is trained with by default."""
        name = self.model.kind
        if name not in KINDS:
            raise ValueError(f"model.kind must be one of {sorted(KINDS)}, got {name!r}")
        kind = KINDS[name]
        for data, entry in self.data.items():
            if entry.weight and entry.task not in kind.tasks:
                raise ValueError(
                    f"data.{data}.task must be one of {kind.tasks} for a {name}, got {entry.task!r}; leave it out "
                    f"with data.{data}.weight=0"
                )
            if entry.weight and entry.boxes and not kind.boxes:
                raise ValueError(f"data.{data}.boxes: a {name} does not learn from boxes; leave it out")
        take_defaults(self.loss, kind.losses_in(self.stage), "loss", name)
        take_defaults(self.optimiser, kind.rates, "optimiser", name)

    @property
    def loss_options(self) -> dict[str, Any]:
        """Which losses the model is to have and how they are taken.

        Raises:
            ValueError: If an option follows from the weights.
        """
        if "video_terms" in self.loss.options:
            raise ValueError("loss.options.video_terms follows from loss.bootstrap and loss.mask_iou; leave it out")
        weights = self.loss.weights()
        video_terms = any(weights.get(name) for name in ("bootstrap", "mask_iou"))
        by_stage = KINDS[self.model.kind].stage_options.get(self.stage, {})
        return {**by_stage, **self.loss.options, **({"video_terms": True} if video_terms else {})}

    def following(self) -> RunSettings:
        """The settings of the stage in ``then``.

        What ``then`` does not say is as in this stage, but for the output, which is a folder in this one's, and the
        model, which is this stage's.

        Raises:
            ValueError: If a key is unknown, a value is of the wrong type or out of range, or the precision differs,
                which can't change within a run.
        """
        check_keys(self.then, RunSettings, "then.")
        if self.then.get("precision", self.precision) != self.precision:
            raise ValueError(f"then.precision must be that of the stage before it, {self.precision!r}; leave it out")
        values = asdict(self) | {"then": {}, "output": str(Path(self.output) / str(self.then.get("stage", "then")))}
        values["model"] |= {"start_from": str(Path(self.output) / "model"), "options": {}, "mask_encoder": None}
        if KINDS[self.model.kind].whole:
            values["model"]["checkpoint"] = None
        if "data" in self.then:
            values["data"] = {}
        return fill_settings(RunSettings, "then", values, self.then)

    def stages(self) -> list[RunSettings]:
        """This stage and those that follow it."""
        return [self, *(self.following().stages() if self.then else [])]

    @property
    def tasks(self) -> set[str]:
        """What is learnt. RVOS by sentences alone is RIS, whose samples it has."""
        drawn = [data for data in self.data.values() if data.weight]
        return {"ris" if data.task == "rvos" and data.language_only == 1 else data.task for data in drawn}

    @property
    def spoken(self) -> list[str]:
        """Names of the data sets that have sentences."""
        return [name for name, data in self.data.items() if data.weight and data.task in SPOKEN_TASKS]

    @property
    def train_text_encoder(self) -> bool:
        """As published: a SamRef's and a UniRef's is trained in the image stage alone, a RefSam's never."""
        chosen = self.model.train_text_encoder
        return self.stage in KINDS[self.model.kind].text_stages if chosen is None else chosen


def load_settings(path: str | Path, overrides: Sequence[str] = ()) -> RunSettings:
    """The settings of a finetuning run; see `read_settings`."""
    return read_settings(RunSettings, path, overrides)


def read_settings(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file and apply overrides.

    Args:
        cls: The dataclass to fill.
        path: The file. ``${oc.env:NAME,default}`` stands for environment variables.
        overrides: ``key=value``, such as ``data.cats.weight=2``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a key is unknown (the nearest known one is named), or a value of the wrong type.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no configuration {path}")
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"an override is key=value, got {override!r}")
    try:
        given = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(list(overrides)))
        check_keys(OmegaConf.to_container(given), cls)
    except YAMLError as error:
        raise ValueError(f"{path} or an override is no YAML: {' '.join(str(error).split())}") from error
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]} (at {error.full_key or 'the top'})") from error
    return fill_settings(cls, str(path), given)


def fill_settings(cls: type[T], origin: str, *given: Any) -> T:
    """A dataclass, and those inside it, of values whose types are checked.

    Args:
        cls: The dataclass to fill.
        origin: Of the values, for messages.
        given: Mappings, later ones over earlier ones.

    Raises:
        ValueError: If a key is unknown, or a value of the wrong type.
    """
    try:
        filled: T = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), *given))
        return filled
    except OmegaConfBaseException as error:
        raise ValueError(f"{origin}: {str(error).splitlines()[0]} (at {error.full_key or 'the top'})") from error


def write_settings(settings: RunSettings, path: Path) -> None:
    """Record what a run was made of, as YAML that `load_settings` reads."""
    with whole_file(path) as temporary:
        OmegaConf.save(OmegaConf.structured(settings), temporary)


def changed_settings(settings: RunSettings, path: Path) -> list[str]:
    """What differs from the settings that a run recorded, as ``key: before, now ...``; nothing if it recorded none."""
    if not path.is_file():
        return []
    before, now = _flat(OmegaConf.to_container(OmegaConf.load(path))), _flat(asdict(settings))
    return [
        f"{key}: {before.get(key)}, now {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def _flat(values: Any, path: str = "") -> dict[str, Any]:
    """``{"model.size": ...}`` from nested mappings."""
    if not isinstance(values, Mapping):
        return {path: values}
    return {
        name: leaf for key, value in values.items() for name, leaf in _flat(value, f"{path}.{key}".strip(".")).items()
    }


def check_keys(values: Mapping[str, Any], cls: type, path: str = "") -> None:
    """Refuse keys that no dataclass has.

    Raises:
        ValueError: Naming the nearest known key.
    """
    hints = get_type_hints(cls)
    known = {f.name for f in fields(cls)}
    for key, value in values.items():
        if key not in known:
            raise unknown_key(f"{path}{key}", known)
        hint = hints[key]
        if is_dataclass(hint) and isinstance(value, Mapping):
            check_keys(value, hint, f"{path}{key}.")  # type: ignore[arg-type]
        elif isinstance(value, Mapping) and get_args(hint) and is_dataclass(get_args(hint)[1]):
            for name, entry in value.items():
                check_keys(entry or {}, get_args(hint)[1], f"{path}{key}.{name}.")
