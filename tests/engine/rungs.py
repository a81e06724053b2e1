"""One rung of the memory ladder at a time, and which parts of checkpoints are read for it."""

import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from picowatch.engine.drawing import models as kept_models
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model.memory import MemoryLadder, Room, Rung
from picowatch.errors import EngineStopped
from picowatch.families import FAMILIES
from picowatch.recipe.request import ImageRequest, LoraUse
from tests.engine.adapters import random_layer, write
from tests.engine.flow_requests import flow_renderer, hash_of, requests_of
from tests.engine.part_files import weights_of
from tests.engine.requests import Pixels, draw, ignore_progress, pixels
from tests.engine.tiny_flows import FOLDERS


def on_rung(renderer: Renderer, rung: Rung) -> Renderer:
    class Only(MemoryLadder):
        def rungs(self, *_: Any) -> Iterator[Rung]:
            yield rung

    renderer._ladder = Only("auto", lambda: Room(0))
    return renderer


def interrupt(renderer: Renderer, batch: Sequence[ImageRequest]) -> None:
    """Interrupt a batch at its begin, in a text encoder and in a step: it must leave nothing."""
    for looks in (0, 3, 8):
        answers = iter([False] * looks + [True] * 1000)
        with pytest.raises(EngineStopped):
            list(renderer.render(batch, ignore_progress, answers.__next__))


def two_of(models: Path, name: str, more: str = "") -> list[ImageRequest]:
    texts = "a red cube", "two blue balls on grass"
    recipes = (f"prompt: {text}\nexact: false{more}" for text in texts)
    return [request for recipe in recipes for request in requests_of(models, name, recipe)]


def lora_of(models: Path, name: str, *more: str) -> LoraUse:
    """Write a 16-bit LoRA in diffusers' names for all attention of the transformer and `more`."""
    tensors: dict[str, torch.Tensor] = {}
    for part in ("transformer", *more):
        for key, weight in weights_of(name, part).items():
            if re.search(r"(attn|attention)\.(to_|[qkv]_).*weight", key) and weight.ndim > 1:
                down, up = random_layer(SimpleNamespace(weight=weight), seed=len(tensors), size=2)
                layer = f"{part}.{key.removesuffix('.weight')}"
                tensors[f"{layer}.lora_A.weight"] = down.half()
                tensors[f"{layer}.lora_B.weight"] = up.half()
    mark = FAMILIES[FOLDERS[name].family].lora_marks[0]
    write(models / "loras/a.safetensors", tensors, {"ss_base_model_version": mark})
    return LoraUse("a", hash_of(models, "lora", "a"), 0.7)


def plain_and_styled(models: Path, name: str, lora: LoraUse) -> list[Pixels]:
    (plain,) = requests_of(models, name, "prompt: a red cube")
    renderer = flow_renderer(models)
    both = plain, replace(plain, loras=(lora,))
    return [pixels(image) for request in both for image in draw(renderer, request)]


@contextmanager
def reads() -> Iterator[list[tuple[str, Any]]]:
    """The parts with weights that are read, ControlNets too, each with a weak reference."""
    found: list[tuple[str, Any]] = []

    def record(reader: str, name_of: Callable[..., str]) -> None:
        real = getattr(kept_models, reader)

        def recorded(*given: Any) -> Any:
            part = real(*given)
            if isinstance(part, torch.nn.Module):
                found.append((name_of(*given), weakref.ref(part)))
            return part

        patch.setattr(kept_models, reader, recorded)

    with pytest.MonkeyPatch.context() as patch:
        record("load_part", lambda model, target, device, name, *_: name)
        record("load_vae", lambda *_: "vae")
        record("load_controlnet", lambda *_: "controlnet")
        yield found
