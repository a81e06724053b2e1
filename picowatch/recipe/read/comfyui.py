"""ComfyUI's workflow in a picture: the values in its standard nodes.

ComfyUI stores the workflow that it ran as JSON under `prompt`, Civitai in a JPEG's user comment:
nodes by number, each with its class and its inputs; an input is a value, or the number of the node
that provides it (https://github.com/comfyanonymous/ComfyUI, nodes.py, comfy_extras). It is read
from the sampler back to its prompts, model and size; warnings name the nodes that were not read.
"""

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from picowatch.errors import PictureUnreadable
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import left_out
from picowatch.recipe.read.foreign_settings import ForeignSettings

Node = Mapping[str, Any]

# The inputs of samplers and guiders for each prompt; DualCFGGuider has conds.
_POSITIVE, _NEGATIVE = ("positive", "conditioning", "cond1"), ("negative",)
# Inputs to follow through nodes that change a prompt, a latent, or nothing.
_CONDITIONING = ("conditioning", "conditioning_1", "conditioning_to")
_LATENT = ("latent_image", "samples", "latent")
# The inputs of CLIPTextEncode and its like, the likeliest first.
_ENCODED = ("text", "t5xxl", "text_g", "prompt", "user_prompt", "clip_l", "text_l")
_EMBEDDING = re.compile(
    r"embedding:(?:[^\s,()\[\]:]*[/\\](?![()\[\]]))?"
    r"(?:(?P<name>[^\s,()\[\]:/\\]+?)(?:\.safetensors|\.pt|\.bin)?(?=[\s,()\[\]:]|$))?"
)
# Nodes that are read, or change nothing; ModelSamplingFlux does what FLUX.1 needs anyway.
_STANDARD = re.compile(
    "KSampler|KSamplerAdvanced|SamplerCustom|SamplerCustomAdvanced|BasicScheduler|.*TextEncode.*|"
    "(Basic|CFG|DualCFG)Guider|FluxGuidance|ConditioningZeroOut|CLIPSetLastLayer|Empty.*|"
    "LoraLoader(ModelOnly)?|VAE(En|De)code|VAEDecodeTiled|Reroute|(Save|Preview)Image|"
    "ModelSamplingFlux|TorchCompileModel"
)
# Schedules that share only their names with A1111's: comfy/samplers.py, beta_scheduler, and
# comfy/k_diffusion/sampling.py, get_sigmas_kl_optimal, against A1111's modules/sd_schedulers.py.
_OTHER_SCHEDULES = ("beta", "kl_optimal")
_MOST_NODES = 2000


def comfyui_in(texts: Mapping[str, str]) -> str:
    """Return the workflow in a picture's texts, or ""."""
    found = (texts.get(keyword, "").lstrip() for keyword in ("prompt", "parameters"))
    return next((text for text in found if text.startswith("{") and '"class_type"' in text), "")


def read_comfyui(workflow: str, found: ForeignSettings) -> None:
    """Read the settings, and warn about what was not read. Raises PictureUnreadable."""
    nodes = json.loads(workflow)
    if len(nodes) > _MOST_NODES:
        raise PictureUnreadable(f"its workflow has more than {_MOST_NODES:,} nodes.")
    # Civitai puts other things beside the nodes.
    nodes = {
        n: node for n, node in nodes.items() if isinstance(node, dict) and "class_type" in node
    }
    _Workflow(nodes, found).read()


def _kind(node: Node) -> str:
    return shown(str(node["class_type"]))


def _is_sampler(node: Node) -> bool:
    """Return whether a node is a sampler: it has prompts, and steps or noise levels."""
    inputs = node["inputs"]
    has_prompt = isinstance(inputs.get("positive"), list)
    return "guider" in inputs or (has_prompt and not {"steps", "sigmas"}.isdisjoint(inputs))


class _Workflow:
    """The nodes of a workflow, read from its sampler back."""

    def __init__(self, nodes: Mapping[str, Node], found: ForeignSettings) -> None:
        self._nodes = {str(number): node for number, node in nodes.items()}
        self._found = found

    def read(self) -> None:
        """Read the values of a recipe's fields."""
        sampler = self._first_sampler()
        parts = [sampler, *self._behind([sampler], "guider", "sigmas", "sampler", "noise")]
        positive, negative = (self._behind(parts, *names)[:1] for names in (_POSITIVE, _NEGATIVE))
        way = list(self._upstream(positive, "positive", *_CONDITIONING, "clip"))
        layer = self._first(way, "stop_at_clip_layer")
        schedule_type = self._first(parts, "scheduler")
        if schedule_type in _OTHER_SCHEDULES:
            self._found.warn(
                f"ComfyUI's schedule {schedule_type} has other noise levels than A1111's, which "
                "picowatch takes: the picture will differ."
            )
        decoders = [node for node in self._nodes.values() if "samples" in node["inputs"]]
        self._put_prompt("prompt", positive, "positive")
        self._put_prompt("negative_prompt", negative, "negative")
        for field, value in {
            "steps": self._first(parts, "steps"),
            "cfg_scale": self._first(parts, "cfg", "cfg_conds"),
            "guidance": self._first(way, "guidance"),
            "clip_skip": layer if layer is None else abs(int(layer)),
            "vae": _file(self._first(self._behind(decoders, "vae"), "vae_name")),
            "sampler": self._first(parts, "sampler_name"),
            "schedule_type": schedule_type,
            "seed": self._first(parts, "noise_seed", "seed"),
        }.items():
            self._found.put(field, value)
        self._put_size(sampler, self._first(parts, "denoise"))
        self._put_models(self._behind(parts, "model")[:1])
        self._warn_of_unread(sampler)

    def _first_sampler(self) -> Node:
        """Return the sampler that starts from an empty picture; others continue its work."""
        samplers = [node for node in self._nodes.values() if _is_sampler(node)]
        if not samplers:
            raise PictureUnreadable(
                "its workflow from ComfyUI has no node like KSampler, with 'positive' and 'steps', "
                f"but {listed(sorted(set(map(_kind, self._nodes.values()))))}.",
                "Write the settings into a recipe.",
            )
        if len(samplers) > 1:
            self._found.warn(
                f"The workflow has {len(samplers)} samplers; only the first one was read."
            )
        return next(filter(self._empty, samplers), samplers[0])

    def _empty(self, sampler: Node) -> Node | None:
        """Return the node of the empty picture that a sampler starts from; None for another."""
        *_, last = sampler, *self._upstream(self._behind([sampler], *_LATENT)[:1], *_LATENT)
        return None if _is_sampler(last) or {"pixels", "image"} & last["inputs"].keys() else last

    def _put_size(self, sampler: Node, denoise: Any) -> None:
        empty = self._empty(sampler)
        if empty is None:
            self._found.miss_start_image()
            self._found.put("denoising_strength", denoise)
            return
        if denoise is not None and float(denoise) < 1:
            self._found.warn(
                f"denoise {shown(str(denoise))} of an empty picture was ignored: without a start "
                "image, recipes draw all steps."
            )
        batch = self._first([empty], "batch_size")
        if isinstance(batch, int) and batch > 1:
            self._found.warn(
                f"The workflow drew {batch} pictures at once, from one seed: only the first of "
                "them can be drawn again."
            )
        for side in ("width", "height"):
            self._found.put(side, self._first([empty], side))
        if not {"width", "height"} <= self._found.values.keys():
            self._found.warn(
                f"The size was not found in the workflow's node {_kind(empty)}; 'size: …' in the "
                "recipe sets one."
            )

    def _put_models(self, start: list[Node]) -> None:
        """Read the checkpoint's file, and the LoRAs on the way to it."""
        for node in self._upstream(start, "model"):
            weight, of_text = (self._first([node], f"strength_{of}") for of in ("model", "clip"))
            self._found.put_lora(_file(self._first([node], "lora_name")), weight)
            if of_text not in (None, weight):
                self._found.warn(left_out(f"strength_clip: {of_text}"))
            if checkpoint := self._first([node], "ckpt_name", "unet_name"):
                self._found.put("checkpoint", _file(checkpoint))
                return

    def _put_prompt(self, field: str, start: list[Node], sign: str) -> None:
        """Read the text that a prompt was encoded from, or warn about the node that hides it."""
        text, hiding = None if start else "", ""
        for node in self._upstream(start, sign, *_CONDITIONING):
            text, hiding = self._text(node)
            if text is not None:
                break
        if text is None:
            self._found.warn(
                f"The {sign} prompt was not found: the workflow's node {hiding} was not read."
            )
        self._found.put_prompt(field, text or "", _EMBEDDING)

    def _text(self, node: Node) -> tuple[str | None, str]:
        """Return the text that a node encodes; without any, the class of the node that hides it."""
        if _kind(node) == "ConditioningZeroOut":
            return "", ""
        names = [name for name in _ENCODED if name in node["inputs"]]
        if "TextEncode" not in _kind(node) or not names:
            return None, _kind(node)
        texts = [str(text) for name in names if (text := self._first([node], name)) is not None]
        hiding = [*self._behind([node], *names), node]
        return (max(texts, key=bool) if texts else None), _kind(hiding[0])

    def _warn_of_unread(self, sampler: Node) -> None:
        """Warn about other nodes between files and picture than standard nodes.

        Nodes without a link only provide values, which are read or not needed.
        """
        savers = [node for node in self._nodes.values() if "filename_prefix" in node["inputs"]]
        between = [*self._upstream(savers), *self._upstream(self._behind([sampler]))]
        kinds = {_kind(node) for node in between if self._behind([node])}
        if unread := sorted(kind for kind in kinds if not _STANDARD.fullmatch(kind)):
            self._found.warn(
                "These nodes of the workflow were not read and may change the picture: "
                f"{listed(unread)}."
            )

    def _upstream(self, start: list[Node], *names: str) -> Iterator[Node]:
        """Yield these nodes and those behind their inputs, nearest first, as far as samplers."""
        waiting, seen = deque(start), set[int]()
        while waiting:
            node = waiting.popleft()
            if id(node) not in seen:
                seen.add(id(node))
                yield node
                waiting += [] if _is_sampler(node) else self._behind([node], *names)

    def _behind(self, nodes: list[Node], *names: str) -> list[Node]:
        """Return the nodes that provide these inputs, or any input."""
        links = (node["inputs"].get(name) for node in nodes for name in names or node["inputs"])
        numbers = (str(link[0]) for link in links if isinstance(link, list) and link)
        return [self._nodes[number] for number in numbers if number in self._nodes]

    def _first(self, nodes: list[Node], *names: str) -> str | int | float | None:
        """Return the first value with one of these names, which another node may provide."""
        for node, name in product(nodes, names):
            values = [node["inputs"].get(name)]
            for source in self._behind([node], name):
                values = [source["inputs"].get(key) for key in (name, "value")]
            for value in values:
                if isinstance(value, str | int | float):
                    return value
        return None


def _file(name: object) -> str | None:
    """Return a file's name without its folder, also for Windows' paths."""
    return None if name is None else re.split(r"[/\\]", str(name))[-1]
