"""ComfyUI's workflow in a picture: the values in its nodes.

ComfyUI stores the workflow that it ran as JSON under `prompt`, Civitai in a JPEG's user comment:
nodes by number, each with its class and its inputs; an input is a value, or the number of the node
that provides it (https://github.com/comfyanonymous/ComfyUI, nodes.py, comfy_extras). A workflow can
do much that a recipe cannot. It is read from the sampler back to its prompts, model and size. Nodes
are known by their inputs, so nodes of extensions are read if they use the common names; the rest is
named in warnings.
"""

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from picowatch.errors import PictureUnreadable
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import left_out
from picowatch.recipe.read.found import Found

Node = Mapping[str, Any]

_POSITIVE, _NEGATIVE = "positive", "negative"
_SIGNED = {
    sign: re.compile(rf"(?:^|[_ .]){sign[:3]}(?:itive|ative)?(?:$|[_ .])")
    for sign in (_POSITIVE, _NEGATIVE)
}
# A sampler's inputs for prompts.
_PROMPTS = {
    _POSITIVE: (_POSITIVE, "conditioning"),
    _NEGATIVE: (_NEGATIVE, "neg_conditioning"),
}
_SIDE_FIELDS = ("width", "height")
_SIZE = re.compile(r"size|dimension|ratio|resolution")
_SIDES = re.compile(r"\b(\d{2,5}) ?[x×] ?(\d{2,5})\b")
# Inputs to follow through nodes that change a prompt or a latent.
_CONDITIONING = ("conditioning", "conditioning_1", "conditioning_to")
_LATENT = ("samples", "latent", "latent_image")
# Inputs whose text is the prompt, the likeliest first; and patterns of those that may lead to one.
_ENCODED = ("text", "t5xxl", "text_g", "clip_l", "text_l", "prompt")
_TEXT = re.compile(r"text|prompt|string|value|wildcard|^(?:any|input)")
_NO_TEXT = re.compile(r"delimiter|separator|filename|path")
# Inputs that hold the value of a node whose output is a number or text.
_VALUES = ("value", "seed", "noise_seed", "text", "string", "int", "float", "number", "prompt")
_CHECKPOINTS = ("ckpt_name", "unet_name", "model_name", "model_path", "base_ckpt_name")
# With a folder, also in Windows' form, and an ending; a backslash before a bracket is an escape.
_EMBEDDING = re.compile(
    r"embedding:(?:[^\s,()\[\]:]*[/\\](?![()\[\]]))?"
    r"(?:(?P<name>[^\s,()\[\]:/\\]+?)(?:\.safetensors|\.pt|\.bin)?(?=[\s,()\[\]:]|$))?"
)
_ZEROED = "ConditioningZeroOut"
# https://github.com/rgthree/rgthree-comfy; its inputs are mappings of on, lora and strength.
_SEVERAL_LORAS = "Power Lora Loader (rgthree)"
# Nodes with links, but nothing to read; ModelSamplingFlux does what FLUX.1 needs anyway.
_PLAIN = {
    *(_ZEROED, "VAEEncode", "VAEDecode", "VAEDecodeTiled", "Reroute", "SaveImage", "BasicGuider"),
    *("ModelSamplingFlux", "TorchCompileModel"),
}
_MOST_NODES = 2000
_MOST_PASSED = 50


def comfyui_in(texts: Mapping[str, str]) -> str:
    """Return the workflow in a picture's texts, or ""."""
    found = (texts.get(keyword, "") for keyword in ("prompt", "parameters"))
    return next(
        (text for text in found if text.lstrip().startswith("{") and '"class_type"' in text), ""
    )


def read_comfyui(workflow: str, found: Found) -> None:
    """Read the settings, and warn about what was not read. Raises PictureUnreadable."""
    nodes = json.loads(workflow)
    if len(nodes) > _MOST_NODES:
        raise PictureUnreadable(f"its workflow has more than {_MOST_NODES:,} nodes.")
    # Civitai puts other things beside the nodes.
    nodes = {n: one for n, one in nodes.items() if isinstance(one, dict) and "class_type" in one}
    _Workflow(nodes, found).read()


def _is_sampler(node: Node) -> bool:
    """Return whether a node is a sampler: it has prompts, and steps or noise levels."""
    inputs = node["inputs"]
    prompts = [inputs.get(name) for name in _PROMPTS[_POSITIVE]]
    return "guider" in inputs or (
        any(isinstance(one, list) for one in prompts) and ("steps" in inputs or "sigmas" in inputs)
    )


class _Workflow:
    """The nodes of a workflow, read from its sampler back."""

    def __init__(self, nodes: Mapping[str, Node], found: Found) -> None:
        self._nodes = {str(number): node for number, node in nodes.items()}
        self._found = found
        self._read: set[int] = set()  # the nodes that gave a value
        self._last = ""  # the class of the last node searched for a prompt

    def read(self) -> None:
        """Read the values of a recipe's fields."""
        sampler = self._first_sampler()
        parts = [sampler, *self._behind([sampler], "guider", "sigmas", "sampler", "noise")]
        starts = {sign: self._behind(parts, *names)[:1] for sign, names in _PROMPTS.items()}
        way = list(self._upstream(starts[_POSITIVE], _POSITIVE, *_CONDITIONING, "clip"))
        skipped = self._first(way, "stop_at_clip_layer", "clip_skip")
        values = {
            "steps": self._first(parts, "steps"),
            "cfg_scale": self._first(parts, "cfg"),
            "guidance": self._first(way, "guidance"),
            "clip_skip": None if skipped is None else abs(int(skipped)),
            "vae": self._vae(),
            "sampler": self._first(parts, "sampler_name"),
            "schedule_type": self._first(parts, "scheduler"),
            "seed": self._first(parts, "noise_seed", "seed"),
        }
        self._put_prompt("prompt", starts[_POSITIVE], _POSITIVE)
        self._put_prompt("negative_prompt", starts[_NEGATIVE], _NEGATIVE)
        for field, value in values.items():
            self._found.put(field, value)
        self._put_size(sampler, self._first(parts, "denoise"))
        self._put_models(self._behind(parts, "model")[:1])
        self._warn_of_unread(sampler)

    def _first_sampler(self) -> Node:
        """Return the sampler that starts from an empty picture; others continue its work."""
        samplers = [node for node in self._nodes.values() if _is_sampler(node)]
        if not samplers:
            raise PictureUnreadable(
                "its workflow from ComfyUI has no node like KSampler, with 'positive' and 'steps'.",
                "Write the settings into a recipe.",
            )
        if len(samplers) > 1:
            self._found.warn(
                f"The workflow has {len(samplers)} samplers; only the first one was read."
            )
        return next((one for one in samplers if self._empty(one)), samplers[0])

    def _empty(self, sampler: Node) -> Node | None:
        """Return the node of the empty picture that a sampler starts from; None for another one."""
        *_, last = None, *self._upstream(self._behind([sampler], *_LATENT)[:1], *_LATENT)
        if last is None or _is_sampler(last):
            return None
        return last if {"pixels", "image", "images"}.isdisjoint(last["inputs"]) else None

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
        # A node that offers sizes as texts may also have sides, which do not count.
        source = self._node(empty, "width") or empty
        sizes = (str(value) for name, value in source["inputs"].items() if _SIZE.search(name))
        found = next(filter(None, map(_SIDES.search, sizes)), None)
        named = [next((n for n in empty["inputs"] if n.endswith(s)), s) for s in _SIDE_FIELDS]
        sides = found.groups() if found else [self._value(empty, name) for name in named]
        self._read |= {id(empty), id(source)}
        for field, side in zip(_SIDE_FIELDS, sides, strict=True):
            self._found.put(field, side)
        if None in sides:
            self._found.warn(
                f"The size was not found in the workflow's node {shown(empty['class_type'])}; "
                "'size: …' in the recipe sets one."
            )

    def _put_models(self, start: list[Node]) -> None:
        """Read the checkpoint's file, and the LoRAs on the way to it."""
        for one in self._upstream(start, "model"):
            for name, weight, of_text in self._loras(one):
                if isinstance(name, str) and name != "None":
                    self._found.put_lora(_file(name), weight)
                    if of_text not in (None, weight):
                        self._found.warn(left_out(f"strength_clip: {of_text}"))
            checkpoint = self._first([one], *_CHECKPOINTS)
            if str(checkpoint).startswith("urn:"):
                self._found.warn(
                    f"Civitai does not say which file the checkpoint {shown(str(checkpoint))} is; "
                    "the default one is used. Write 'checkpoint: …'."
                )
            elif checkpoint is not None:
                self._found.put("checkpoint", _file(checkpoint))
            if checkpoint is not None:
                return

    def _loras(self, node: Node) -> Iterator[tuple[Any, ...]]:
        """Yield a node's LoRAs, with their weights for the model and for its text encoders."""
        weight = self._first([node], "strength_model", "lora_model_strength")
        yield self._value(node, "lora_name"), weight, self._value(node, "strength_clip")
        if node["class_type"] == _SEVERAL_LORAS:
            self._read.add(id(node))
            for entry in node["inputs"].values():
                if isinstance(entry, dict) and entry.get("on") is True:
                    yield tuple(map(entry.get, ("lora", "strength", "strengthTwo")))

    def _vae(self) -> str | None:
        """Return the decoder's VAE; without such a link, that of any node that loads one."""
        decoders = [node for node in self._nodes.values() if "samples" in node["inputs"]]
        loaders = self._behind(decoders, "vae") or list(self._nodes.values())
        found = (self._value(node, "vae_name") for node in loaders)
        return next((_file(one) for one in found if one not in (None, "Baked VAE")), None)

    def _put_prompt(self, field: str, start: list[Node], sign: str) -> None:
        """Read the text that a prompt was encoded from, or warn about the node that hides it."""
        text = None if start else ""
        for node in self._upstream(start, sign, *_CONDITIONING):
            text = "" if node["class_type"] == _ZEROED else self._text(node, sign, ())
            if text is not None:
                break
        if text is None:
            self._found.warn(
                f"The {sign} prompt was not found: the workflow's node {shown(self._last)} was not "
                "read."
            )
        self._found.put_prompt(field, text or "", _EMBEDDING)

    def _text(self, node: Node, sign: str, passed: tuple[Node, ...]) -> str | None:
        """Return a node's text, or that of the nodes behind its text inputs; None without any.

        Inputs named for the prompt's sign come first, then those that are encoded.
        """
        if node in passed or len(passed) > _MOST_PASSED or _is_sampler(node):
            return None
        self._last = str(node["class_type"])
        (other,) = {_POSITIVE, _NEGATIVE} - {sign}
        names = [name for name in node["inputs"] if not _SIGNED[other].search(name)]
        signed = [name for name in names if _SIGNED[sign].search(name)]
        encoded = [name for name in _ENCODED if name in names]
        others = [n for n in names if _TEXT.search(n) and not _NO_TEXT.search(n)]
        for group in ([*signed, *encoded], others):
            given = (self._text_of(node, name, sign, (*passed, node)) for name in group)
            texts = [text for text in given if text is not None]
            if texts and group is not others:
                self._read |= set() if signed else {id(node)}
                return next(filter(None, texts), "")
        self._read |= {id(node)} if others and len(texts) < 2 else set()
        return ", ".join(filter(None, texts)) or None

    def _text_of(self, node: Node, name: str, sign: str, passed: tuple[Node, ...]) -> str | None:
        if source := self._node(node, name):
            return self._text(source, sign, passed)
        given = node["inputs"][name]
        return given.strip() if isinstance(given, str) else None

    def _warn_of_unread(self, sampler: Node) -> None:
        """Warn about unknown nodes between files and picture that may change it.

        Nodes without a link only provide values, which are read or not needed.
        """
        savers = [node for node in self._nodes.values() if "filename_prefix" in node["inputs"]]
        between = [*self._upstream(savers), *self._upstream(self._behind([sampler]))]
        unread = {
            shown(str(node["class_type"]))
            for node in between
            if self._behind([node])
            and not (id(node) in self._read or node["class_type"] in _PLAIN or _is_sampler(node))
        }
        if unread:
            self._found.warn(
                "These nodes of the workflow were not read and may change the picture: "
                f"{listed(sorted(unread))}."
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
        found = (self._node(one, name) for one in nodes for name in names or one["inputs"])
        return list(filter(None, found))

    def _node(self, node: Node, name: str) -> Node | None:
        """Return the node that provides an input, None for a value."""
        link = node["inputs"].get(name)
        return self._nodes.get(str(link[0])) if isinstance(link, list) and link else None

    def _first(self, nodes: list[Node], *names: str) -> str | int | float | None:
        """Return the first value with one of these names."""
        values = (self._value(node, name) for node in nodes for name in names)
        return next((value for value in values if value is not None), None)

    def _value(self, node: Node, name: str) -> str | int | float | None:
        """Return an input's value, its own or that of the node it is linked to."""
        source = self._node(node, name)
        held = source["inputs"] if source else node["inputs"]
        found = (held.get(one) for one in ((name, *_VALUES) if source else (name,)))
        value = next((one for one in found if isinstance(one, str | int | float)), None)
        if value is not None:
            self._read |= {id(node), id(source)}
        return value


def _file(name: object) -> str:
    """Return a file's name without its folder, also for Windows' paths."""
    return re.split(r"[/\\]", str(name))[-1]
