"""The examples of each step of the denoiser's training."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from training.captions import (
    COLOUR_WORDS,
    ONLY_BLURRY,
    caption,
    known_words,
    only_unknown_words,
    pick,
    with_unknown_words,
)
from training.latents import NATIVE, EncodedPictures, Size
from training.networks import KINDS, PROBED
from training.noise import (
    loss_weights,
    noisy_and_target,
    signal_shares,
    spread_timesteps,
    with_decoupled_layout,
)
from training.scenes import (
    COLOURS,
    POSITIONS,
    RELATIONS,
    SIZES,
    AnimalScene,
    Scene,
    ShapeScene,
    Subject,
)
from training.tokenizer import MAX_TOKENS

SEED = 3
BATCH = 16
OTHER_SIZES_SHARE = 0.05
NO_CAPTION_SHARE = 0.12
UNKNOWN_WORDS_SHARE = 0.05
ONLY_UNKNOWN_WORDS_SHARE = 0.015
# Pictures that are called blurry and nothing else though most are sharp: five of six with such a
# caption. Otherwise "blurry" as a negative prompt would push a sharp picture on, until it burns.
ONLY_BLURRY_SHARE = 0.06
KNOWN = frozenset(known_words()["words"])
UNSAID = -100  # cross_entropy's ignore_index


@dataclass(frozen=True)
class Examples:
    """One step's noisy latents, the v to find in them, the captions' tokens and labels."""

    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    tokens: Tensor
    labels: dict[str, Tensor]

    @property
    def weights(self) -> Tensor:
        return loss_weights().to(self.timesteps.device)[self.timesteps]

    def to(self, device: torch.device) -> Examples:
        return Examples(
            self.noisy.to(device),
            self.target.to(device),
            self.timesteps.to(device),
            self.tokens.to(device),
            {name: labels.to(device) for name, labels in self.labels.items()},
        )


def examples_of(
    step: int, pictures: dict[Size, EncodedPictures], tokenizer: CLIPTokenizer
) -> Examples:
    """The examples of one step; they depend on its number and the pictures there are."""
    torch.manual_seed(SEED + step)
    rng = random.Random(f"denoiser {SEED} {step}")
    others = [size for size in pictures if size != NATIVE]
    size = rng.choice(others) if others and rng.random() < OTHER_SIZES_SHARE else NATIVE
    count = BATCH * NATIVE[0] * NATIVE[1] // (size[0] * size[1])
    chosen = [rng.randrange(len(pictures[size].scenes)) for _ in range(count)]
    scenes = [pictures[size].scenes[i] for i in chosen]
    texts = [caption_or_nothing(scene, rng) for scene in scenes]
    labels = [labels_of(scene, text) for scene, text in zip(scenes, texts, strict=True)]
    tokens = tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    clean = pictures[size].sampled(torch.tensor(chosen))
    timesteps = spread_timesteps(count)
    captioned = torch.tensor([bool(text) for text in texts])
    shown = with_decoupled_layout(clean, timesteps, captioned)
    noisy, target = noisy_and_target(clean, shown, signal_shares()[timesteps])
    return Examples(
        noisy,
        target,
        timesteps,
        tokens.input_ids,
        {name: torch.tensor([label[name] for label in labels]) for name in PROBED},
    )


def caption_or_nothing(scene: Scene, rng: random.Random) -> str:
    """Mostly a caption; an eighth is left out, which is what classifier-free guidance needs.

    Some captions have made-up words, or hold nothing else: the tokens of foreign words would
    otherwise never be trained, and a prompt with one would disturb the picture.
    """
    chance = rng.random()
    if chance < NO_CAPTION_SHARE:
        return ""
    if chance < NO_CAPTION_SHARE + ONLY_UNKNOWN_WORDS_SHARE and not scene.blurry:
        return only_unknown_words(rng)
    if rng.random() < ONLY_BLURRY_SHARE:
        return pick(ONLY_BLURRY, rng)
    text = caption(scene, rng)
    return with_unknown_words(text, rng) if rng.random() < UNKNOWN_WORDS_SHARE else text


def labels_of(scene: Scene, text: str) -> dict[str, int]:
    """Labels for the probes; UNSAID where the caption does not say it."""
    labels = dict.fromkeys(PROBED, UNSAID)
    if scene.blurry or not text or all_made_up(text) or text in ONLY_BLURRY:
        return labels
    colours = list(COLOURS)
    if "background" in text:
        labels["background"] = colours.index(scene.background)
    if isinstance(scene, ShapeScene):
        labels["position"] = POSITIONS.index(scene.position)
        labels["size"] = SIZES.index(scene.size)
        first = Subject(scene.shape, scene.colour)
    elif isinstance(scene, AnimalScene):
        first = Subject(scene.animal)
        labels["hat"] = [None, *colours].index(scene.hat)
        labels["bow tie"] = [None, *colours].index(scene.bow_tie)
        labels["sunglasses"] = int(scene.sunglasses)
    else:
        first = scene.first
        labels["relation"] = RELATIONS.index(scene.relation)
        labels |= labels_of_subject("second ", scene.second, text)
    return labels | labels_of_subject("", first, text)


def labels_of_subject(which: str, subject: Subject, text: str) -> dict[str, int]:
    """The labels of a subject: its kind, and its colour if that is said."""
    said = any(word in text for word in COLOUR_WORDS.get(subject.colour, [subject.colour]))
    return {
        f"{which}subject": KINDS.index(subject.kind),
        f"{which}colour": list(COLOURS).index(subject.colour)
        if subject.colour and said
        else UNSAID,
    }


def all_made_up(text: str) -> bool:
    """Return true if a caption holds no word of ours."""
    return KNOWN.isdisjoint(text.replace(",", " ").split())
