"""What every model gets from `huggingface_hub.ModelHubMixin`: saving with a card, and pushing to the hub."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from huggingface_hub import ModelCard, ModelHubMixin

from sam_uniref import packaged
from sam_uniref.hub.card import CARD_FILE, card_text, is_generated
from sam_uniref.hub.known import weights_of_sha256

if TYPE_CHECKING:
    from sam_uniref.config import PluggedConfig
    from sam_uniref.trainable import TrainableModel

logger = logging.getLogger(__name__)


class HubModel(ModelHubMixin, library_name="sam_uniref", paper_url="https://arxiv.org/abs/2312.15715"):
    """A model that is saved as a folder and kept on the hub, with a card that says what it is.

    ``from_pretrained`` is the models' own: it knows packaged ones, and never asks the hub for a folder.
    """

    @abstractmethod
    def _save_pretrained(self, save_directory: Path, card: Mapping[str, Any] | None = None) -> None:
        """Write a folder that ``from_pretrained`` reads, with a card; it is whole or not there."""

    def save_pretrained(  # type: ignore[override]
        self,
        folder: str | Path,
        *,
        model_card_kwargs: Mapping[str, Any] | None = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        config: None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write a folder that ``from_pretrained`` reads; it is whole or not there.

        It holds what was trained (safetensors), the configuration, and a model card, ``README.md``, unless a person
        wrote or changed the one that is there.

        Args:
            folder: Its name; an older model there is replaced.
            model_card_kwargs: What the card says beside what the model knows, as `sam_uniref.hub.card.CardOptions`:
                ``metrics``, ``training``, ``data``, ``licence``, ``note``.
            repo_id: With ``push_to_hub``, where to; by default the folder's name.
            push_to_hub: Push it, too.
            config: None: the model knows its own. The mixin's `push_to_hub` hands it on.
            push_to_hub_kwargs: Of `push_to_hub`.

        Returns:
            The commit's address, if it was pushed.

        Raises:
            FileExistsError: If there is something else than a saved model, which would be replaced.
            ValueError: If the model can't be saved, an option of the card is unknown, or a configuration is given.
        """
        if config is not None:
            raise ValueError("config= is not taken: the model's own configuration is saved; leave it out")
        if push_to_hub_kwargs and not push_to_hub:
            raise ValueError(f"{sorted(push_to_hub_kwargs)} do nothing without push_to_hub=True; leave them out")
        folder = Path(folder)
        card = dict(model_card_kwargs or {})
        if repo_id is not None:
            card.setdefault("repo_id", repo_id)
        self._save_pretrained(folder, card)
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.name, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs)

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        model_card_kwargs: Mapping[str, Any] | None = None,
        commit_message: str = "Upload a sam_uniref model",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Save the model into a repository on the hub, which is made if it is not there.

        A card that a person wrote or changed there stays.

        Args:
            repo_id: ``"user/name"``.
            model_card_kwargs: As in `save_pretrained`.
            commit_message: Of the commit.
            private: Make a new repository private; by default as the account has it.
            token: By default the one that ``hf auth login`` kept.
            branch: That is pushed to; by default ``main``.
            create_pr: Open a pull request in place of a commit.

        Returns:
            The commit's address.

        Raises:
            ValueError: If others could not load the model: its text encoder is a folder of this machine.
        """
        self._check_others_can_load()
        kept = _persons_card(repo_id, branch, token)
        if kept:
            logger.info("%s has a model card that was written by hand; it stays as it is", repo_id)
        return super().push_to_hub(
            repo_id,
            commit_message=commit_message,
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
            ignore_patterns=[CARD_FILE] if kept else None,
            model_card_kwargs={**(model_card_kwargs or {}), "repo_id": repo_id},
        )

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card that `save_pretrained` writes; keywords as its ``model_card_kwargs``."""
        if args:
            raise TypeError("generate_model_card takes keywords alone")
        return ModelCard(card_text(cast("TrainableModel", self), kwargs))

    def _check_others_can_load(self) -> None:
        """Refuse a text encoder that is only here, and warn of a base SAM that is not published."""
        config = cast("TrainableModel", self).config
        text = config.text_encoder
        if text.name not in (None, *packaged.PACKAGED) and not text.trained and Path(str(text.name)).is_dir():
            raise ValueError(
                f"others could not load this model: its text encoder {text.name} is a folder of this machine. Build it "
                "with one that has a hub id, or push the text encoder first and set model.config.text_encoder.name"
            )
        from sam_uniref.hosts.registry import repository_of  # which knows this module

        base = config.to_dict().get("sam") or {}
        if (
            base.get("checkpoint")
            and weights_of_sha256(base.get("sha256")) is None
            and repository_of(cast("PluggedConfig", config).sam) is None
            and not _is_packaged(base["checkpoint"])
        ):
            logger.warning(
                "the base SAM %s is not a published one and is not pushed; who loads this model must have that file",
                base["checkpoint"],
            )


def _is_packaged(file: str) -> bool:
    """Whether a base SAM comes with the package."""
    return file in [packaged.base_checkpoint(name).name for name in packaged.PACKAGED]


def _persons_card(repo_id: str, branch: str | None, token: str | None) -> bool:
    """Whether a repository has a card that `card_text` did not write."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        path = hf_hub_download(repo_id, CARD_FILE, revision=branch, token=token)
    except LocalEntryNotFoundError:  # the hub can't be reached, so that nobody knows
        raise
    except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError):
        return False
    return not is_generated(Path(path).read_text(encoding="utf-8", errors="replace"))
