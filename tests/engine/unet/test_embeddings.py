"""Textual inversion: words whose vectors come from files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from picowatch.engine.models.loaded import Loaded

from picowatch.catalog import Catalog
from picowatch.engine.embeddings import Embeddings, read_vectors
from picowatch.engine.options import EngineOptions
from picowatch.engine.prompts import CHUNK_TOKENS, Chunk, PromptEncoder, TextTower
from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed
from picowatch.families import DEMO_WIDTH
from picowatch.recipe.request import EmbeddingUse
from tests.engine.adapters import write
from tests.engine.demo import CPU, demo
from tests.engine.requests import difference, ignore_steps, request

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def table(loaded: Loaded) -> Any:
    """The demo's vectors by token."""
    return loaded.text_encoders[0].embeddings.token_embedding.weight


def word_vectors(words: str) -> torch.Tensor:
    """The vectors that the demo itself has for these words."""
    tokens = demo().prompts._tokens(words)
    vectors: torch.Tensor = table(demo())[tokens].detach().clone()
    return vectors


def encoder(models: Path, **vectors: torch.Tensor) -> tuple[PromptEncoder, dict[str, Any]]:
    """The demo's encoder and the tokens of embeddings made of these vectors."""
    uses = []
    for name, rows in vectors.items():
        write(models / f"{name}.safetensors", {"emb_params": rows})
        uses.append(EmbeddingUse(name, f"hash of {name}"))
    prompts = demo().prompts
    text_encoder = demo().text_encoders[0]
    embeddings = Embeddings(text_encoder, lambda _, name, __: models / f"{name}.safetensors")
    tower = TextTower(text_encoder, embeddings)
    fresh = PromptEncoder(prompts._tokenizer, [tower], CPU.device)
    return fresh, embeddings.tokens(uses)


def encode(prompts: PromptEncoder, chunks: list[Chunk]) -> torch.Tensor:
    with torch.inference_mode():
        return prompts.encode(chunks, len(chunks), 1).states


@pytest.mark.parametrize("text", ["a MyWord circle", "a embedding:myword circle"])
def test_the_words_vectors_stand_where_the_word_stands(models: Path, text: str) -> None:
    """Vectors copied from "red" mean red, in any case of letters."""
    prompts, tokens = encoder(models, myword=word_vectors("red"))
    assert torch.equal(
        encode(prompts, prompts.chunks(text, tokens)),
        encode(prompts, prompts.chunks("a red circle")),
    )


def test_several_vectors_are_several_tokens(models: Path) -> None:
    """A whole phrase under one word, weighed as one."""
    prompts, tokens = encoder(models, phrase=word_vectors("a red circle on blue"))
    assert torch.equal(
        encode(prompts, prompts.chunks("(phrase:1.3) background", tokens)),
        encode(prompts, prompts.chunks("(a red circle on blue:1.3) background")),
    )


def test_only_whole_words_count_and_the_longest_wins(models: Path) -> None:
    """ "stars" is no "star", "star-two" is not "star" and a rest."""
    one, two = word_vectors("red"), word_vectors("a blue star")
    prompts, tokens = encoder(models, **{"star": one, "star-two": two})
    assert prompts.chunks("stars, superstar", tokens) == prompts.chunks("stars, superstar")
    (chunk,) = prompts.chunks("star-two star", tokens)
    assert [token for token in chunk.tokens if token < 0] == [*tokens["star-two"], *tokens["star"]]


def test_an_embedding_is_never_cut_by_the_end_of_a_chunk(models: Path) -> None:
    """It moves to the next chunk as a whole."""
    prompts, tokens = encoder(models, phrase=word_vectors("red").repeat(10, 1))
    first, second = prompts.chunks("red " * 70 + "phrase", tokens)
    assert min(first.tokens) >= 0
    assert second.tokens[1:11] == tokens["phrase"]
    (chunk,) = prompts.chunks("red " * (CHUNK_TOKENS - 10) + "phrase", tokens)
    assert chunk.tokens[-11:-1] == tokens["phrase"]


def test_the_encoders_own_table_is_as_before(models: Path) -> None:
    """Nothing leaks into prompts that do not name the embedding."""
    before = table(demo()).clone()
    prompts, tokens = encoder(models, red=torch.randn(3, DEMO_WIDTH))
    plain = encode(prompts, prompts.chunks("a red circle"))
    changed = encode(prompts, prompts.chunks("a red circle", tokens))
    prompts.forget()
    assert not torch.equal(plain, changed)
    assert torch.equal(plain, encode(prompts, prompts.chunks("a red circle")))
    assert torch.equal(before, table(demo()))


@pytest.mark.parametrize(
    "tensors",
    [
        {"emb_params": torch.ones(2, DEMO_WIDTH)},
        {"clip_l": torch.ones(2, DEMO_WIDTH)},
        {"<corgi>": torch.ones(2, DEMO_WIDTH)},
        {"emb_params": torch.ones(2, DEMO_WIDTH), "step": torch.ones(1)},
    ],
)
def test_all_forms_of_file_are_read(models: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A1111's, ComfyUI's, diffusers'."""
    assert read_vectors(write(models / "it.safetensors", tensors)).shape == (2, DEMO_WIDTH)


def test_one_vector_may_come_without_its_row(models: Path) -> None:
    """diffusers saves a single token so."""
    path = write(models / "it.safetensors", {"<corgi>": torch.ones(DEMO_WIDTH)})
    assert read_vectors(path).shape == (1, DEMO_WIDTH)


def test_vectors_of_another_width_are_refused_with_the_reason(models: Path) -> None:
    """Stable Diffusion 1.x's do not fit the demo."""
    with pytest.raises(
        RenderFailed, match=rf"'wide' is for another kind .* 768 numbers, .* {DEMO_WIDTH}\."
    ):
        encoder(models, wide=torch.ones(2, 768))
    with pytest.raises(RenderFailed, match="'long' has 76 vectors; it must have 1 to 75"):
        encoder(models, long=torch.ones(76, DEMO_WIDTH))


def test_an_embedding_in_models_is_used(models: Path) -> None:
    """Found by name, verified by hash, counted in the chunks; also in negative prompts."""
    write(models / "embeddings/my/thing.safetensors", {"emb_params": word_vectors("a red circle")})
    catalog = Catalog(models)
    use = EmbeddingUse("my/thing", catalog.sha256(catalog.find("embedding", "my/thing")))
    engine = Renderer(EngineOptions(models=models, device="cpu", threads=1))
    requested = [
        request("thing on blue", embeddings=(use,), steps=2),
        request("a red circle on blue", steps=2),
        request("a star", negative_prompt="thing", embeddings=(use,), steps=2),
        request("a star", negative_prompt="a red circle", steps=2),
    ]
    images = [engine.render([one], ignore_steps)[0] for one in requested]
    assert difference(images[0], images[1]) == 0
    assert difference(images[2], images[3]) == 0
    together = engine.render(requested, ignore_steps)
    assert all(difference(*pair) <= 2 for pair in zip(images, together, strict=True))
    lost = request("thing", embeddings=(EmbeddingUse("my/thing", "0" * 64),))
    with pytest.raises(RenderFailed, match="embedding 'my/thing' is a different file now"):
        Renderer(EngineOptions(models=models, device="cpu", threads=1)).render([lost], ignore_steps)
