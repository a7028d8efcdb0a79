"""Published weights by name: where they are, how large they are, and their SHA-256.

SHA-256 and sizes are those of several independent mirrors. The digits in segment-anything's file names begin the MD5.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

_SAM = "https://dl.fbaipublicfiles.com/segment_anything/"
_MOBILE_SAM = (
    "https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/"
)


@dataclass(frozen=True)
class KnownWeights:
    """A published checkpoint.

    Attributes:
        name: What callers say.
        file: Its published name, which it keeps on disk.
        folder: Address of the folder it is in.
        size: In bytes.
        sha256: In hexadecimal.
        title: What it is.
        licence: Of the weights, as an SPDX identifier.
    """

    name: str
    file: str
    folder: str
    size: int
    sha256: str
    title: str
    licence: str = "Apache-2.0"

    @property
    def url(self) -> str:
        """Where it is."""
        return self.folder + self.file


@dataclass(frozen=True)
class KnownFolder:
    """A model in a repository of the hub, as transformers reads it.

    Attributes:
        names: What callers say.
        repository: The hub id that it is fetched by.
        title: What it is.
        revision: The commit that it is fetched at; None: the newest.
        size: Of ``model.safetensors``, in bytes, where its hash is known.
        sha256: Of ``model.safetensors``, where it is known.
        licence: As an SPDX identifier.
    """

    names: tuple[str, ...]
    repository: str
    title: str
    revision: str | None = None
    size: int | None = None
    sha256: str | None = None
    licence: str = "Apache-2.0"

    @property
    def name(self) -> str:
        """The shortest way to say it."""
        return self.names[0]


KNOWN_WEIGHTS: tuple[KnownWeights, ...] = (
    KnownWeights(
        "vit_b",
        "sam_vit_b_01ec64.pth",
        _SAM,
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        "SAM ViT-B",
    ),
    KnownWeights(
        "vit_l",
        "sam_vit_l_0b3195.pth",
        _SAM,
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        "SAM ViT-L",
    ),
    KnownWeights(
        "vit_h",
        "sam_vit_h_4b8939.pth",
        _SAM,
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        "SAM ViT-H",
    ),
    KnownWeights(
        "mobile_sam",
        "mobile_sam.pt",
        _MOBILE_SAM,
        40_728_226,
        "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        "MobileSAM TinyViT",
    ),
)

KNOWN_TEXT_ENCODERS: tuple[KnownFolder, ...] = (
    KnownFolder(
        ("bert-base-uncased", "google-bert/bert-base-uncased"),
        "google-bert/bert-base-uncased",
        "text encoder",
        "86b5e0934494bd15c9632b12f734a8a67f723594",
        440_449_768,
        "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
    ),
)

# Hosts whose released weights are folders. No hash of theirs was to be had where this was written: one that is put here
# is checked from then on.
KNOWN_FOLDERS: tuple[KnownFolder, ...] = (
    KnownFolder(("sam_hq_vit_b",), "syscv-community/sam-hq-vit-base", "SAM-HQ ViT-B"),
    KnownFolder(("sam_hq_vit_l",), "syscv-community/sam-hq-vit-large", "SAM-HQ ViT-L"),
    KnownFolder(("sam_hq_vit_h",), "syscv-community/sam-hq-vit-huge", "SAM-HQ ViT-H"),
    KnownFolder(("sam2.1_hiera_tiny",), "facebook/sam2.1-hiera-tiny", "SAM 2.1 tiny"),
    KnownFolder(("sam2.1_hiera_small",), "facebook/sam2.1-hiera-small", "SAM 2.1 small"),
    KnownFolder(("sam2.1_hiera_base_plus",), "facebook/sam2.1-hiera-base-plus", "SAM 2.1 base+"),
    KnownFolder(("sam2.1_hiera_large",), "facebook/sam2.1-hiera-large", "SAM 2.1 large"),
    KnownFolder(("edgetam",), "yonigozlan/EdgeTAM-hf", "EdgeTAM"),
)


def find_known(name: str) -> KnownWeights | None:
    """Weights by their name or their file's; None where nothing is known of that name."""
    return next((weights for weights in KNOWN_WEIGHTS if name in (weights.name, weights.file)), None)


def known_names() -> list[str]:
    """What all published weights are called."""
    return [*(weights.name for weights in KNOWN_WEIGHTS), *(folder.name for folder in KNOWN_FOLDERS)]


def known_weights(name: str) -> KnownWeights | KnownFolder:
    """Weights by their name or their file's; of a folder also with a revision, as `find_folder`.

    Raises:
        ValueError: If there are none; the nearest name is offered.
    """
    found = find_known(name) or find_folder(name)
    if found is None:
        names = known_names()
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? known are" if near else "known are"
        raise ValueError(f"no weights are known as {name!r}; {hint} {', '.join(names)}")
    return found


def weights_of_sha256(sha256: str | None) -> KnownWeights | None:
    """Weights by their SHA-256, whatever their file is called now."""
    return next((weights for weights in KNOWN_WEIGHTS if weights.sha256 == sha256), None)


def find_text_encoder(name: str) -> KnownFolder | None:
    """A text encoder by its hub id; None where its hash is not known."""
    return next((encoder for encoder in KNOWN_TEXT_ENCODERS if name in encoder.names), None)


def find_folder(name: str) -> KnownFolder | None:
    """A host's folder by its name; None where there is none of that name.

    Args:
        name: With ``"@revision"``, a commit, a branch or a tag, it is that one, whose hash is not known before.
    """
    name, _, revision = name.partition("@")
    found = next((folder for folder in KNOWN_FOLDERS if name in folder.names), None)
    if found is None or revision in ("", found.revision):
        return found
    return replace(found, revision=revision, size=None, sha256=None)
