"""The installed models, as plain values: recipes never look into models/ themselves."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any

from picowatch.families import FAMILIES
from picowatch.families.row import DEMO, Variant
from picowatch.recipe.messages.suggestions import squeezed
from picowatch.recipe.prompts.grammar import BREAK, without_loras

MAX_SIDE = 4096  # pixels, after hires
# The folders of each kind: ours, and those of A1111, Forge, ComfyUI, SwarmUI and Stability Matrix.
MODEL_FOLDERS: dict[str, tuple[str, ...]] = {
    "checkpoint": (
        *("checkpoints", "Stable-diffusion", "Stable-Diffusion", "StableDiffusion"),
        *("diffusion_models", "DiffusionModels", "unet"),
    ),
    "vae": ("vae", "VAE"),
    "text_encoder": ("text_encoders", "text_encoder", "clip", "TextEncoders"),
    "lora": ("loras", "Lora", "LyCORIS"),
    "embedding": ("embeddings", "Embeddings"),
    "upscaler": ("upscalers", "ESRGAN", "RealESRGAN", "upscale_models"),
    # ComfyUI's own, and those of nodes around rembg.
    "cutout": ("cutout", "background_removal", "rembg", "u2net", "RMBG"),
    "controlnet": ("controlnet", "ControlNet"),
    "depth": ("depth",),
    # ComfyUI's nodes, and those of A1111's ADetailer, whose models are refused.
    "segmentation": ("segmentation", "grounding-dino", "sams", "clip_seg", "adetailer"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRules(Variant):
    """The rules of one variant of a family, with what the family's row says of all."""

    multiple: int = 8  # sides are multiples of it
    max_side: int = MAX_SIDE  # sides are at most so long
    # One of diffusers' pipelines renders it, with no other samplers than `samplers`, and encodes
    # the prompt's text itself, so weights, BREAK and prompt editing are for other families; nearly
    # all are flow-matching models.
    flow: bool = False
    lightning: bool = False  # LoRAs of that name bring their own noise levels


@cache
def rules_of(family: str, variant: str = "") -> FamilyRules:
    """Return the rules of a family's variant, or of the family if the variant is unknown."""
    row = FAMILIES[family]
    entry = row.variant(variant)
    own = {field.name: getattr(entry, field.name) for field in fields(entry)}
    if entry.samplers:
        own["defaults"] = {"sampler": entry.samplers[0], **entry.defaults}
    return FamilyRules(
        **own,
        multiple=row.size_multiple,
        max_side=entry.largest or MAX_SIDE,
        flow=row.kind != "unet",
        lightning=bool(row.lightning),
    )


def is_called(variant: str, text: str) -> bool:
    """Return whether a text names a variant, by all or the last of its words: "edit-2511"."""
    words = [squeezed(word) for word in re.split(r"[\W_]+", variant)]
    return squeezed(text) in {"".join(words[first:]) for first in range(len(words))}


def family_called(text: str) -> str:
    """Return the family with a row that has this key or name, however it is written, or ""."""
    called, rows = squeezed(text), FAMILIES.values()
    return next((r.key for r in rows if called in (squeezed(r.key), squeezed(r.name))), "")


UNET = rules_of("sd1")
DEMO_RULES = rules_of(DEMO)


_WORD = re.compile(r"(?<!\w)[^\W\d_]{2,}(?!\w)")
# Wildcards, and ComfyUI's way to name an embedding: if none has the name, another warning says so.
_NO_WORDS = re.compile(
    r"__[^\s_][\w/.*~@-]*?__|(?<![\w-])(?i:embedding):[^\s,()\[\]:<>{}|]*|" + BREAK
)
# Words that show nothing: no picture is worse for them.
_CONNECTING = {
    "an", "and", "are", "as", "be", "by", "for", "from", "has", "have", "he", "her", "his", "is",
    "it", "its", "my", "one", "or", "our", "she", "some", "that", "the", "their", "there",
    "these", "they", "this", "those", "very", "was", "were", "who", "your",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class KnownWords:
    """All `words` that a model was taught, in lower case, and the `subjects` among them."""

    subjects: tuple[str, ...]
    words: frozenset[str]

    def and_names(self, names: Sequence[str]) -> "KnownWords":
        """Return the words together with those in these names of embeddings."""
        return replace(self, words=self.words.union(*map(_words, names))) if names else self

    def unknown_in(self, prompt: str) -> Iterator[str]:
        """Yield the prompt's unknown words, in lower case."""
        words = _words(_NO_WORDS.sub(" ", without_loras(prompt)))
        return (w for w in words if w not in self.words and w not in _CONNECTING)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


@dataclass(frozen=True, slots=True)
class Checkpoint:
    name: str
    native_size: int  # the side of its square, in pixels
    text_layers: int = 12  # of its text encoder: clip_skip cannot skip more
    family: str = ""  # its name: LoRAs and embeddings of another family do not fit
    rules: FamilyRules = UNET
    prediction: str = ""  # for recipes that set none; "" means what its file says
    says_prediction: bool = True  # its file, its weights or its family say what it predicts
    text_width: int = 0  # of the text embeddings that its UNet reads, 0 if unknown
    known_words: KnownWords | None = None  # all that it was taught, where that is known
    hash: str = ""  # the sha256 of its file, where that is known


# Used where a recipe draws nothing, or names a checkpoint that is not installed. The latter is
# reported; what else would suit that checkpoint is unknown, so NO_CHECKPOINT accepts all.
NO_CHECKPOINT = Checkpoint("", 512, text_layers=99, rules=FamilyRules())


@dataclass(frozen=True, slots=True)
class ControlNet:
    """An installed ControlNet; a union of several knows the first `kinds` values of `kind`."""

    name: str
    family: str
    text_width: int = 0
    kinds: int = 0

    def fits(self, checkpoint: Checkpoint) -> bool:
        """Whether it fits a checkpoint, by text embeddings' width; the smallest read no text."""
        if checkpoint is NO_CHECKPOINT:
            return True
        if self.text_width and checkpoint.text_width:
            return self.text_width == checkpoint.text_width
        return self.family == checkpoint.family


@dataclass(frozen=True, slots=True)
class Upscaler:
    """An installed upscaler: its name, and the factor by which it enlarges a side."""

    name: str
    scale: int


DEMO_UPSCALER = Upscaler("demo-compact", 4)
DEMO_CUTOUT, DEMO_FIND = "demo-cutout", "demo-find"


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything that a recipe may name. The embedded models are always there."""

    demo: Checkpoint
    checkpoints: tuple[Checkpoint, ...] = ()
    # Of checkpoints whose files do not tell theirs: for each the checkpoint, or why it cannot be
    # used so, as in {"my-merge": {"FLUX.1 dev": …}}.
    variants: Mapping[str, Mapping[str, Checkpoint | str]] = field(default_factory=dict)
    vaes: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    upscalers: tuple[Upscaler, ...] = ()
    cutouts: tuple[str, ...] = ()
    # The families that each file is for, where it tells them; so for LoRAs and embeddings.
    vae_families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    controlnets: tuple[ControlNet, ...] = ()
    depths: tuple[str, ...] = ()
    segmentations: tuple[str, ...] = ()  # the best first
    lora_families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    embedding_families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lora_names: Mapping[str, str] = field(default_factory=dict)  # that trainers gave LoRAs
    wildcards: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the lines of each file
    # Why each file is unusable, by kind and name.
    refused: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    default_checkpoint: str | None = None  # the setting `checkpoint`
    unusable_checkpoint: str = ""  # why one of the installed checkpoints cannot be used
    findable: KnownWords | None = None  # that DEMO_FIND knows
    # The names of what was looked up, by kind and name.
    found: dict[tuple[str, str | None], str] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    # The kinds and names that could not be found.
    missed: set[tuple[str, str | None]] = field(
        default_factory=set, init=False, repr=False, compare=False
    )

    def embedded(self, kind: str) -> Any:
        """The model of a kind that is always there; None for kinds without such a model."""
        always = {"upscaler": DEMO_UPSCALER, "cutout": DEMO_CUTOUT, "segmentation": DEMO_FIND}
        return self.demo if kind == "checkpoint" else always.get(kind)

    def named(self, kind: str) -> dict[str, Any]:
        """The models of a kind by their names, the embedded model last."""
        models = [*getattr(self, f"{kind}s"), *filter(None, [self.embedded(kind)])]
        return {getattr(model, "name", model): model for model in models}

    def refused_as(self, kind: str) -> Mapping[str, str]:
        return self.refused.get(kind, {})

    def refused_anywhere(self) -> dict[str, str]:
        return {name: why for files in self.refused.values() for name, why in files.items()}
