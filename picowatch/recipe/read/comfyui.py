"""ComfyUI's workflow in a picture: what its usual nodes say, as values.

ComfyUI stores the workflow that it ran as JSON under `prompt`: nodes by number, each with its class
and its inputs, and an input is a value, or the number of the node that gives it
(https://github.com/comfyanonymous/ComfyUI, nodes.py, comfy_extras/nodes_flux.py,
nodes_custom_sampler.py). A workflow can do much that a recipe cannot. What is read is the way from
the node that draws from noise back to its prompts, model and size; the rest is named in warnings.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from picowatch.errors import PictureUnreadable
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import left_out
from picowatch.recipe.read.carried import Carried
from picowatch.recipe.resolve.installed import MODULE

Node = Mapping[str, Any]

_SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustomAdvanced", "SamplerCustom")
# Inputs that lead on, through nodes that change what goes through them.
_POSITIVE = ("model", "conditioning", "conditioning_1", "samples", "latent", "positive", "clip")
_NEGATIVE = ("conditioning", "conditioning_1", "negative", "clip")
_MODEL = ("model",)
_OUTPUT = ("images", "image", "pixels", "samples")
# Inputs that hold the value of a node whose output is a number or text.
_VALUES = ("value", "seed", "noise_seed", "text", "string", "int", "float", "number", "prompt")
_TEXTS = ("text", "t5xxl", "text_g", "prompt", "clip_l", "text_l")
_CHECKPOINTS = ("ckpt_name", "unet_name", "model_name", "model_path")
# With its folder, also on Windows, and its ending; a backslash before a bracket is an escape.
_EMBEDDING = re.compile(
    r"embedding:(?:[^\s,()\[\]:]*[/\\](?![()\[\]]))?"
    r"(?:(?P<name>[^\s,()\[\]:/\\]+?)(?:\.safetensors|\.pt|\.bin)?(?=[\s,()\[\]:]|$))?"
)
_EMPTY = "ConditioningZeroOut"
# https://github.com/rgthree/rgthree-comfy; its inputs are mappings of on, lora and strength.
_SEVERAL_LORAS = "Power Lora Loader (rgthree)"
# Inputs of nodes on the way that are read there.
_READ = {
    *_TEXTS,
    *_CHECKPOINTS,
    "lora_name",
    "stop_at_clip_layer",
    "guidance",
    "shift",
    "max_shift",
}
# Nodes on the way that have nothing to be read.
_KNOWN = {
    *_SAMPLERS,
    _EMPTY,
    _SEVERAL_LORAS,
    "VAEDecode",
    "VAEDecodeTiled",
    "Reroute",
    "TorchCompileModel",
}
_USUAL_SHIFT = {"ModelSamplingFlux": 1.15}
_MOST_NODES = 2000
_LONGEST_WAY = 200


def is_comfyui(texts: Mapping[str, str]) -> bool:
    """Whether a picture's text under `prompt` is a workflow."""
    text = texts.get("prompt", "")
    return text.lstrip().startswith("{") and '"class_type"' in text


def read_comfyui(texts: Mapping[str, str], carried: Carried) -> None:
    """The settings, and warnings for what was not read. Raises PictureUnreadable."""
    nodes = json.loads(texts["prompt"])
    if len(nodes) > _MOST_NODES:
        raise PictureUnreadable(f"its workflow has more than {_MOST_NODES:,} nodes.")
    _Workflow(nodes, carried).read()


class _Workflow:
    """The nodes, and what the one that draws from noise was given."""

    def __init__(self, nodes: Mapping[str, Node], carried: Carried) -> None:
        self._nodes = {str(number): node for number, node in nodes.items()}
        self._carried = carried

    def read(self) -> None:
        """The values of a recipe's fields."""
        sampler = self._first_sampler()
        guider = self._node(sampler, "guider") or sampler
        positive = self._node(guider, "positive") or self._node(guider, "conditioning")
        carried = self._carried
        carried.put("prompt", self._text(positive))
        negative = self._text(self._node(guider, "negative"), _NEGATIVE)
        skipped = self._found(positive, "stop_at_clip_layer")
        sigmas = self._node(sampler, "sigmas") or sampler
        choice = self._node(sampler, "sampler") or sampler
        noise = self._node(sampler, "noise") or sampler
        found = {
            "negative_prompt": negative or None,
            "steps": self._value(sigmas, "steps"),
            "cfg_scale": self._value(guider, "cfg"),
            "guidance": self._found(positive, "guidance"),
            "clip_skip": None if skipped is None else abs(int(skipped)),
            "checkpoint": self._file(self._model(guider) or self._model(sampler)),
            MODULE: self._vae(),
        }
        for field, value in found.items():
            carried.put(field, value)
        carried.put_sampler(self._value(choice, "sampler_name"), self._value(sigmas, "scheduler"))
        carried.put_seed(self._seed(noise))
        self._put_size(sampler, self._value(sigmas, "denoise"))
        for name, weight in self._loras(guider):
            carried.put_lora(name, weight)
        self._warn_of_unread(sampler, guider)

    def _warn_of_unread(self, sampler: Node, guider: Node) -> None:
        """Of nodes between models, prompts and file that do what is not known."""
        ways = [(guider, "positive", _POSITIVE), (guider, "conditioning", _POSITIVE),
                (guider, "negative", _NEGATIVE), (guider, "model", _MODEL),
                (sampler, "model", _MODEL)]  # fmt: skip
        ways += [(node, "images", _OUTPUT) for node in self._nodes.values()
                 if "filename_prefix" in node["inputs"]]  # fmt: skip
        unread = {
            one["class_type"]
            for node, name, onward in ways
            for one in self._way(self._node(node, name), onward)
            if one["class_type"] not in _KNOWN
            and _READ.isdisjoint(one["inputs"])
            and any(self._node(one, name) for name in onward)
        }
        if unread:
            names = listed([shown(str(name)) for name in sorted(unread)])
            what = (
                f"nodes {names} were not read; they"
                if len(unread) > 1
                else f"node {names} was not read; it"
            )
            self._carried.warn(f"The workflow's {what} may change the picture.")

    def _first_sampler(self) -> Node:
        """The one that begins with an empty picture; others draw on what it made."""
        samplers = [node for node in self._nodes.values() if node["class_type"] in _SAMPLERS]
        if not samplers:
            raise PictureUnreadable(
                f"its workflow from ComfyUI has none of the nodes {', '.join(_SAMPLERS)}, which "
                "picowatch reads.",
                "Write the settings into a recipe.",
            )
        if len(samplers) > 1:
            self._carried.warn(
                f"The workflow draws in {len(samplers)} steps; only the first one was read."
            )
        firsts = [node for node in samplers if self._empty_latent(node)]
        return (firsts or samplers)[0]

    def _empty_latent(self, sampler: Node) -> Node | None:
        start = self._node(sampler, "latent_image")
        *_, last = (None, *self._way(start))
        return last if last and "width" in last["inputs"] else None

    def _put_size(self, sampler: Node, denoise: Any) -> None:
        empty = self._empty_latent(sampler)
        if empty is None:
            self._carried.miss_start_image()
            self._carried.put("denoising_strength", denoise)
        else:
            self._carried.put_size(self._value(empty, "width"), self._value(empty, "height"))

    def _seed(self, noise: Node) -> str | int | float | None:
        value = self._value(noise, "noise_seed")
        return self._value(noise, "seed") if value is None else value

    def _model(self, node: Node) -> Any:
        """The model's file, past the nodes that change how it samples."""
        start = self._node(node, "model")
        for one in self._way(start, _MODEL):
            shift = one["inputs"].get("shift", one["inputs"].get("max_shift"))
            if shift is not None and shift != _USUAL_SHIFT.get(one["class_type"]):
                self._carried.warn(left_out(f"{one['class_type']}: {shift}"))
            for name in _CHECKPOINTS:
                if name in one["inputs"]:
                    return self._value(one, name)
        return None

    def _loras(self, node: Node) -> Iterator[tuple[str, Any]]:
        for one in self._way(self._node(node, "model"), _MODEL):
            for file, weight, of_text in self._lora_files(one):
                name = self._file(file)
                if name and of_text not in (None, weight):
                    self._carried.warn(left_out(f"strength_clip: {of_text}"))
                if name:
                    yield name, weight

    def _lora_files(self, node: Node) -> list[tuple[Any, ...]]:
        """A node's files, with their weights for the model and for its text encoders."""
        if node["class_type"] != _SEVERAL_LORAS:
            names = ("lora_name", "strength_model", "strength_clip")
            return [tuple(self._value(node, name) for name in names)]
        return [
            tuple(entry.get(name) for name in ("lora", "strength", "strengthTwo"))
            for entry in node["inputs"].values()
            if isinstance(entry, dict) and entry.get("on") is True
        ]

    def _text(self, conditioning: Node | None, onward: tuple[str, ...] = _POSITIVE) -> str:
        for one in self._way(conditioning, onward):
            if one["class_type"] == _EMPTY:
                return ""
            for name in _TEXTS:
                text = self._value(one, name)
                if isinstance(text, str) and text.strip():
                    return self._carried.with_embeddings(text.strip(), _EMBEDDING)
        return ""

    def _found(self, start: Node | None, name: str) -> Any:
        """The first value of this name on the way back."""
        values = (self._value(node, name) for node in self._way(start))
        return next((value for value in values if value is not None), None)

    def _vae(self) -> str | None:
        values = [self._value(node, "vae_name") for node in self._nodes.values()]
        return next((self._file(value) for value in values if isinstance(value, str)), None)

    @staticmethod
    def _file(name: Any) -> str | None:
        """A file's name without its folder, on Windows, too."""
        return re.split(r"[/\\]", name)[-1] if isinstance(name, str) else None

    def _way(self, node: Node | None, onward: tuple[str, ...] = _POSITIVE) -> Iterator[Node]:
        """A node and those that it got its input from, one by one; samplers end it."""
        for _ in range(_LONGEST_WAY):
            if node is None:
                return
            yield node
            if node["class_type"] in _SAMPLERS:
                return
            found = (self._node(node, name) for name in onward)
            node = next((one for one in found if one is not None), None)

    def _node(self, node: Node, name: str) -> Node | None:
        """The node that gives an input, None for a value."""
        link = node["inputs"].get(name)
        return self._nodes.get(str(link[0])) if isinstance(link, list) and link else None

    def _value(self, node: Node, name: str) -> str | int | float | None:
        """An input's value; that of another node, if it is one that holds a value."""
        given = node["inputs"].get(name)
        if not isinstance(given, list):
            return given if isinstance(given, str | int | float) else None
        source = self._node(node, name)
        held = source["inputs"] if source else {}
        return next(
            (held[one] for one in _VALUES if isinstance(held.get(one), str | int | float)), None
        )
