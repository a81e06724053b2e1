"""LoRAs, loaded by the loaders of diffusers' pipelines and added to layers by peft.

No weight of the checkpoint changes: peft wraps each layer in one that adds the LoRA's share to the
output. When no LoRA is in use, all layers are unwrapped again.

A LoHa or LoKr equals a LoRA of a higher rank, and becomes one. Names and shapes are those of
https://github.com/KohakuBlueleaf/LyCORIS, described in https://arxiv.org/abs/2309.14859.
"""

import json
import math
import re
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading
from diffusers.loaders import FluxLoraLoaderMixin
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from peft.utils.other import get_pattern_key
from safetensors import safe_open
from torch import nn

from picowatch.engine.verify import Verified
from picowatch.errors import RenderFailed
from picowatch.recipe.request import LoraUse

Tensors = dict[str, torch.Tensor]
_NAMED_KEYS = 3


class Loras:
    """The LoRAs of one checkpoint, which `pipeline` is made of.

    `applied` are those in use, `warnings` say which parts of their files have no effect.
    """

    def __init__(self, pipeline: Any, verified: Verified) -> None:
        self._pipeline = pipeline
        self._verified = verified
        self._unused: dict[str, list[str]] = {}  # by hash: the keys that do nothing
        self.applied: tuple[LoraUse, ...] = ()
        self.warnings: tuple[str, ...] = ()

    @property
    def adapts_encoders(self) -> bool:
        """True while LoRAs change the text encoders' embeddings."""
        return any(getattr(part, "peft_config", None) for part in self._encoders())

    def apply(self, uses: Sequence[LoraUse]) -> None:
        """Use exactly these LoRAs. If one cannot be used, RenderFailed is raised, and none is."""
        wanted = tuple(uses)
        if wanted == self.applied:
            return
        weights: dict[str, float] = {}
        for use in wanted:
            weights[use.hash] = weights.get(use.hash, 0) + use.weight
        weights = {sha256: weight for sha256, weight in weights.items() if weight}
        names = {use.hash: use.name for use in wanted if use.hash in weights}
        if names.keys() != self._unused.keys():
            self._unload()
            try:
                for sha256, name in names.items():
                    with self._verified("lora", name, sha256) as model:
                        self._load(name, sha256, model.path)
            except BaseException:
                self._unload()
                raise
        if weights:
            self._pipeline.set_adapters([*map(_adapter, weights)], [*weights.values()])
        self.applied = wanted
        unused = ((name, self._unused[sha256]) for sha256, name in names.items())
        self.warnings = tuple(_does_nothing(name, keys) for name, keys in unused if keys)

    def _load(self, name: str, sha256: str, path: Path) -> None:
        """Let diffusers wrap the layers of a file."""
        tensors, unused = read_lora(name, path, self._pipeline)
        with warnings.catch_warnings():
            # Several LoRAs in one model are intended.
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
            self._pipeline.load_lora_weights(tensors, adapter_name=_adapter(sha256))
        self._unused[sha256] = unused

    def _unload(self) -> None:
        """Unwrap every layer."""
        self._unused.clear()
        self.applied = self.warnings = ()
        self._pipeline.unload_lora_weights()
        for part in self._encoders():
            # Otherwise group offloading still has the layers of the unloaded LoRA: diffusers renews
            # the groups of its own models, but those of text encoders only when a LoRA is loaded.
            _maybe_remove_and_reapply_group_offloading(part)

    def _encoders(self) -> list[nn.Module]:
        parts = self._pipeline.components.items()
        return [one for name, one in parts if name.startswith("text_encoder") and one is not None]


def _adapter(sha256: str) -> str:
    """Return diffusers' name for a LoRA."""
    return f"lora_{sha256[:16]}"


def _does_nothing(name: str, keys: Sequence[str]) -> str:
    named = ", ".join(key[:80] for key in keys[:_NAMED_KEYS])
    more = f" and {len(keys) - _NAMED_KEYS} more" if len(keys) > _NAMED_KEYS else ""
    return f"The LoRA {name!r} has parts that do nothing with this checkpoint: {named}{more}."


class _Layer(NamedTuple):
    """Two matrices that add up(down(x)) to a layer; `keys` are those in the file, by role."""

    down: torch.Tensor
    up: torch.Tensor
    keys: Mapping[str, str]


# A part of a pipeline by diffusers' name, and a module in it.
_Target = tuple[str, str]


def read_lora(name: str, path: Path, pipeline: Any) -> tuple[Tensors, list[str]]:
    """Return a file's tensors for a pipeline in diffusers' names, and the keys of all others.

    RenderFailed says why the LoRA of this name cannot be used; a damaged file raises other errors.
    The catalog has already refused the kinds that names of tensors tell.
    """
    layers, unused = _layers(name, path)
    try:
        found, failure = _modules(layers, pipeline), ""
    # diffusers' converters raise various errors for unexpected names.
    except Exception:
        found, failure = {}, traceback.format_exc()
    if not found:
        raise RenderFailed(
            f"The LoRA {name!r} is for another kind of model: diffusers finds no layer of this "
            f"checkpoint for names like {next(iter(layers), '')[:80]!r}.",
            "Use a LoRA for this checkpoint's kind of model; if this is one, convert its names to "
            "those of diffusers.",
            failure,
        )
    tensors: Tensors = {}
    used = set()
    for (part, module), (stem, rows) in found.items():
        used.add(stem)
        layer = layers[stem]
        halves = _fitting(name, getattr(pipeline, part), module, layer.down, layer.up[rows])
        tensors |= zip(_as_peft(f"{part}.{module}"), halves, strict=True)
    for stem in layers.keys() - used:
        unused += layers[stem].keys.values()
    return tensors, sorted(unused)


# The end of a key, which tells the tensor's role in its layer: in kohya's or peft's form, that of
# diffusers before it used peft (`to_q_lora.down`, `lora_linear_layer.down`), and that of XLabs
# (`qkv_lora1.down`).
_FACTOR = r"hada_w[12]_[ab]|lokr_w[12](?:_[ab])?"
_ROLE = re.compile(
    r"\.lora_(down|up|A|B)(?:\.\w+)?\.weight$"
    r"|(?:_lora|\.lora|\.lora_linear_layer|(?<=_lora[12]))\.(down|up)\.weight$"
    r"|(?:_lora|\.lora|\.lora_linear_layer)?\.(alpha)$"
    rf"|\.({_FACTOR})(?:\.weight)?$"
)
_DIFFERENCE = re.compile(r"\.diff(_b)?$")
# The limit for a LoHa or LoKr as a LoRA: 2 GiB in 16 bits.
_MOST_NUMBERS = 2**30


def _layers(name: str, path: Path) -> tuple[dict[str, _Layer], list[str]]:
    """Return the layers by name, with their scales in `up`, and the keys of all other tensors."""
    with safe_open(path, framework="pt") as file:
        # Copies: the file is memory-mapped, so that overwriting it would change the pictures.
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        metadata = (file.metadata() or {}).get("lora_adapter_metadata", "{}")
    # peft's LoraConfig, by part: https://github.com/huggingface/diffusers/pull/11324
    settings = {key: value for key, value in json.loads(metadata).items() if value}
    roles: dict[str, dict[str, str]] = {}
    others = []
    for key, tensor in tensors.items():
        if match := _ROLE.search(key):
            role = next(filter(None, match.groups()))
            own = roles.setdefault(key[: match.start()], {})
            own[{"A": "down", "B": "up"}.get(role, role)] = key
        elif not _DIFFERENCE.search(key):
            others.append(key)
        elif tensor.any():  # ComfyUI extracts many that are zero
            raise _of_another_kind(name, "a file of whole differences")
    layers: dict[str, _Layer] = {}
    numbers = 0
    for stem, own in roles.items():
        has_factors = any(re.fullmatch(_FACTOR, role) for role in own)
        if not has_factors and not own.keys() >= {"down", "up"}:
            others += own.values()
            continue
        down, up = _halves(stem, {role: tensors[key] for role, key in own.items()}, settings)
        layers[stem] = _Layer(down, up, own)
        numbers += (down.numel() + up.numel()) * has_factors
        if numbers > _MOST_NUMBERS:
            raise _of_another_kind(name, "a LoKr with large whole matrices")
    return layers, others


def _halves(
    stem: str, own: Tensors, settings: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `down` and `up` of a layer, with its scale in `up`.

    A LoHa is the elementwise product (a1 b1) * (a2 b2): all products of rows of a1 and a2, and of
    columns of b1 and b2, make the two matrices. A LoKr is kron(w, a b) = kron(w, a) kron(1, b).
    Alpha has no effect if the larger factor is one matrix: then the result has full rank.
    """
    if "down" in own and "up" in own:
        return own["down"], _scaled(own["up"], stem, len(own["down"]), own, settings)
    of = {name: factor.float() for name, factor in own.items()}
    if "hada_w1_a" in of:
        down = (of["hada_w1_b"][:, None] * of["hada_w2_b"][None]).flatten(0, 1)
        up = (of["hada_w1_a"][:, :, None] * of["hada_w2_a"][:, None]).flatten(1)
        return down, _scaled(up, stem, len(of["hada_w1_b"]), own, settings)
    small = of["lokr_w1"] if "lokr_w1" in of else of["lokr_w1_a"] @ of["lokr_w1_b"]
    whole = of.get("lokr_w2")
    down = of["lokr_w2_b"] if whole is None else whole
    up = of["lokr_w2_a"] if whole is None else torch.eye(len(whole))
    one = torch.eye(small.shape[1]).reshape(*small.shape[1:] * 2, *[1] * (down.ndim - 2))
    rank = len(down) if whole is None else 0
    return torch.kron(one, down), _scaled(torch.kron(small, up), stem, rank, own, settings)


def _scaled(
    up: torch.Tensor, stem: str, rank: int, own: Tensors, settings: Mapping[str, Any]
) -> torch.Tensor:
    """Multiply by alpha / rank, or alpha / sqrt(rank) for rsLoRA, https://arxiv.org/abs/2312.03732.

    Without a rank, `up` is returned as it is.
    """
    part, _, module = stem.partition(".")
    root = False
    if "alpha" in own:
        alpha = float(own["alpha"])
    else:
        patterns = settings.get(f"{part}.alpha_pattern", {})
        usual = settings.get(f"{part}.lora_alpha", rank)
        alpha = float(patterns.get(get_pattern_key([*patterns], module), usual))
        root = f"{part}.use_rslora" in settings
    divisor = math.sqrt(rank) if root else rank
    return up.float() * (alpha / divisor) if rank and alpha != divisor else up


# What trainers write before the names of a denoiser's layers: kohya's scripts, OneTrainer and
# LyCORIS with "_" for the dots, peft, ComfyUI and diffusers without.
_PREFIX = re.compile(
    r"^(?:base_model\.model\.|(?:lora_unet|lora_transformer|lycoris)_"
    r"|(?:model\.diffusion_model|diffusion_model|transformer|unet)\.)+"
)
# Placeholder tensors hold the numbers of a layer and a row, which float64 represents exactly.
_ROWS = 2**24


def _modules(
    layers: Mapping[str, _Layer], pipeline: Any
) -> dict[_Target, tuple[str, torch.Tensor]]:
    """Return the modules of a pipeline that layers are for, with each one's rows of `up`.

    Most trainers write the denoiser's own names. diffusers converts those of the models' authors,
    and splits some layers; it silently drops what it does not know. Converting placeholders of rank
    1, whose `up` has the numbers of layers and rows, shows what it does.
    """
    found, others = _named_as_modules(layers, pipeline)
    stems, given = [*others], Tensors()
    for number, (stem, layer) in enumerate(others.items()):
        down = torch.ones(1, *layer.down.shape[1:], dtype=torch.float64)
        rows = number * _ROWS + torch.arange(len(layer.up), dtype=torch.float64)
        up = rows.reshape(-1, 1, *layer.up.shape[2:])
        given |= zip(_keys(stem, layer, pipeline), (down, up, torch.ones(())), strict=False)
    try:
        converted = _converted(given, pipeline) if given else {}
    except Exception:  # its converters raise various errors for unexpected names
        if not found:
            raise
        converted = {}
    for target, up in converted.items():
        numbers = up.flatten().long()
        found[target] = stems[int(numbers[0]) // _ROWS], numbers % _ROWS
    return found


def _named_as_modules(
    layers: Mapping[str, _Layer], pipeline: Any
) -> tuple[dict[_Target, tuple[str, torch.Tensor]], dict[str, _Layer]]:
    """Return the layers that are named as the denoiser's modules are, and all others."""
    part = "unet" if hasattr(pipeline, "unet") else "transformer"
    modules = {one.replace(".", "_"): one for one in _adaptable(getattr(pipeline, part))}
    found: dict[_Target, tuple[str, torch.Tensor]] = {}
    others = {}
    for stem, layer in layers.items():
        if module := modules.get(_PREFIX.sub("", stem).replace(".", "_")):
            found[part, module] = stem, torch.arange(len(layer.up))
        else:
            others[stem] = layer
    return found, others


def _adaptable(model: nn.Module) -> set[str]:
    """Return the names of the modules that LoRAs may be for."""
    return {
        name.removesuffix(".base_layer")  # peft's name if another LoRA wraps it
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


# diffusers knows these names only with kohya's endings, for FLUX.1 and similar models; XLabs' names
# of the same layers ("…processor.qkv_lora1") have endings of their own.
_FLUX_AUTHORS = re.compile(r"(diffusion_model\.)?(double|single)_blocks\.(?!.*\.processor\.)")


def _keys(stem: str, layer: _Layer, pipeline: Any) -> tuple[str, ...]:
    """Return the names of `down` and `up`, and of alpha where it is required."""
    of_flux = isinstance(pipeline, FluxLoraLoaderMixin) and _FLUX_AUTHORS.match(stem)
    if of_flux or "." not in stem:
        return f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", f"{stem}.alpha"
    if "down" in layer.keys:
        return layer.keys["down"], layer.keys["up"]
    return _as_peft(stem)


def _as_peft(stem: str) -> tuple[str, str]:
    return f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"


def _converted(tensors: Tensors, pipeline: Any) -> dict[_Target, torch.Tensor]:
    """Return the `up` of each existing module, with a file's names converted by diffusers."""
    # Without this, names of SDXL's authors stay as they are.
    unet = {"unet_config": pipeline.unet.config} if hasattr(pipeline, "unet") else {}
    given: Any = pipeline.lora_state_dict(tensors, **unet)
    by_part: dict[str, Tensors] = {}
    for key, tensor in (given if isinstance(given, dict) else given[0]).items():
        part, _, rest = key.partition(".")
        by_part.setdefault(part, {})[rest] = tensor
    found = {}
    for part, named in by_part.items():
        model = getattr(pipeline, part, None)
        # The attribute for the parts that its loader takes is private.
        if model is None or part not in pipeline._lora_loadable_modules:
            continue
        if not part.startswith("text_encoder"):
            named = convert_unet_state_dict_to_peft(named)
        elif not all(".lora_A." in key or ".lora_B." in key for key in named):
            named = convert_state_dict_to_peft(convert_state_dict_to_diffusers(named))
        modules = _adaptable(model)
        for key, tensor in named.items():
            stem = key.removesuffix(".lora_B.weight")
            # transformers 5 has CLIP without this level.
            module = stem if stem in modules else stem.removeprefix("text_model.")
            if stem != key and module in modules:
                found[part, module] = tensor
    return found


def _fitting(
    name: str, model: Any, target: str, down: torch.Tensor, up: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `down` and `up` in the module's shape, checked: diffusers may enlarge FLUX.1's."""
    module: Any = model.get_submodule(target)
    module = getattr(module, "base_layer", module)
    if isinstance(module, nn.Linear):  # quantised weights have another shape than their layer
        inputs, outputs, kernel = module.in_features, module.out_features, ()
    else:
        inputs, outputs, kernel = module.in_channels, module.out_channels, module.kernel_size
    # Stable Diffusion 1.x's `proj_in` is a convolution, for some files a matrix.
    if down[0].numel() % math.prod(kernel) == 0:
        down = down.reshape(len(down), -1, *kernel)
    up = up.reshape(len(up), -1, *[1] * len(kernel))
    if (down.shape[1], len(up), len(down)) != (inputs, outputs, up.shape[1]):
        raise RenderFailed(
            f"The LoRA {name!r} is for a model of another size: its {target} leads from "
            f"{down.shape[1]} to {len(up)} values, this checkpoint's from {inputs} to {outputs}.",
            "Use it with a checkpoint of the kind it was trained for, or remove it.",
        )
    # peft converts them, too, but not for quantised weights.
    return down.to(model.dtype), up.to(model.dtype)


def _of_another_kind(name: str, kind: str) -> RenderFailed:
    return RenderFailed(
        f"The LoRA {name!r} is {kind}, which picowatch does not render.",
        "Use a plain LoRA, or a LoHa or LoKr of low rank. ComfyUI can extract a LoRA from a "
        "model that this file was merged into.",
    )
