"""ControlNets: the maps that they follow, and what they add to a UNet in each step.

"Adding Conditional Control to Text-to-Image Diffusion Models", https://arxiv.org/abs/2302.05543.
Weights, modes, and when each begins and ends are those of A1111's extension
(https://github.com/Mikubill/sd-webui-controlnet, scripts/hook.py).

A ControlNet copies half of a UNet, so most of its config is the UNet's; the rest (fewer layers,
a union's tasks, how its map is read) follows from its own tensors, in a file or a folder.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

from picowatch.catalog import Model
from picowatch.catalog.folder_files import read_json
from picowatch.catalog.headers import read_header
from picowatch.catalog.recognise import ORIGINAL
from picowatch.engine.drawing.canvas import decoded, fit
from picowatch.engine.drawing.draw import Group, Job
from picowatch.engine.model.devices import Target
from picowatch.engine.model.part_files import Tensors, diffusers_model
from picowatch.engine.model.tensors import read_tensors
from picowatch.engine.model.vae import LATENT_CHANNELS
from picowatch.engine.networks.preprocess import preprocess
from picowatch.engine.protocol import RgbPicture
from picowatch.files.decoding import decode_picture
from picowatch.recipe.parts import KINDS
from picowatch.recipe.passes import Sampling
from picowatch.recipe.request import ControlUse

# For each block of the UNet's first half in order, and for the middle.
Residuals = tuple[torch.Tensor, ...]
# A UNet's further conditions by diffusers' names (SDXL); None for others.
Added = Mapping[str, torch.Tensor] | None

_SOFTENED = 0.825  # soft weights: layers that see the whole picture count most
_LAST = 12  # the index of the middle's residual in Stable Diffusion 1.x
_UNKNOWN = -1.0  # a map's value where an inpainting ControlNet fills in


@dataclass(frozen=True, slots=True)
class Hint:
    """A ControlNet and a batch's maps, from 0 to 1; `soft` weakens its layers for details."""

    model: Any
    use: ControlUse
    maps: torch.Tensor
    soft: bool

    def residuals(
        self, latents: torch.Tensor, timestep: torch.Tensor, states: torch.Tensor, added: Added
    ) -> Residuals:
        """Return what to add to each row; with guidance, rows without the prompt come first."""
        images = len(self.maps)
        pooled = self.model.config.global_pool_conditions
        prompt_alone = len(latents) > images and (self.use.mode == "control" or pooled)
        if prompt_alone:
            latents, states = latents[images:], states[images:]
            added = added and {name: tensor[images:] for name, tensor in added.items()}
        maps = torch.cat([self.maps] * (len(latents) // images))
        named: dict[str, Any] = {"controlnet_cond": maps}
        if self.use.kind:
            kind = KINDS.index(self.use.kind)
            kinds = latents.new_zeros(len(latents), self.model.config.num_control_type)
            kinds[:, kind] = 1
            named = {"controlnet_cond": [maps], "control_type": kinds, "control_type_idx": [kind]}
        down, middle = self.model(
            latents,
            timestep,
            encoder_hidden_states=states,
            added_cond_kwargs=added,
            return_dict=False,
            **named,
        )
        soft = self.soft or self.use.mode != "balanced"
        found = tuple(
            residual * self.use.weight * (_SOFTENED ** (_LAST - index) if soft else 1.0)
            for index, residual in enumerate((*down, middle))
        )
        if prompt_alone:  # rows without the prompt stay as they are
            found = tuple(torch.cat([torch.zeros_like(residual), residual]) for residual in found)
        return found


def residuals_of(
    hints: Sequence[Hint],
    share: float,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    states: torch.Tensor,
    added: Added,
) -> Residuals | None:
    """Return the sum for all hints that act at this share of the steps, None if none does."""
    total: Residuals | None = None
    for hint in hints:
        if hint.use.start <= share <= hint.use.end and hint.use.weight > 0:
            found = hint.residuals(latents, timestep, states, added)
            total = tuple(map(torch.add, total, found)) if total else found
    return total


def hints_of(
    group: Group, sampling: Sampling, controlnets: Mapping[tuple[str, str], Any], job: Job
) -> tuple[list[Hint], list[tuple[RgbPicture, ...]]]:
    """Return the maps of a pass: as ControlNets take them, and those that each image shows."""
    hints = []
    shown: list[list[RgbPicture]] = [[] for _ in group.requests]
    for index, first in enumerate(group.requests[0].control):
        maps = []  # of each image: height x width x RGB, 0 to 1
        for request, canvas, own in zip(group.requests, group.canvases, shown, strict=True):
            use = request.control[index]
            kept = decoded(decode_picture, job.start_images, use.image_hash, use.image)
            if canvas and canvas.whole:
                kept = fit(kept, canvas.whole.size, request.resize).crop(canvas.box)
                kept = fit(kept, canvas.picture.size, "fit")
            picture = np.asarray(fit(kept, sampling.size, request.resize))
            if use.preprocess == "depth":
                picture = job.guess_depth(picture, use)
            elif use.preprocess != "inpaint":
                picture = preprocess(picture, use)
            found = picture.astype(np.float32) / np.float32(255)
            if use.preprocess == "inpaint" and canvas and canvas.redrawn:
                found[np.asarray(canvas.redrawn) > 0] = _UNKNOWN
            maps.append(found)
            if use.preview:
                pixels = (found.clip(0, 1) * 255).round().astype(np.uint8).tobytes()
                own.append(RgbPicture(*sampling.size, pixels))
        model = controlnets[first.model, first.model_hash]
        stacked = torch.from_numpy(np.stack(maps)).permute(0, 3, 1, 2).to(job.device, model.dtype)
        # As in A1111: in a larger second pass its edges would show as lines.
        soft = sampling.before is not None and first.preprocess == "canny"
        hints.append(Hint(model, first, stacked, soft))
    return hints, list(map(tuple, shown))


# Settings that only a folder's own config has.
_OWN = ("global_pool_conditions", "controlnet_conditioning_channel_order")
_POOLED = "shuffle"  # in the names of files that were trained with pooled conditions
# SDXL's layers that diffusers' conversion leaves out.
_ADDED = {"label_emb.0.0.": "add_embedding.linear_1.", "label_emb.0.2.": "add_embedding.linear_2."}
_HINT = "controlnet_cond_embedding."
_TASKS = "task_embedding"


def load_controlnet(model: Model, unet: Any, target: Target, device: torch.device) -> Any:
    """Load a ControlNet for this UNet to `device`, in the type of `target`."""
    own: dict[str, Any] = {}
    if model.layout == "folder":
        config = read_json(model.path / "config.json")
        own = {key: config[key] for key in _OWN if key in config}
        prefix = ""
    else:
        own["global_pool_conditions"] = _POOLED in model.path.stem.casefold()
        # The first files also contain the checkpoint that they were trained for.
        prefix = ORIGINAL if read_header(model.path).has(ORIGINAL) else ""
    tensors = read_tensors(model.path, lambda _: target.dtype, device, prefix)
    if f"{_HINT}conv_in.weight" not in tensors:
        converted: Tensors = convert_controlnet_checkpoint(tensors, unet.config)
        for name, tensor in tensors.items():
            for old, new in _ADDED.items():
                if name.startswith(old):
                    converted[new + name.removeprefix(old)] = tensor
        tensors = converted
    kind = "ControlNetUnionModel" if _TASKS in tensors else "ControlNetModel"
    with torch.device("meta"):
        like: Any = getattr(diffusers, kind).from_unet(unet, load_weights_from_unet=False)
    config = {key: value for key, value in like.config.items() if not key.startswith("_")}
    # The latents of an inpainting UNet have more channels.
    config |= {"in_channels": LATENT_CHANNELS, **_layers(tensors, unet.config), **own}
    if _TASKS in tensors:  # a union's, whose maps a transformer joins
        layers = {name.split(".")[1] for name in tensors if name.startswith("transformer_layes.")}
        config |= {
            "num_control_type": tensors[_TASKS].shape[0],
            "num_trans_channel": tensors[_TASKS].shape[1],
            "num_trans_layer": len(layers),
            "num_proj_channel": len(tensors["spatial_ch_projs.weight"]),
        }
    return diffusers_model(kind, config, tensors, f"ControlNet {model.name!r}", target.dtype)


def _layers(tensors: Tensors, unet: Any) -> dict[str, Any]:
    """Return the config of the blocks: small ControlNets for SDXL have less attention, or none."""
    levels = range(len(unet["block_out_channels"]))
    depths = [_depth(tensors, f"down_blocks.{level}.") for level in levels]
    middle = _depth(tensors, "mid_block.")
    hints = sorted(
        (int(found[1]), len(tensor))
        for name, tensor in tensors.items()
        if (found := re.fullmatch(rf"{_HINT}blocks\.(\d+)\.weight", name))
    )
    return {
        "down_block_types": [
            "CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths
        ],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if middle else "UNetMidBlock2D",
        # The last number is for the middle, too, or only for it if the last level has no attention.
        "transformer_layers_per_block": [depth or middle or 1 for depth in depths],
        "conditioning_embedding_out_channels": [
            len(tensors[f"{_HINT}conv_in.weight"]),
            *(channels for index, channels in hints if index % 2),
        ],
    }


def _depth(tensors: Tensors, block: str) -> int:
    """Count the transformer blocks of an attention."""
    at = f"{block}attentions.0.transformer_blocks."
    return len({name.removeprefix(at).split(".")[0] for name in tensors if name.startswith(at)})
