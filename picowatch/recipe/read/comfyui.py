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
from dataclasses import dataclass
from itertools import product
from typing import Any

from picowatch.errors import PictureUnreadable
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import left_out
from picowatch.recipe.read.foreign import ForeignSettings

Node = Mapping[str, Any]

# Inputs to follow through nodes that change a prompt, a latent, or nothing.
_CONDITIONING = ("conditioning", "conditioning_1", "conditioning_to")
_LATENT = ("latent_image", "samples", "latent")
# The inputs of CLIPTextEncode and its like, the likeliest first.
_ENCODED = ("text", "t5xxl", "text_g", "prompt", "user_prompt", "clip_l", "text_l", "clip_g")
_EMBEDDING = re.compile(
    r"embedding:(?:[^\s,()\[\]:]*[/\\](?![()\[\]]))?"
    r"(?:(?P<name>[^\s,()\[\]:/\\]+?)(?:\.safetensors|\.pt|\.bin)?(?=[\s,()\[\]:]|$))?"
)
# Nodes that are read, or change nothing; ModelSamplingFlux does what FLUX.1 needs anyway.
_STANDARD = re.compile(
    "KSampler|KSamplerAdvanced|SamplerCustom|SamplerCustomAdvanced|BasicScheduler|.*TextEncode.*|"
    "(Basic|CFG|DualCFG)Guider|FluxGuidance|ConditioningZeroOut|CLIPSetLastLayer|Empty.*|"
    "LoraLoader(ModelOnly)?|VAE(En|De)code|VAEDecodeTiled|Reroute|(Save|Preview)Image|"
    "ModelSamplingFlux|TorchCompileModel|Flux2Scheduler"
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
    is_node = {n: isinstance(node, dict) and "class_type" in node for n, node in nodes.items()}
    _Workflow({n: node for n, node in nodes.items() if is_node[n]}, found).read()


def _kind(node: Node) -> str:
    return shown(str(node["class_type"]))


def _is_unread(node: Node) -> bool:
    return _STANDARD.fullmatch(_kind(node)) is None


def _is_sampler(node: Node) -> bool:
    """Return whether a node is a sampler: it has prompts, and steps or noise levels."""
    inputs = node["inputs"]
    has_prompt = isinstance(inputs.get("positive"), list)
    return "guider" in inputs or (has_prompt and not {"steps", "sigmas"}.isdisjoint(inputs))


@dataclass(frozen=True, slots=True)
class _Workflow:
    """The nodes of a workflow, read from its sampler back."""

    nodes: Mapping[str, Node]
    found: ForeignSettings

    def read(self) -> None:
        """Read the values of a recipe's fields."""
        sampler = self._first_sampler()
        parts = [sampler, *self._behind([sampler], "guider", "sigmas", "sampler", "noise")]
        positive = self._behind(parts, "positive", "conditioning", "cond1")[:1]  # DualCFGGuider's
        negative = self._behind(parts, "negative")[:1]
        way = list(self._upstream(positive, "positive", *_CONDITIONING, "clip"))
        layer = self._first(way, "stop_at_clip_layer")
        decoders = [node for node in self.nodes.values() if "samples" in node["inputs"]]
        self._put_prompt("prompt", positive, "positive")
        self._put_prompt("negative_prompt", negative, "negative")
        self.found.put("clip_skip", layer if layer is None else abs(int(layer)))
        self.found.put("vae", self._first(self._behind(decoders, "vae"), "vae_name"))
        self._put_sampling(parts, way)
        denoise, start = self._first(parts, "denoise"), self._first([sampler], "start_at_step")
        if start is not None and (steps := self._first([sampler], "steps")):
            denoise = max(0.0, (float(steps) - float(start)) / float(steps))
        self._put_size(sampler, denoise)
        self._put_models(self._behind(parts, "model")[:1])
        # Nodes between files and picture, other than standard nodes. Those without a link only
        # provide values, which are read, missed or not needed.
        savers = [node for node in self.nodes.values() if "filename_prefix" in node["inputs"]]
        between = [*self._upstream(savers), *self._upstream(self._behind([sampler]))]
        unread = {_kind(node) for node in between if self._behind([node]) and _is_unread(node)}
        if unread:
            what = "These nodes of the workflow were not read and may change the picture"
            self.found.warn(f"{what}: {listed(sorted(unread))}.")

    def _put_sampling(self, parts: list[Node], way: list[Node]) -> None:
        """Read the values of the sampler's parts, or note the nodes that hide them."""
        for field, nodes, names, behind in (
            ("steps", parts, ("steps",), "sigmas"),
            ("cfg_scale", parts, ("cfg", "cfg_conds"), ""),
            ("guidance", way, ("guidance",), ""),
            ("sampler", parts, ("sampler_name",), "sampler"),
            ("schedule_type", parts, ("scheduler",), "sigmas"),
            ("seed", parts, ("noise_seed", "seed"), "noise"),
        ):
            if (value := self._first(nodes, *names)) is not None:
                self.found.put(field, value)
            elif hiding := [*filter(_is_unread, self._behind(nodes, *names, behind))]:
                self._miss(field, hiding[0])
        schedule_type = self.found.values.get("schedule_type")
        if schedule_type in _OTHER_SCHEDULES:
            what = f"ComfyUI's schedule {schedule_type} has other noise levels than A1111's"
            self.found.warn(f"{what}, which picowatch takes: the picture will differ.")

    def _first_sampler(self) -> Node:
        """Return the sampler that starts from an empty picture; others continue its work."""
        samplers = [node for node in self.nodes.values() if _is_sampler(node)]
        if not samplers:
            kinds = listed(sorted(set(map(_kind, self.nodes.values()))))
            what = f"no node like KSampler, with 'positive' and 'steps', but {kinds}."
            words = f"its workflow from ComfyUI has {what}"
            raise PictureUnreadable(words, "Write the settings into a recipe.")
        if len(samplers) > 1:
            what = f"The workflow has {len(samplers)} samplers"
            self.found.warn(f"{what}; only the first one was read.")
        return next(filter(self._empty, samplers), samplers[0])

    def _empty(self, sampler: Node) -> Node | None:
        """Return the node of the empty picture that a sampler starts from; None for another."""
        *_, last = sampler, *self._upstream(self._behind([sampler], *_LATENT)[:1], *_LATENT)
        return None if _is_sampler(last) or {"pixels", "image"} & last["inputs"].keys() else last

    def _put_size(self, sampler: Node, denoise: Any) -> None:
        empty = self._empty(sampler)
        if empty is None:
            self.found.miss_start_image()
            self.found.put("denoising_strength", denoise)
            return
        if denoise is not None and float(denoise) < 1:
            what = f"denoise {shown(str(denoise))} of an empty picture was ignored"
            self.found.warn(f"{what}: without a start image, recipes draw all steps.")
        batch = self._first([empty], "batch_size")
        if isinstance(batch, int) and batch > 1:
            what = f"The workflow drew {batch} pictures at once, from one seed"
            self.found.warn(f"{what}: only the first of them can be drawn again.")
        for side in ("width", "height"):
            self.found.put(side, self._first([empty], side))
        if not {"width", "height"} <= self.found.values.keys():
            self._miss("size", [*self._behind([empty], "width", "height"), empty][0])

    def _put_models(self, start: list[Node]) -> None:
        """Read the checkpoint's file, and the LoRAs on the way to it."""
        for node in self._upstream(start, "model"):
            weight = self._first([node], "strength_model", "lora_model_strength", "lora_strength")
            of_text = self._first([node], "strength_clip", "lora_clip_strength")
            self.found.put_lora(self._first([node], "lora_name"), weight)
            if of_text not in (None, weight):
                self.found.warn(left_out(f"strength_clip: {of_text}"))
            if checkpoint := self._first([node], "ckpt_name", "unet_name"):
                self.found.put("checkpoint", checkpoint)
                return
        if start:
            self._miss("checkpoint", node)

    def _put_prompt(self, field: str, start: list[Node], sign: str) -> None:
        """Read the text that a prompt was encoded from, or warn about the node that hides it."""
        text = None if start else ""
        for node in self._upstream(start, sign, *_CONDITIONING):
            text, hiding = self._text(node, field)
            if text is not None:
                break
        if text is None:
            self._miss(field, hiding)
        self.found.put_prompt(field, text or "", _EMBEDDING)

    def _text(self, node: Node, field: str) -> tuple[str | None, Node]:
        """Return the text that a node encodes; without any, the node that hides it."""
        if _kind(node) == "ConditioningZeroOut":
            return "", node
        names = [name for name in _ENCODED if name in node["inputs"]]
        if "TextEncode" not in _kind(node) or not names:
            return None, node
        texts = {name: self._first([node], name) for name in names}
        text = next((str(text) for text in texts.values() if text), "")
        for name, other in texts.items():  # each text encoder may have another one
            hiding = self._behind([node], name)
            if text and other is None and hiding:
                self._miss(field, hiding[0], name)
            elif other and str(other) != text:
                self.found.leave_out(name, other)
        if _kind(node) == "CLIPTextEncode" and text == node["inputs"].get("text"):
            # Words there, unless another node reads them.
            text = re.sub(r"(?<!\\)<lora:", r"\\<lora:", text)
        is_hidden = all(other is None for other in texts.values())
        return None if is_hidden else text, [*self._behind([node], *names), node][0]

    def _miss(self, field: str, node: Node, name: str = "") -> None:
        """Note that a field's value was not found, or one of its texts, and the hiding node."""
        what = f"{name or field} was not found: the workflow's node {_kind(node)} was not read."
        remedy = f"Write '{field}: …' in the recipe."
        self.found.missed[f"{field} {name}".rstrip()] = f"{what} {remedy}"

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
        return [self.nodes[number] for number in numbers if number in self.nodes]

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
