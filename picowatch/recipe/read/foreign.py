"""Other programs' settings as fields of a recipe, with warnings about the rest.

All readers of other programs' texts fill `ForeignSettings`. Those of Fooocus, InvokeAI 3 and later,
SwarmUI and picoDiffusion are read here, by one table. Sources:
https://github.com/lllyasviel/Fooocus, modules/meta_parser.py (FooocusMetadataParser);
https://github.com/invoke-ai/InvokeAI, invokeai/app/invocations/metadata.py;
https://github.com/mcmonkeyprojects/SwarmUI, docs/Image Metadata Format.md.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from picowatch.recipe.converters import MAX_SEED, NOISE_NAMES
from picowatch.recipe.fields import CHECKPOINT_HASH, EMBEDDINGS, PROMPTS
from picowatch.recipe.messages.other_programs import OFF_WORDS
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.wording import MAX_WARNINGS, left_out
from picowatch.recipe.prompts.grammar import DYNAMIC, is_json
from picowatch.recipe.prompts.wildcards import parse
from picowatch.recipe.read.decoding import unix_line_ends
from picowatch.recipe.written import FORBIDDEN, Entry, Position, plain_number, written_at

# Programs with longer seeds draw noise on the CPU, where torch uses the lower 32 bits.
_LONG_SEED = re.compile(r"[0-9]{10,20}")
_WILDCARD = re.compile(r"\\.|\{|__", re.DOTALL)
_BRACKET = re.compile(r"(?<!\\)[\[\]]")
# The exceptions that a damaged or hostile file may cause in code that expects a good file.
DAMAGE = (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError)


def visible(text: str) -> str:
    """Return the text as a recipe can hold it: with "\\n" as line ends, and nothing invisible."""
    text = unix_line_ends(text)
    return FORBIDDEN.sub(lambda sign: " " if sign[0].isspace() else "", text).rstrip("\n")


def final(prompt: str) -> str:
    """Escape wildcards in a picture's prompt, and what is like them: they were drawn already."""
    if is_json(prompt) or not (parse(prompt, {}) != (prompt,) or DYNAMIC.search(prompt)):
        return prompt
    return _WILDCARD.sub(lambda m: m[0] if m[0][0] == "\\" else f"\\{m[0]}", prompt)


class ForeignSettings:
    """The fields of a recipe that another program's settings give, with warnings.

    `missed` are warnings about fields that were not found, unless another source gives them.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.missed: dict[str, str] = {}
        self.warnings: list[str] = []

    def put(self, field: str, value: object, name: str = "") -> None:
        """Set a field's value, unless it is None; another value stays, with a warning."""
        if value is None:
            return
        if not isinstance(value, str | int | float):
            raise TypeError(field)
        if isinstance(value, float):
            text = plain_number(value)
        else:
            text = str(value).lower() if isinstance(value, bool) else visible(str(value))
        if field in ("seed", "variation_seed") and _LONG_SEED.fullmatch(text):
            seed = int(text) % (MAX_SEED + 1)
            if MAX_SEED < int(text) < 2**64:
                what = f"the seed {text} has more than 32 bits; {seed} is used instead"
                self.warn(f"{what}, which gives the same noise on a CPU.")
                text = str(seed)
        first = self.values.setdefault(field, text)
        if first != text and text.casefold() not in OFF_WORDS:
            self.warn(f"{shown(name or field)} is given twice; {shown(first)} is used.")

    def put_lora(self, name: object, weight: object) -> None:
        """Add a LoRA with its weight; 1 if it has none."""
        if isinstance(name, str) and name and name.casefold() != "none":
            self.values.setdefault("loras", {})[name] = 1 if weight is None else weight

    def put_prompt(self, field: str, text: str, embedding: re.Pattern[str]) -> None:
        """Set a prompt in which brackets mean nothing; `embedding` has a group for bare names."""
        names = [found[1] or "" for found in embedding.finditer(text)]
        if names:
            self.values[EMBEDDINGS] = ",".join([self.values.get(EMBEDDINGS, ""), *names])
        text = visible(embedding.sub(lambda found: found[1] or "", text))
        if text or field == "prompt":
            self.values[field] = _BRACKET.sub(r"\\\g<0>", text)

    def miss_start_image(self) -> None:
        self.warn("the start image is not inside the picture; 'image: …' in the recipe names one.")

    def leave_out(self, name: str, value: object) -> None:
        """Warn that a setting is ignored, unless its value means off."""
        if value is not None and str(value).strip().casefold() not in OFF_WORDS:
            self.warn(left_out(f"{name}: {value}"))

    def warn(self, message: str) -> None:
        if message and len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(message)

    def entry(self, position: Position, given: Collection[str] = ()) -> Entry:
        """Return the fields as an entry, all at one position, without the `given` ones."""
        hidden = {name: self.values.get(name, "") for name in (CHECKPOINT_HASH, EMBEDDINGS)}
        said = {*filter(self.values.get, self.values), *given}
        said |= {"size"} if {"width", "height"} <= said else set()
        if hidden[CHECKPOINT_HASH] and "checkpoint" not in said:
            model = f"The model with the hash {shown(hidden[CHECKPOINT_HASH])}"
            how = "as 'Model: …' (in a recipe, 'checkpoint: …')."
            remedy = f"Write its name in models/checkpoints {how}"
            self.warn(f"{model} has no name; the default checkpoint is used. {remedy}")
        missed = (  # that nothing gives; a given prompt has all of its texts
            warning
            for field, warning in self.missed.items()
            if field not in said and field.partition(" ")[0] not in given
        )
        left = {name: v for name, v in self.values.items() if name not in {*hidden, *given}}
        return Entry(
            {name: written_at(position, value) for name, value in left.items()},
            position,
            (*missed, *self.warnings),
            by_another_program=True,
            checkpoint_hash=hidden[CHECKPOINT_HASH],
            embeddings=hidden[EMBEDDINGS],
        )


# -- programs with settings by keys


def settings_of(texts: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
    """Return the program that wrote a picture's texts, and its settings. Raises any of DAMAGE."""
    if texts.get("generator", "").casefold() == "picodiffusion":
        lora = [[texts.get("lora"), texts.get("lora_weight")]]
        return "picoDiffusion", {**texts, "loras": lora, "clip_skip": "2"}  # always A1111's 3
    for name, (keyword, sign, prepared) in _SIGNS.items():
        text = texts.get(keyword, "")
        if text.lstrip().startswith("{") and sign in text:
            return name, prepared(json.loads(text))
    return None


def _of_fooocus(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without prompts before styles, and the clip skip that SDXL always has."""
    own = {"prompt", "negative_prompt", "clip_skip"}
    if settings.get("refiner_model") in ("None", "", None):
        own |= {"refiner_model", "refiner_switch"}
    return {name: value for name, value in settings.items() if name not in own}


def _of_swarmui(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with a sampler, as SwarmUI's ComfyUIBackendExtension.cs chooses it."""
    settings = settings["sui_image_params"]
    usual = {"sampler": settings.get("comfyuisampler") or "euler"}
    return {**usual, "scheduler": settings.get("comfyuischeduler"), **settings}


def _of_invokeai(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with their sampler, and the schedule type that it implies.

    Those of what is off (`hidiffusion: false`) and style prompts that repeat a prompt are left out.
    """
    values = [(key, value) for key, value in settings.items() if not key.endswith("_prompt")]
    is_off = [key for key, value in values if value is False or value in ("off", "auto")]
    off = tuple(key.removesuffix("_enabled") for key in is_off)
    settings = {key: value for key, value in settings.items() if not key.startswith(off)}
    for sign in ("positive", "negative"):
        if settings.get(f"{sign}_style_prompt") == settings.get(f"{sign}_prompt"):
            settings.pop(f"{sign}_style_prompt", None)
    sampler, mode = str(settings.pop("scheduler", None) or ""), settings.get("generation_mode")
    if sampler.endswith("_k"):
        sampler = f"{sampler.removesuffix('_k')}_karras"
    elif sampler and str(mode).startswith(_STABLE_DIFFUSION):
        settings["scheduler"] = "leading"
    if settings.get("seamless_x") is True and settings.get("seamless_y") is True:
        del settings["seamless_x"], settings["seamless_y"]
        settings["seamlesstileable"] = True
    return {**settings, "sampler": sampler}


def read_settings(program: str, settings: dict[str, Any], found: ForeignSettings) -> None:
    """Read the settings that have a field; warn about others, unless they change no pixel."""
    for name, weight in _loras(settings):
        found.put_lora(name, weight)
    for key, value in settings.items():
        field = _KEYS.get(key)
        meant = _MEANINGS[field](value) if field in _MEANINGS and value not in (None, "") else value
        if field and meant not in (None, ""):
            found.put(field, meant)
        elif key not in _INFORMATION and not key.startswith("lora_combined_"):
            found.leave_out(key, value)
    if not found.values.get("variation_strength"):
        found.values.pop("variation_seed", None)
    if "denoising_strength" in found.values:
        found.miss_start_image()
    for field in PROMPTS:
        found.put_prompt(field, found.values.pop(field, ""), _EMBEDDING)
    prompts = [found.values.get(field, "") for field in PROMPTS]
    if program == "InvokeAI" and any(map(_COMPELS_WEIGHT.search, prompts)):
        found.warn("InvokeAI's weights (word+, (words)1.2) are read as words: write (word:1.2).")
    for tag in sorted(set(_TAGS.findall(prompts[0]))):
        found.leave_out("prompt", f"<{tag}:…>")


def _loras(settings: dict[str, Any]) -> Iterator[tuple[object, object]]:
    """Yield LoRAs and weights, from pairs, mappings, or texts with commas."""
    weights = _listed(settings.get("loraweights"))
    for index, lora in enumerate(_listed(settings.get("loras"))):
        if isinstance(lora, str):
            yield lora, weights[index] if index < len(weights) else None
        elif isinstance(lora, Mapping):
            yield _name(lora.get("model") or lora.get("lora")), lora.get("weight")
        else:
            yield lora[0], lora[1]


def _listed(value: object) -> list[Any]:
    """Return a list, which may be written as text with commas."""
    if isinstance(value, str):
        return [piece.strip() for piece in value.split(",") if piece.strip()]
    return list(value) if isinstance(value, list) else []


def _name(model: object) -> object:
    """Return a model's name; InvokeAI's is in a mapping, with another key before version 4."""
    return model.get("name") or model.get("model_name") if isinstance(model, Mapping) else model


def _joined(prompt: object) -> object:
    """Return the prompt; Fooocus has a list of its lines and those of the styles."""
    return ", ".join(map(str, prompt)) if isinstance(prompt, list) else prompt


def _clip_skip(layers: Any) -> int:
    """Return A1111's clip skip: SwarmUI's -2 and InvokeAI's 1 are A1111's 2."""
    return abs(int(layers)) if int(layers) < 0 else int(layers) + 1


# https://github.com/damian0815/compel, doc/syntax.md: `word++`, `(some words)1.2`.
_COMPELS_WEIGHT = re.compile(r"\w(?:\+|--)|\)(?:[\d+-]|\.\w)")
# InvokeAI's `<name>`, SwarmUI's `<embed:folder/name.safetensors>`.
_EMBEDDING = re.compile(
    r"<(?!break>)(?:embed(?:ding)?:)?(?:[^<>:/]*/)*([\w., -]+?)(?:\.safetensors|\.pt|\.bin)?>"
)
_TAGS = re.compile(r"<(?!lora:|break)([a-z]{3,20})[:>\\]")
_STABLE_DIFFUSION = ("txt2img", "img2img", "inpaint", "outpaint", "sdxl_")
# The keyword of the text with the settings as JSON, a part of it that only this program writes, and
# what prepares the settings.
_SIGNS = {
    "Fooocus": ("parameters", '"full_prompt"', _of_fooocus),
    "SwarmUI": ("parameters", '"sui_image_params"', _of_swarmui),
    "InvokeAI": ("invokeai_metadata", "", _of_invokeai),
}
# The fields by all of these programs' keys.
_KEYS = {
    "prompt": "prompt", "full_prompt": "prompt", "positive_prompt": "prompt",
    "negative_prompt": "negative_prompt", "full_negative_prompt": "negative_prompt",
    "negativeprompt": "negative_prompt", "checkpoint": "checkpoint", "base_model": "checkpoint",
    "model": "checkpoint", "vae": "vae", "sampler": "sampler", "scheduler": "schedule_type",
    "steps": "steps", "cfg": "cfg_scale", "cfgscale": "cfg_scale", "cfg_scale": "cfg_scale",
    "guidance_scale": "cfg_scale", "cfg_rescale_multiplier": "cfg_rescale", "guidance": "guidance",
    "fluxguidancescale": "guidance", "resolution": "size", "width": "width", "height": "height",
    "seed": "seed", "variationseed": "variation_seed", "rand_device": "noise",
    "variationseedstrength": "variation_strength", "seamlesstileable": "tiling",
    "clip_skip": "clip_skip", "clipstopatlayer": "clip_skip", "strength": "denoising_strength",
    "initimagecreativity": "denoising_strength",
}  # fmt: skip
# The conversions of values that a recipe writes differently.
_MEANINGS: dict[str, Callable[[Any], object]] = {
    "prompt": _joined,
    "negative_prompt": _joined,
    "checkpoint": _name,
    "vae": _name,
    "size": lambda text: "x".join(re.findall("[0-9]+", text)),  # "(768, 1280)"
    "noise": lambda device: NOISE_NAMES.get(str(device)),
    "tiling": lambda tiled: str(tiled).casefold() == "true" or None,
    "clip_skip": _clip_skip,
    "variation_strength": lambda text: text if float(text) else None,
}
# Keys that change no pixel or repeat another key.
_INFORMATION = {
    *("styles", "base_model_hash", "refiner_model_hash", "version", "created_by", "loraweights"),
    *("metadata_scheme", "performance", "prompt_expansion", "generator", "loras", "lora"),
    *("swarm_version", "swarmversion", "images", "aspectratio", "sidelength", "automaticvae"),
    *("nopreviews", "wildcardseed", "wildcardseedbehavior", "imageformat", "date", "batchsize"),
    *("generation_time", "prep_time", "original_prompt", "original_negativeprompt", "donotsave"),
    *("used_wildcards", "internalbackendtype", "exactbackendid", "modelspecificenhancements"),
    *("personalnote", "used_embeddings", "unused_parameters", "loratencweights", "colordepth"),
    *("colorcorrectionbehavior", "presets", "outpathoverride", "vaetilesize", "vaetileoverlap"),
    *("comfyuisampler", "comfyuischeduler", "initimage", "app_version", "canvas_v2_metadata"),
    *("generation_mode", "lora_weight"),
}
