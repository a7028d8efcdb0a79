"""UniRef's tensors: what FoundationVision/UniRef calls them, and what we do; see also `official_backbones`.

A published file holds some of four parts; which, depends on the stage of training it comes from: the detector alone
after pretraining; fusion and text encoder too after the first image stage; the mask encoder too after the second and
after the video stage. A part is there whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from sam_uniref.detr.official_backbones import (
    AFFINE,
    STORED_NORM,
    Names,
    pair,
    resnet50_names,
    swin_large_names,
    swin_large_positions,
)

_TRANSFORMER = "detr.detr.transformer"
_LAYERS = 6
_LEVELS = 4
_TEXT_LAYERS = 12
# Of the mask branch's convolutions, from stride 8 to 32.
_BRANCH = ("jia_dcn", "lay4", "lay3")
_TEXT_WIDTH = 768


@dataclass(frozen=True)
class Part:
    """A part of a published file.

    Attributes:
        names: Of its tensors, with ours.
        aliases: Names that stand for a tensor of another name.
        biases: Of convolutions that have none here, with the stored mean of the norm after each.
        constants: Tensors that are the same in every file.
        unused: Tensors that a `UniRef` has no use for, with their shapes.
        outdated: Names that only older files have, of no use either.
    """

    names: Names
    aliases: dict[str, str] = field(default_factory=dict)
    biases: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    unused: dict[str, tuple[int, ...]] = field(default_factory=dict)
    outdated: tuple[str, ...] = ()

    def known(self) -> set[str]:
        """All names that a file with this part may have."""
        return {*self.names, *self.aliases, *self.biases, *self.constants, *self.unused, *self.outdated}


def published_parts(size: str) -> dict[str, Part]:
    """The parts of a published ``r50`` or ``swinl``: detector, fusion, text encoder, mask encoder."""
    return {
        "detector": _detector(size),
        "fusion": Part(_fusion_names()),
        "text encoder": _text_encoder(),
        "mask encoder": _mask_encoder(),
    }


def _detector(size: str) -> Part:
    """What all stages have. The counter is that of BoxInst's warm-up."""
    names = swin_large_names() if size == "swinl" else resnet50_names()
    heads = _head_names()
    return Part(
        names | _transformer_names() | heads | _mask_head_names(),
        aliases={name.replace("detr.detr.", f"{_TRANSFORMER}.decoder."): name for name in heads},
        constants=swin_large_positions() if size == "swinl" else {},
        unused={"criterion._iter": (1,)},
    )


def _transformer_names() -> Names:
    """Projections to four levels, encoder, proposals and decoder."""
    names: Names = {
        f"{_TRANSFORMER}.level_embed": ("transformer.level_embedding",),
        "detr.detr.query_embed.weight": ("transformer.proposals.contents",),
    }
    for level in range(_LEVELS):
        for position in range(2):
            names |= pair(f"detr.detr.input_proj.{level}.{position}", f"input_projection.levels.{level}.{position}")
    for published, ours in (
        ("enc_output", "output"),
        ("enc_output_norm", "output_norm"),
        ("pos_trans", "position"),
        ("pos_trans_norm", "position_norm"),
    ):
        names |= pair(f"{_TRANSFORMER}.{published}", f"transformer.proposals.{ours}")
    for number in range(_LAYERS):
        published, ours = f"{_TRANSFORMER}.encoder.layers.{number}", f"transformer.encoder.layers.{number}"
        names |= _deformable(f"{published}.self_attn", f"{ours}.attention")
        names |= pair(f"{published}.norm1", f"{ours}.attention_norm")
        names |= _feedforward(published, ours, norm="norm2")
        published, ours = f"{_TRANSFORMER}.decoder.layers.{number}", f"transformer.decoder.layers.{number}"
        names |= pair(f"{published}.self_attn", f"{ours}.self_attention", ["in_proj_weight", "in_proj_bias"])
        names |= pair(f"{published}.self_attn.out_proj", f"{ours}.self_attention.out_proj")
        names |= _deformable(f"{published}.cross_attn", f"{ours}.cross_attention")
        # Numbered as they were defined, not as they are applied.
        names |= pair(f"{published}.norm1", f"{ours}.cross_norm") | pair(f"{published}.norm2", f"{ours}.self_norm")
        names |= _feedforward(published, ours, norm="norm3")
    return names


def _deformable(published: str, ours: str) -> Names:
    """Deformable attention."""
    names = pair(f"{published}.sampling_offsets", f"{ours}.sampling_offsets")
    names |= pair(f"{published}.attention_weights", f"{ours}.attention_weights")
    return names | pair(f"{published}.value_proj", f"{ours}.value") | pair(f"{published}.output_proj", f"{ours}.output")


def _feedforward(published: str, ours: str, norm: str) -> Names:
    """A feed-forward block."""
    names = pair(f"{published}.{norm}", f"{ours}.feedforward.norm")
    for linear in ("linear1", "linear2"):
        names |= pair(f"{published}.{linear}", f"{ours}.feedforward.{linear}")
    return names


def _head_names() -> Names:
    """Class and box heads of the decoder's layers, and last of the encoder's proposals."""
    names: Names = {}
    for number in range(_LAYERS + 1):
        names |= pair(f"detr.detr.class_embed.{number}", f"transformer.heads.classes.{number}")
        names |= _three_layers(f"detr.detr.bbox_embed.{number}", f"transformer.heads.boxes.{number}")
    return names


def _three_layers(published: str, ours: str) -> Names:
    """A perceptron of three layers."""
    names: Names = {}
    for layer in range(3):
        names |= pair(f"{published}.layers.{layer}", f"{ours}.layers.{layer}")
    return names


def _mask_head_names() -> Names:
    """The mask branch and the controller of its dynamic convolutions."""
    names = _three_layers("detr.controller", "mask_head.controller")
    for published, ours in (("lateral_conv", "lateral"), ("output_conv", "smooth"), ("mask_conv", "output")):
        names |= pair(f"detr.{published}", f"mask_head.{ours}")
    for published, ours in (("lay1", "narrow"), ("lay2", "reduce")):
        names |= pair(f"detr.mask_head.{published}", f"mask_head.branch.{ours}")
    for level, published in enumerate(_BRANCH):
        names |= pair(f"detr.mask_head.{published}", f"mask_head.branch.levels.{level}")
    return names


def _fusion_names() -> Names:
    """UniFusion."""
    names = pair("detr.fusion_module.norm_v", "fusion.query_norm")
    names |= pair("detr.fusion_module.norm_l", "fusion.key_norm")
    names |= pair("detr.fusion_module.adaLN_modulation.1", "fusion.modulation.1")
    for published, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "output")):
        names |= pair(f"detr.fusion_module.attn.{published}_proj", f"fusion.attention.{ours}")
    return names


def _text_encoder() -> Part:
    """BERT, whose names are alike, and the resizer."""
    names = pair("resizer.fc", "text_encoder.resizer.linear") | pair("resizer.layer_norm", "text_encoder.resizer.norm")

    def alike(module: str, leaves: Iterable[str] = AFFINE) -> Names:
        return pair(f"text_encoder.{module}", f"text_encoder.model.{module}", leaves)

    for table in ("word", "position", "token_type"):
        names |= alike(f"embeddings.{table}_embeddings", ["weight"])
    names |= alike("embeddings.LayerNorm")
    for layer in range(_TEXT_LAYERS):
        for module in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "attention.output.LayerNorm",
            "intermediate.dense",
            "output.dense",
            "output.LayerNorm",
        ):
            names |= alike(f"encoder.layer.{layer}.{module}")
    unused: dict[str, tuple[int, ...]] = {
        "text_encoder.pooler.dense.weight": (_TEXT_WIDTH, _TEXT_WIDTH),
        "text_encoder.pooler.dense.bias": (_TEXT_WIDTH,),
    }
    return Part(names, unused=unused, outdated=("text_encoder.embeddings.position_ids",))


def _mask_encoder() -> Part:
    """A ResNet-18 of biased convolutions, a fuser a level."""
    convolutions = {"conv1": "bn1"}
    for stage in range(1, 5):
        for block in range(2):
            convolutions |= {f"layer{stage}.{block}.conv{n}": f"layer{stage}.{block}.bn{n}" for n in (1, 2)}
        if stage > 1:
            convolutions[f"layer{stage}.0.downsample.0"] = f"layer{stage}.0.downsample.1"
    names: Names = {}
    for convolution, norm in convolutions.items():
        names |= pair(f"value_encoder.{convolution}", f"mask_encoder.trunk.{convolution}", ["weight"])
        names |= pair(f"value_encoder.{norm}", f"mask_encoder.trunk.{norm}", [*STORED_NORM, "num_batches_tracked"])
    for position in range(2):
        names |= pair(f"value_encoder.final_layer.{position}", f"mask_encoder.coarsest.{position}")
    for level in range(_LEVELS):
        names |= _fuser(f"value_encoder.fuser{level + 2}", f"mask_encoder.fusers.{level}")
    biases = {
        f"value_encoder.{convolution}.bias": f"value_encoder.{norm}.running_mean"
        for convolution, norm in convolutions.items()
    }
    return Part(names, biases=biases)


def _fuser(published: str, ours: str) -> Names:
    """Two residual blocks with CBAM between."""
    names = pair(f"{published}.block1.downsample", f"{ours}.block1.skip")
    for block in ("block1", "block2"):
        for convolution in ("conv1", "conv2"):
            names |= pair(f"{published}.{block}.{convolution}", f"{ours}.{block}.{convolution}")
    for layer, own in ((1, 0), (3, 2)):
        names |= pair(f"{published}.attention.ChannelGate.mlp.{layer}", f"{ours}.attention.channel_gate.{own}")
    return names | pair(f"{published}.attention.SpatialGate.spatial.conv", f"{ours}.attention.spatial_gate")
