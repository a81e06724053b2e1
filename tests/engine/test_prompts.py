"""Prompts in chunks, weights, editing, embeddings: A1111's arithmetic."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers import BatchFeature
from transformers.modeling_outputs import BaseModelOutput

from picowatch.catalog import Catalog
from picowatch.engine.model.cache import Cache
from picowatch.engine.model.families import Texts, reading_of
from picowatch.engine.model.prompts import CHUNK_TOKENS, Chunk, Conditions, PromptEncoder, TextTower
from picowatch.errors import RenderFailed
from picowatch.families import FAMILIES
from picowatch.families.row import Variant
from picowatch.recipe.parts import Hires
from picowatch.recipe.request import EmbeddingUse, ImageRequest
from tests.engine.adapters import files_in, write
from tests.engine.demo import CPU, demo, load
from tests.engine.requests import request
from tests.engine.tiny_flows import FIRST, checkpoints_of, tiny_unet

BEGIN, END, COMMA, CAT, RED = 784, 785, 267, 564, 558  # in the demo model's vocabulary


def encoder(
    folder: Path = Path("nowhere"), parts: Any = None, family: str = "sd1"
) -> PromptEncoder:
    """Return a checkpoint's encoder, by default the demo model's, with a folder's embeddings."""
    reading, files = reading_of(FAMILIES[family], Variant()), files_in(folder)
    given = reading, parts or demo(), Mock(), Mock(), files, CPU.device
    return Texts(*given, Cache(lambda: (0, 0), Mock()), "demo").prompts


def uses(*names: str) -> tuple[EmbeddingUse, ...]:
    return tuple(EmbeddingUse(name, name) for name in names)


def words_of(chunk: Chunk) -> list[int]:
    tokens = list(chunk.tokens)
    assert (tokens[0], len(tokens)) == (BEGIN, CHUNK_TOKENS + 2)
    return tokens[1 : tokens.index(END)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [[]]),
        ("cat " * 75, [[CAT] * 75]),
        ("cat " * 76, [[CAT] * 75, [CAT]]),
        ("cat " * 151, [[CAT] * 75, [CAT] * 75, [CAT]]),
        # A comma within the last 20 tokens of a full chunk is where the rest moves on, …
        ("cat " * 60 + ", " + "cat " * 20, [[CAT] * 60 + [COMMA], [CAT] * 20]),
        # … one further away is not, …
        ("cat " * 54 + ", " + "cat " * 30, [[CAT] * 54 + [COMMA] + [CAT] * 20, [CAT] * 10]),
        # … and before one that no longer fits, A1111 does not search for another.
        (
            "cat " * 70 + ", " + "cat " * 4 + ", cat",
            [[CAT] * 70 + [COMMA] + [CAT] * 4, [COMMA, CAT]],
        ),
        ("cat BREAK a cat", [[CAT], [320, CAT]]),
        ("(cat BREAK a cat:1.2)", [[CAT], [320, CAT]]),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_a_prompt_is_cut_into_chunks_of_75_tokens(text: str, expected: list[list[int]]) -> None:
    assert [words_of(chunk) for chunk in encoder().chunks(text)] == expected


HALF = Hires(scale=2.0, denoising_strength=0.5)


@torch.inference_mode()
def guiding(prompts: PromptEncoder, wanted: ImageRequest) -> list[tuple[Conditions, ...]]:
    return prompts.guiding(wanted)[1]


@pytest.mark.parametrize(
    ("prompt", "values", "words"),
    [
        ("[a:b:2]", {}, ["aaabbb"]),
        ("[a|b]", {"hires": HALF}, ["aababa", "aab"]),
        ("<lora:x:1>[a<lora:y:1>:b:2]", {}, ["aaabbb"]),
        (r"a[\|:\|:1]", {"steps": 2}, ["||"]),
    ],
)
def test_each_evaluation_is_guided_by_the_words_of_its_step(
    prompt: str, values: dict[str, Any], words: list[str]
) -> None:
    """In both prompts and both passes; tests/recipe/prompts counts evaluations as A1111 does."""
    prompts = encoder()
    for field in ("prompt", "negative_prompt"):
        wanted = request(**{"steps": 6, "prompt": "c", **values, field: prompt})
        side = "positive" if field == "prompt" else "negative"
        for evaluations, letters in zip(guiding(prompts, wanted), words, strict=True):
            assert len(evaluations) == len(letters)
            for each, letter in zip(evaluations, letters, strict=True):
                text = "a|" if letter == "|" else letter
                expected = prompts.encode(prompts.chunks(text), 1, 1).states
                assert torch.equal(getattr(each, side).states, expected)


def test_an_embedding_stays_in_one_chunk() -> None:
    """It moves to the next one as a whole, and is never cut."""
    tokens = {"phrase": tuple(range(10))}
    ten = [*range(10)]
    first, second = encoder().chunks("red " * 70 + "phrase", tokens)
    assert (words_of(first), words_of(second)) == ([RED] * 70, ten)
    (only,) = encoder().chunks("red " * 65 + "phrase", tokens)
    assert words_of(only) == [RED] * 65 + ten


@pytest.mark.parametrize(
    "tensors",
    [
        {"emb_params": torch.ones(2, 8)},
        {"clip_l": torch.ones(2, 8), "clip_g": torch.ones(2, 9)},
        {"<corgi>": torch.ones(2, 8)},
        {"emb_params": torch.ones(2, 8), "step": torch.ones(1)},
        {"<corgi>": torch.ones(8)},  # diffusers saves a single token so
    ],
)
def test_all_forms_of_embedding_files_are_read(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    """A1111's, ComfyUI's, diffusers'."""
    tower = TextTower(Mock(**{"get_input_embeddings.return_value.embedding_dim": 8}))
    assert tower.read(write(tmp_path / "it.safetensors", tensors), "it").shape[1] == 8


def test_an_embedding_has_vectors_for_both_text_encoders(tmp_path: Path) -> None:
    """Also after one that fits the first alone. One of another family is refused, shifting none."""
    catalog = Catalog(checkpoints_of(tmp_path / "models", sdxl=tiny_unet("sdxl")))
    sdxl = load(catalog.find("checkpoint", "sdxl"))
    tokens = sdxl["tokenizer"]("corgi", add_special_tokens=False)["input_ids"]
    vectors = {
        key: sdxl[part].get_input_embeddings().weight[tokens].detach().clone()
        for key, part in (("clip_l", "text_encoder"), ("clip_g", "text_encoder_2"))
    }
    write(tmp_path / "dog.safetensors", vectors)
    write(tmp_path / "narrow.safetensors", {"emb_params": torch.ones(2, FIRST)})
    prompts = encoder(tmp_path, sdxl, "sdxl")
    with pytest.raises(RenderFailed, match=rf"have {FIRST} numbers, this checkpoint's \d+\."):
        guiding(prompts, request("a narrow", embeddings=uses("narrow")))
    ((found, *_),) = guiding(prompts, request("a dog", embeddings=uses("dog")))
    ((meant, *_),) = guiding(prompts, request("a corgi"))
    assert torch.equal(found.positive.states, meant.positive.states)


@pytest.mark.parametrize(
    "form",
    [
        lambda states: (states, None),
        lambda states: {"prompt_embeds": [states]},
        lambda states: [BatchFeature({"embeds": states})],
        lambda states: BaseModelOutput(last_hidden_state=states),
    ],
)
def test_texts_take_so_much_memory_in_whatever_form_they_come(
    form: Callable[[torch.Tensor], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were used last stay: the last but one here, and then the last."""
    monkeypatch.setattr("picowatch.engine.model.cache.TEXT_BYTES", 2 * 4 * 8)
    kept = Cache(lambda: (0, 0), Mock())
    for number in (1, 2, 3, 2, 4):
        kept.encoded(("text", number), lambda: form(torch.ones(8)))
    assert [number for number in range(1, 5) if kept.get(("text", number))] == [2, 4]
