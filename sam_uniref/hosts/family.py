"""What the registry knows of a family of hosts: how one is built, loaded and plugged in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from sam_uniref.config import BaseSamConfig
from sam_uniref.hosts.host import Host


class HostFamily(ABC):
    """Hosts that share their code and differ in their sizes.

    Attributes:
        title: What people call it, for messages.
    """

    title: ClassVar[str]

    @abstractmethod
    def build(self, base: BaseSamConfig) -> nn.Module:
        """The bare model with random weights, at its own image size.

        Raises:
            ImportError: If it needs a package that is not there, naming it.
            ValueError: If its architecture can't be built.
        """

    @abstractmethod
    def image_size_step(self, model: nn.Module) -> tuple[int, int]:
        """Of what every possible image size is a multiple, in pixels; and the model's own image size."""

    def check_image_size(self, model: nn.Module, image_size: int | None) -> None:
        """Refuse an image size that a model can't have; None, its own, is always one.

        Raises:
            ValueError: If it is not a positive multiple of the step.
        """
        if image_size is None:
            return
        step, own = self.image_size_step(model)
        if not isinstance(image_size, int) or image_size < 1 or image_size % step:
            raise ValueError(
                f"image_size must be a positive multiple of {step} for this {self.title}, such as its own {own}, "
                f"got {image_size!r}"
            )

    def weights_file(self, checkpoint: Path) -> Path:
        """The file that is read of a checkpoint, which may be a folder; by default the checkpoint itself."""
        return checkpoint

    @abstractmethod
    def load(self, model: nn.Module, path: Path, base: BaseSamConfig) -> None:
        """Load a released checkpoint's file, ``.safetensors`` or tensors in a PyTorch file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is broken or of something else; missing, unexpected and misshapen tensors are named.
        """

    @abstractmethod
    def load_own(self, model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
        """Load what `Host.own_state_dict` gave, as it was saved.

        Raises:
            ValueError: Naming missing, unexpected and misshapen tensors.
        """

    @abstractmethod
    def plug(self, model: nn.Module, image_size: int | None) -> Host:
        """The model as a host, at an image size or at its own; its weights become the host's."""

    def architecture_of(self, source: Any) -> dict[str, Any]:
        """What `build` needs to know of a folder or a model that is given in place of a name.

        Raises:
            ValueError: If this family's models have names only.
        """
        raise ValueError(f"a {self.title} is given by its name, not as {source!r}")
