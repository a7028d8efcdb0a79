"""What trainer, evaluation and command line ask of any kind of model: to be built, saved, loaded and unfrozen."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack

import torch
from torch import Tensor, nn

from sam_uniref.adapters import MaskEncoder, SentenceEncoder, has_lora
from sam_uniref.config import ModelConfig
from sam_uniref.hub.mixin import HubModel
from sam_uniref.hub.repositories import HubOptions
from sam_uniref.predictor import Predictor
from sam_uniref.recompute import recompute
from sam_uniref.state import compare_names, read_tensors


class TrainableModel(Predictor, HubModel):
    """A model of one of the kinds in `sam_uniref.models`.

    Attributes:
        config_class: Of its configuration.
        counted_on_shapes: Whether its losses can be had of shapes alone, on the ``meta`` device.
        config: What everything is built from.
        text_encoder: For sentences, or None.
    """

    config_class: ClassVar[type[ModelConfig]]
    counted_on_shapes: ClassVar[bool] = True
    config: ModelConfig
    text_encoder: SentenceEncoder | None

    @classmethod
    @abstractmethod
    def fresh(
        cls,
        size: str,
        checkpoint: str | Path | None = None,
        text_encoder: str | Path | None = None,
        *,
        image_size: int | None = None,
        config: ModelConfig | None = None,
    ) -> Self:
        """A model that was not trained yet.

        Args:
            size: One that `config_class.for_size` knows.
            checkpoint: What its image encoder starts from; without one the weights are random, with a warning.
            text_encoder: Hub id or folder of a Hugging Face text encoder, or ``"tiny"`` for the packaged one; None for
                a model without sentences.
            image_size: What the input's size is called by, in pixels (`ImageTransform.size`); its own by default.
            config: Widths and options; those of the size by default. The other arguments are written into it.

        Raises:
            ValueError: If the size is unknown, the image size does not fit, or the checkpoint is broken or of another
                size.
            FileNotFoundError: If the checkpoint or the text encoder is not there.
        """

    @classmethod
    @abstractmethod
    def skeleton(
        cls,
        size: str,
        text_model: tuple[nn.Module, Any] | None = None,
        *,
        image_size: int | None = None,
        config: ModelConfig | None = None,
        device: torch.device | str = "meta",
    ) -> Self:
        """As `fresh`, without any file: shapes and no memory, or random weights.

        Args:
            size: As in `fresh`.
            text_model: A language model and its tokenizer, or None for a model without sentences.
            image_size: As in `fresh`.
            config: As in `fresh`.
            device: By default ``"meta"``, where there are shapes and no memory.
        """

    @classmethod
    @abstractmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        folder: str | Path,
        checkpoint: str | Path | None = None,
        *,
        image_size: int | None = None,
        **hub: Unpack[HubOptions],
    ) -> Self:
        """Load what `save_pretrained` wrote, a packaged model by its name, or one on the hub by its id.

        Args:
            folder: That folder; or the name; or the id, ``"user/name"`` or ``"user/name@revision"``.
            checkpoint: A file that the folder does not hold and only names, if it is not found by its name.
            image_size: As in `fresh`; by default that of the saved model.
            hub: How the hub is asked: ``revision``, ``token``, ``cache_dir``, ``force_download``, ``local_files_only``.
        """

    def choose_losses(self, options: Mapping[str, Any]) -> None:
        """Set which losses there are and how they are taken; most kinds of model leave no choice.

        Raises:
            ValueError: If there is no such option, or it can't have the value.
        """
        if options:
            raise ValueError(f"loss.options do nothing for a {self.config.kind}, got {sorted(options)}; leave them out")

    def refit(self, options: Mapping[str, Any]) -> None:
        """Change what a stage may change of a saved model that it starts from; by default nothing.

        Args:
            options: Of the configuration, such as a UniRef's ``classes``.

        Raises:
            ValueError: If one can't be changed any more.
        """
        if options:
            raise ValueError(f"the options {sorted(options)} of a {self.config.kind} can't be changed any more")

    def checkpoint_activations(self) -> None:
        """Train in less memory: parts compute anew for their gradients what they would have kept, see `recompute`.

        Raises:
            ValueError: If this kind of model has no such parts.
        """
        parts = self.recomputed()
        if not parts:
            raise ValueError(f"checkpoint_activations does nothing for a {self.config.kind}; leave it out")
        for part in parts:
            recompute(part)

    def recomputed(self) -> list[nn.Module]:
        """What `checkpoint_activations` is about, each run by being called; one may lie in another."""
        return []

    def speed_up_encoder(self, precision: str = "float32", compile: bool = False) -> None:  # noqa: A002
        """Choose how a frozen image encoder is computed; only that of a SAM has a choice.

        Args:
            precision: ``"float32"``.
            compile: False.

        Raises:
            ValueError: If it is to be anything else.
        """
        if precision != "float32" or compile:
            raise ValueError(
                f"encoder_precision and compile are for a frozen SAM's image encoder, not for a {self.config.kind}'s; "
                "leave them out, or train with precision=bf16"
            )

    def add_text_encoder(self, text_encoder: str | Path) -> None:
        """Give a model without sentences a text encoder, whose resizer is fresh.

        Args:
            text_encoder: As in `fresh`.

        Raises:
            ValueError: If this kind of model gets it when it is built.
        """
        raise ValueError(
            f"a {self.config.kind} gets its text encoder when it is first built, not when it goes on; {text_encoder} "
            "can't be added"
        )

    def start_mask_encoder(self, resnet18: str | Path) -> None:
        """Start the mask encoder's trunk from torchvision's ResNet-18, as trained on ImageNet.

        Args:
            resnet18: Its state dict, ``.safetensors`` or a PyTorch file of plain tensors.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is broken or does not fit, or this kind of model has no mask encoder.
        """
        encoder = getattr(self, "mask_encoder", None)
        if not isinstance(encoder, MaskEncoder):
            raise ValueError(f"a {self.config.kind} has no mask encoder to start from {resnet18}; leave it out")
        try:
            encoder.trunk.load_resnet18(read_tensors(resnet18))
        except ValueError as error:
            raise ValueError(f"the mask encoder can't start from {resnet18}: {error}") from error

    def train_text_encoder(self, trained: bool) -> None:
        """Unfreeze the text encoder (image stage) or freeze it (video stage). LoRA stays trained either way."""
        if self.text_encoder is None:
            return
        lora = has_lora(self.text_encoder.model)
        for name, parameter in self.text_encoder.model.named_parameters():
            parameter.requires_grad_("lora_" in name if lora else trained)
        self.config.text_encoder.trained |= trained and not lora

    def freeze_unused(self, tasks: Collection[str]) -> None:
        """Freeze the parts that none of the tasks uses: nothing would reach them."""
        for part in self.parts():
            if part.tasks is not None and not set(part.tasks) & set(tasks):
                part.module.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is trained; frozen encoders stay in evaluation mode, without dropout."""
        super().train(mode)
        for part in self.parts():
            if mode and not any(parameter.requires_grad for parameter in part.module.parameters()):
                part.module.eval()
        return self

    def load_trained_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load what `trained_state_dict` gave.

        Raises:
            ValueError: Naming missing, unexpected and misshapen tensors; nothing is loaded then.
        """
        compare_names(state_dict, self.trained_state_dict(), "the trained state")
        self.load_state_dict(dict(state_dict), strict=False)
