"""The installed models, as plain values: recipes never look into models/ themselves."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from picowatch.families import DEMO, FAMILIES, References
from picowatch.recipe.fields import DEFAULTS
from picowatch.recipe.messages.suggestions import squeezed
from picowatch.recipe.prompts.known_words import KnownWords

MAX_SIDE = 4096  # pixels, after hires


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one family, or one variant: see `Family` and `Variant`.

    Sides are multiples of `multiple`, and `max_side` at most. `flow`: a pipeline of diffusers
    renders it, as a rule along a flow from noise to picture, with the samplers in `samplers` alone,
    from the prompt's text: weights, BREAK and words that change between the steps are for others.
    `references`: what it does with reference pictures. `lightning`: LoRAs of that name bring their
    own noise levels.
    """

    multiple: int = 8
    max_side: int = MAX_SIDE
    defaults: Mapping[str, Any] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)
    flow: bool = False
    samplers: tuple[str, ...] = ()
    guided: bool = True
    fills: bool = False
    references: References | None = None
    most_start_pixels: int = 0
    lightning: bool = False

    def default(self, name: str) -> Any:
        """Return what a recipe gets that does not say this field."""
        return self.defaults.get(name, DEFAULTS[name])


@cache
def rules_of(family: str, variant: str = "") -> Rules:
    """Return the rules of a family's variant; of the family, where the variant is not known."""
    row = FAMILIES[family]
    one = row.variant(variant)
    return Rules(
        multiple=row.size_multiple,
        max_side=one.largest or MAX_SIDE,
        defaults=({"sampler": row.samplers[0]} if row.samplers else {}) | dict(one.defaults),
        lacks={**row.lacks, **one.lacks},
        flow=row.kind == "flow",
        samplers=row.samplers,
        guided=one.guided,
        fills=one.fills,
        references=one.references,
        most_start_pixels=one.most_start_pixels,
        lightning=bool(row.lightning),
    )


def is_called(variant: str, text: str) -> bool:
    """Whether "Qwen-Image Edit 2511" is meant: by all of its words, or the last: "edit-2511"."""
    words = [squeezed(word) for word in re.split(r"[\W_]+", variant)]
    return squeezed(text) in {"".join(words[first:]) for first in range(len(words))}


def family_called(text: str) -> str:
    """Return the family that takes LoRAs and has this key or name; "" if none has.

    Case, spaces and marks make no difference.
    """
    takers = [row for row in FAMILIES.values() if row.loras]
    return next(
        (row.key for row in takers if squeezed(text) in map(squeezed, (row.key, row.name))), ""
    )


UNET = rules_of("sd1")
DEMO_RULES = rules_of(DEMO)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that is installed: its name and the side of its native square, in pixels.

    `text_layers` are those of its text encoder: clip_skip cannot leave out more. `zero_snr` says
    that it was trained to begin with pure noise. `family` is the name of what it belongs to:
    LoRAs and embeddings of another one cannot be used with it. `rules` say what else it cannot do.
    `prediction` is what a recipe that says none gets, "" what its file says. `says_prediction`
    tells whether its file, its weights or its family say what it predicts. `text_width` is that
    of the texts that its UNet looks at, 0 where it is not known. `known_words` are all it was
    taught, and `hash` is its file's sha256, where they are known.
    """

    name: str
    native_size: int
    text_layers: int = 12
    zero_snr: bool = False
    family: str = ""
    rules: Rules = UNET
    prediction: str = ""
    says_prediction: bool = True
    text_width: int = 0
    known_words: KnownWords | None = None
    hash: str = ""


# For a recipe that draws nothing, or names a checkpoint that is not installed. That is reported;
# whether the rest would suit the checkpoint is not known, so everything does here.
NO_CHECKPOINT = Checkpoint("", 512, text_layers=99, rules=Rules())


@dataclass(frozen=True, slots=True)
class ControlNet:
    """A ControlNet that is installed: its name, and the name of what it belongs to.

    A union follows the first `kinds` of what a recipe's `kind` can say; others, with 0, one thing.
    """

    name: str
    family: str
    text_width: int = 0
    kinds: int = 0

    def fits(self, checkpoint: Checkpoint) -> bool:
        """The widths of their texts tell all families apart; the smallest look at no text."""
        if checkpoint is NO_CHECKPOINT:
            return True
        if self.text_width and checkpoint.text_width:
            return self.text_width == checkpoint.text_width
        return self.family == checkpoint.family


@dataclass(frozen=True, slots=True)
class Upscaler:
    """An upscaler that is installed: its name, and how much larger it makes a side."""

    name: str
    scale: int


DEMO_UPSCALER = Upscaler("demo-compact", 4)
DEMO_CUTOUT = "demo-cutout"


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that a recipe may name: the installed models, wildcards, the setting `checkpoint`.

    `checkpoints` are those of models/checkpoints, `upscalers` those of models/upscalers,
    `cutouts` those of models/cutout; the embedded ones are always there, as `demo`, DEMO_UPSCALER
    and DEMO_CUTOUT. `depths` are models that guess how far away things are. `vae_families` has the
    names of the families that each VAE is for;
    `lora_families` and `embedding_families` those of the others' families, where their files say
    it. `lora_names` has what a LoRA's trainer called it. `refused` maps the names of files that
    cannot be used to the reason, so that an error can give it, for each kind's folders;
    `refused_embeddings` has those among them whose names are looked for in prompts.
    `wildcards` maps a wildcard file's name (below models/wildcards, without ending) to its lines;
    `wildcard_packs` has the file of those that stand in a YAML file with others.
    `variants` has the checkpoints whose files leave open which variant of their family they are, as
    each of them, or why they cannot be used so: {"my-merge": {"FLUX.1 dev": …}}.
    `unusable_checkpoint` says of one of the installed checkpoints that cannot be used why not.
    """

    demo: Checkpoint
    checkpoints: tuple[Checkpoint, ...] = ()
    variants: Mapping[str, Mapping[str, Checkpoint | str]] = field(default_factory=dict)
    vaes: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    upscalers: tuple[Upscaler, ...] = ()
    cutouts: tuple[str, ...] = ()
    vae_families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    controlnets: tuple[ControlNet, ...] = ()
    depths: tuple[str, ...] = ()
    lora_families: Mapping[str, str] = field(default_factory=dict)
    embedding_families: Mapping[str, str] = field(default_factory=dict)
    lora_names: Mapping[str, str] = field(default_factory=dict)
    wildcards: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    wildcard_packs: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    refused_embeddings: Mapping[str, str] = field(default_factory=dict)
    default_checkpoint: str | None = None
    unusable_checkpoint: str = ""

    def embedded(self, kind: str) -> Any:
        """The model of a kind that is always there; None for kinds without one."""
        if kind == "checkpoint":
            return self.demo
        return {"upscaler": DEMO_UPSCALER, "cutout": DEMO_CUTOUT}.get(kind)

    def named(self, kind: str) -> dict[str, Any]:
        """The models of a kind by their names, the embedded one last."""
        models = [*getattr(self, f"{kind}s"), *filter(None, [self.embedded(kind)])]
        return {getattr(one, "name", one): one for one in models}

    def refused_as(self, kind: str) -> Mapping[str, str]:
        """The refused files in the folders of a kind."""
        return self.refused.get(kind, {})

    def refused_anywhere(self) -> dict[str, str]:
        """The refused files of all kinds."""
        return {name: why for files in self.refused.values() for name, why in files.items()}
