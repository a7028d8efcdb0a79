"""What the hosts from ``transformers`` have in common: prompts and mask decoder as they are there, N rows at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sam_uniref.config import BaseSamConfig
from sam_uniref.hosts.family import HostFamily
from sam_uniref.hosts.host import Host
from sam_uniref.interfaces import Prompts
from sam_uniref.state import read_tensors
from sam_uniref.transforms import ImageTransform

# ImageNet's mean and deviation in 0-255, as the processors of all these models have them.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
WEIGHTS_FILE = "model.safetensors"


class TransformersHost(Host):
    """A model of ``transformers`` with an image encoder, a prompt encoder and a mask decoder.

    Args:
        model: With its weights loaded, which become the host's.
        transform: Into and out of its input square, at the image size that it is to have.
    """

    def __init__(self, model: Any, transform: ImageTransform) -> None:
        super().__init__()
        self.own_tables = {}
        self.image_encoder = model.vision_encoder
        self.prompt_encoder = model.prompt_encoder
        self.mask_decoder = model.mask_decoder
        self.shared_image_embedding = model.shared_image_embedding
        self.transform = transform
        grid = self.grid
        self.strides = (transform.size // grid[0],)
        self.channels = int(model.mask_decoder.hidden_size)
        self.low_res_stride = self.strides[0] // 4
        self.freeze()

    @property
    def grid(self) -> tuple[int, int]:
        """``(h, w)`` of the image embedding."""
        height, width = cast(Any, self.prompt_encoder).image_embedding_size
        return height, width

    @property
    def has_skips(self) -> bool:
        """Whether `encode` gives more than the level; all of these do."""
        return True

    def own_name(self, name: str) -> str:
        """As ``transformers`` calls it."""
        return name.replace("image_encoder.", "vision_encoder.", 1) if name.startswith("image_encoder.") else name

    def recomputed(self, decoder: nn.Module) -> list[nn.Module]:
        """The layers of the two-way transformer, and the upscaling."""
        own = cast(Any, decoder)
        return [*own.transformer.layers, own.upscale_conv1, own.upscale_conv2]

    def decode(
        self,
        features: Tensor,
        prompts: Prompts | None,
        tokens: Tensor | None,
        mask_decoder: nn.Module,
        *,
        skips: Sequence[Tensor] = (),
        multimask: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """See `Host.decode`. Each row is a picture with one prompt to the model's own mask decoder."""
        sparse, dense = self.embed_prompts(prompts, len(features))
        if tokens is not None:
            sparse = torch.cat([sparse, tokens[:, None].to(sparse.dtype)], dim=2)
        output = mask_decoder(
            image_embeddings=features,
            image_positional_embeddings=self.dense_positions().expand(len(features), -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            **self.decoder_skips(skips),
        )
        logits, scores = output[0], output[1]
        return logits[:, 0], scores[:, 0]

    @abstractmethod
    def decoder_skips(self, skips: Sequence[Tensor]) -> dict[str, Any]:
        """What `encode` gave beside the level, as the model's mask decoder takes it by name."""

    @abstractmethod
    def without_points(self, rows: int) -> Tensor:
        """Sparse prompts ``(N, 1, T, C)`` where there are neither points nor boxes, as the model itself has them."""

    def embed_prompts(self, prompts: Prompts | None, rows: int) -> tuple[Tensor, Tensor]:
        """Sparse ``(N, 1, T, C)`` and dense ``(N, C, h, w)`` prompt embeddings, as the model itself makes them."""
        points = labels = boxes = masks = None
        if prompts is not None:
            if prompts.points is not None and prompts.labels is not None:
                points, labels = prompts.points[:, None], prompts.labels[:, None]
            boxes = None if prompts.boxes is None else prompts.boxes[:, None]
            masks = prompts.mask_logits
        sparse, dense = self.prompt_encoder(
            input_points=points, input_labels=labels, input_boxes=boxes, input_masks=masks
        )
        if sparse is None:
            sparse = self.without_points(rows)
        return sparse, dense.expand(rows, -1, -1, -1)

    def dense_positions(self) -> Tensor:
        """The positional encoding of the image embedding's cells, ``(1, C, h, w)``."""
        height, width = self.grid
        table = cast(Tensor, self.shared_image_embedding.positional_embedding)
        down, across = (
            (torch.arange(side, device=table.device, dtype=table.dtype) + 0.5) / side for side in (height, width)
        )
        y, x = torch.meshgrid(down, across, indexing="ij")
        positions: Tensor = self.shared_image_embedding(torch.stack([x, y], dim=-1))
        return positions.permute(2, 0, 1)[None]


class TransformersFamily(HostFamily):
    """Hosts whose code and checkpoints are ``transformers``'.

    Attributes:
        model_type: What its configurations call the model.
        parts: Configurations in the model's, all that the host is built from.
    """

    model_type: ClassVar[str]
    parts: ClassVar[tuple[str, ...]] = ("vision_config", "prompt_encoder_config", "mask_decoder_config")

    @abstractmethod
    def named_architecture(self, name: str) -> dict[str, Any]:
        """The configuration of a named host, where it is not the class' default."""

    @abstractmethod
    def classes(self) -> tuple[type[Any], type[Any]]:
        """The configuration's class and the model's; they are imported now."""

    def build(self, base: BaseSamConfig) -> nn.Module:
        """See `HostFamily.build`."""
        config_class, model_class = self.classes()
        given = self.named_architecture(base.size) if base.architecture is None else base.architecture
        values = {key: value for key, value in given.items() if key in self.parts}
        try:
            model: nn.Module = model_class(config_class(**values)).eval()
        except (TypeError, ValueError, RuntimeError, KeyError) as error:
            raise ValueError(f"the architecture of this {self.title} can't be built: {error}") from error
        return model

    def weights_file(self, checkpoint: Path) -> Path:
        """``model.safetensors`` of a folder, or the file itself."""
        return checkpoint / WEIGHTS_FILE if checkpoint.is_dir() else checkpoint

    def load(self, model: nn.Module, path: Path, base: BaseSamConfig) -> None:
        """A folder's ``model.safetensors``, also of the video model, whose memory is left out.

        Pickles of the original code have other names and are refused.
        """
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no {path}; give the folder that the hub's files of this {self.title} are in "
                f"(config.json and {WEIGHTS_FILE}), or save_pretrained of transformers wrote"
            )
        self.load_own(model, read_tensors(path), f"{path} as {self.title} {base.size}")

    def load_own(self, model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
        """See `HostFamily.load_own`; names that older versions of ``transformers`` wrote are known to it."""
        config = cast(Any, model).config
        try:
            loaded, report = type(model).from_pretrained(  # type: ignore[attr-defined]
                None, config=config, state_dict=dict(state), output_loading_info=True, ignore_mismatched_sizes=True
            )
        except (RuntimeError, SafetensorError, KeyError) as error:
            raise ValueError(f"{what} can't be read: {error}") from error
        problems = {kind: sorted(map(str, report[f"{kind}_keys"])) for kind in ("missing", "unexpected", "mismatched")}
        told = [
            f"{len(names)} {kind} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
            for kind, names in problems.items()
            if names
        ]
        if told:
            raise ValueError(f"{what} does not fit the model: {'; '.join(told)}")
        model.load_state_dict(loaded.state_dict())

    def architecture_of(self, source: Any) -> dict[str, Any]:
        """Of a configuration's values, or of a model."""
        if isinstance(source, Mapping):
            return {"model_type": self.model_type} | {key: source[key] for key in self.parts if key in source}
        _, model_class = self.classes()
        if not isinstance(source, model_class):
            raise ValueError(
                f"a {self.title} host is made of a {model_class.__name__}, got a {type(source).__name__}; load it as "
                f"one with {model_class.__name__}.from_pretrained"
            )
        return self.architecture_of(source.config.to_dict())
