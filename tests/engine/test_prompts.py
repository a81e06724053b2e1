"""Prompts in chunks, weights, clip skip, editing, embeddings: A1111's arithmetic."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from picowatch.catalog import Catalog, Kind
from picowatch.engine.conditions import Conditions
from picowatch.engine.embeddings import Embeddings, read_vectors
from picowatch.engine.load import CONFIGS
from picowatch.engine.options import EngineOptions
from picowatch.engine.prompts import CHUNK_TOKENS, Chunk, PromptEncoder, TextTower, weighted
from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed
from picowatch.families import DEMO_WIDTH
from picowatch.recipe.parts import Hires
from picowatch.recipe.request import EmbeddingUse, ImageRequest
from tests.engine.adapters import write
from tests.engine.demo import demo
from tests.engine.requests import NUMPY_WARNINGS, difference, draw, request

pytestmark = NUMPY_WARNINGS

BEGIN, END, COMMA, CAT, RED = 49406, 49407, 267, 2368, 736
WIDTH = 8


@dataclass(frozen=True)
class Reading:
    """An encoder with the real tokenizer and a tiny text encoder of random weights.

    Embeddings are the files of `folder`.
    """

    model: Any
    embeddings: Embeddings
    encoder: PromptEncoder

    def chunks(self, text: str, *names: str) -> list[Chunk]:
        """The text's chunks, where these embeddings are known."""
        return self.encoder.chunks(text, self.tokens(*names))

    def tokens(self, *names: str) -> dict[str, tuple[int, ...]]:
        return self.embeddings.tokens([EmbeddingUse(name, name) for name in names])

    def states(self, text: str, *names: str, skip: int = 1, length: int = 0) -> torch.Tensor:
        """What guides the UNet."""
        chunks = self.chunks(text, *names)
        with torch.inference_mode():
            return self.encoder.encode(chunks, length or len(chunks), skip).states

    def vectors(self, words: str) -> torch.Tensor:
        """Those that the text encoder itself has for these words."""
        tokens = [token for chunk in self.chunks(words) for token in words_of(chunk)]
        found: torch.Tensor = self.model.get_input_embeddings().weight[tokens]
        return found.detach().clone()


def reading(folder: Path = Path("nowhere")) -> Reading:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        bos_token_id=BEGIN,
        eos_token_id=END,
    )
    model = CLIPTextModel(config).requires_grad_(False)
    model.train(False)
    # A trained norm's biases give the states a mean; new ones do not.
    torch.nn.init.uniform_(getattr(model, "text_model", model).final_layer_norm.bias)

    def find(kind: Kind, name: str, digest: str) -> Path:
        return folder / f"{name}.safetensors"

    embeddings = Embeddings(model, find)
    tokenizer = CLIPTokenizer.from_pretrained(CONFIGS["sd1"] / "tokenizer", local_files_only=True)
    tower = TextTower(model, embeddings)
    return Reading(model, embeddings, PromptEncoder(tokenizer, [tower], torch.device("cpu")))


@cache
def plain() -> Reading:
    """One for prompts without embeddings."""
    return reading()


def words_of(chunk: Chunk) -> list[int]:
    """A chunk's tokens between the begin token and the padding."""
    tokens = list(chunk.tokens)
    assert (tokens[0], len(tokens)) == (BEGIN, CHUNK_TOKENS + 2)
    return tokens[1 : tokens.index(END)]


def test_the_shipped_tokenizer_is_clips() -> None:
    """In lower case, without more spaces than one."""
    for text in ("a photo of a cat", "A  PHOTO\nof a Cat"):
        (chunk,) = plain().chunks(text)
        assert chunk.tokens == (BEGIN, 320, 1125, 539, 320, CAT, *[END] * 71)


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
        (
            "cat " * 54 + ", " + "cat " * 30,
            [[CAT] * 54 + [COMMA] + [CAT] * 20, [CAT] * 10],
        ),
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
    """All tokens arrive."""
    assert [words_of(chunk) for chunk in plain().chunks(text)] == expected


def test_weights_belong_to_their_tokens() -> None:
    """Begin, end and padding weigh 1."""
    (chunk,) = plain().chunks("a (cat:1.5) [photo]")
    assert chunk.weights[:5] == pytest.approx((1, 1, 1.5, 1 / 1.1, 1))
    assert set(chunk.weights[4:]) == {1.0}


def test_weights_multiply_and_keep_the_chunks_mean() -> None:
    """A1111's "Original" emphasis."""
    usual, heavier = plain().states("a cat"), plain().states("a (cat:1.5)")
    assert float(heavier.mean()) == pytest.approx(float(usual.mean()), abs=1e-6)
    ratio = (heavier / usual)[0].mean(dim=1)
    assert float(ratio[2] / ratio[1]) == pytest.approx(1.5, abs=1e-4)
    assert torch.equal(plain().states("a (cat:1.0)"), usual)


def test_a_weight_that_leaves_no_mean_makes_no_nan() -> None:
    """Dividing by it would make the whole picture black."""
    hidden = torch.tensor([[[1.0, -1.0], [2.0, -2.0]]])
    assert torch.equal(weighted(hidden, (1.0, 2.0)), torch.tensor([[[1.0, -1.0], [4.0, -4.0]]]))


def test_chunks_are_encoded_each_by_itself_and_filled_up_with_empty_ones() -> None:
    """So that negative and positive prompt are of one length."""
    both = plain().states("a cat BREAK a photo", length=3)
    parts = [plain().states(text) for text in ("a cat", "a photo", "")]
    assert both.shape == (1, 231, WIDTH)
    assert torch.equal(both, torch.cat(parts, dim=1))


def test_clip_skip_takes_an_earlier_layer_through_the_last_norm() -> None:
    """A1111's numbers: 2 skips one layer, and there must be one left."""
    model, (chunk,) = plain().model, plain().chunks("a cat")
    with torch.inference_mode():
        output = model(torch.tensor([chunk.tokens]), output_hidden_states=True)
        normed = getattr(model, "text_model", model).final_layer_norm
        for skip in (1, 2, 3):
            expected = normed(output.hidden_states[-skip])
            assert torch.equal(plain().states("a cat", skip=skip), expected)
    with pytest.raises(RenderFailed, match=r"clip_skip 4 .* its text encoder has 3 layers") as why:
        plain().states("a cat", skip=4)
    assert why.value.remedy == "Set clip_skip to 3 or less."


HALF = Hires(scale=2.0, denoising_strength=0.5)


def guiding(wanted: ImageRequest, chunks: int = 1) -> list[tuple[Conditions, ...]]:
    """What guides an image at each evaluation of each pass."""
    with torch.inference_mode():
        return plain().encoder.guiding(wanted, chunks)


@pytest.mark.parametrize(
    ("prompt", "values", "words"),
    [
        ("[a:b:2]", {}, ["aaabbb"]),
        ("[a:b:0.5]", {}, ["aaaabb"]),
        ("[a|b]", {}, ["aababa"]),
        ("[a|b|c]", {"sampler": "PNDM"}, ["aabcabc"]),
        ("[a:b:0.5]", {"sampler": "Heun", "steps": 3}, ["aaaab"]),
        ("[a:b:2]", {"sampler": "Heun", "steps": 3}, ["aaabb"]),
        ("[a:b:0.5]", {"image": "x.png", "denoising_strength": 0.5}, ["aaa"]),
        ("[a:b:1]", {"image": "x.png", "denoising_strength": 0.5}, ["aab"]),
        ("[a:b:0.5]", {"hires": HALF}, ["aaaabb", "bbb"]),
        ("[a:b:1.4]", {"hires": HALF}, ["aaaaaa", "aab"]),
        ("[a:b:7]", {"hires": HALF}, ["aaaaaa", "aab"]),
        ("[a|b]", {"hires": HALF}, ["aababa", "aab"]),
        ("<lora:x:1>[a<lora:y:1>:b:2]", {}, ["aaabbb"]),
        (r"a[\|:\|:1]", {"steps": 2}, ["||"]),
    ],
)
def test_each_evaluation_is_guided_by_the_words_of_its_step(
    prompt: str, values: dict[str, Any], words: list[str]
) -> None:
    """A1111's counting, in both prompts and both passes."""
    for field in ("prompt", "negative_prompt"):
        wanted = request(**{"steps": 6, "prompt": "c", **values, field: prompt})
        for evaluations, letters in zip(guiding(wanted), words, strict=True):
            expected = [plain().states(f"a{one}" if one == "|" else one) for one in letters]
            sides = [each.positive if field == "prompt" else each.negative for each in evaluations]
            assert [one.states.tolist() for one in sides] == [one.tolist() for one in expected]


def test_all_words_are_encoded_at_the_length_of_the_longest() -> None:
    """So that shapes, and a compiled UNet, stay; words that no step has do not count."""
    wanted = request("[a:b BREAK c:1]", steps=3)
    assert plain().encoder.chunk_count(wanted) == 2
    assert plain().encoder.chunk_count(request("[a BREAK b:c:-1]", steps=3)) == 1
    ((first, _, last),) = guiding(wanted, chunks=2)
    assert torch.equal(first.positive.states, plain().states("a", length=2))
    assert torch.equal(last.positive.states, plain().states("b BREAK c"))


def test_a_chunk_is_encoded_once_until_the_text_encoder_changes() -> None:
    """Those that do not change are those of the step before, and of the last batch."""
    own, encoded = reading(), []
    own.model.register_forward_hook(lambda *_: encoded.append(1))
    shared = ", ".join(["cat"] * 30)
    for _ in range(2):
        own.encoder.guiding(request(f"{shared} BREAK [a|b]", steps=20), 2)
        assert len(encoded) == 4  # with an empty chunk
    own.encoder.forget()
    own.encoder.guiding(request("a"), 1)
    assert len(encoded) == 6


@pytest.fixture
def own(tmp_path: Path) -> Reading:
    """One whose embeddings are in the test's folder."""
    return reading(tmp_path)


def embed(folder: Path, name: str, vectors: torch.Tensor) -> None:
    write(folder / f"{name}.safetensors", {"emb_params": vectors})


@pytest.mark.parametrize("text", ["a MyWord circle", "a embedding:myword circle"])
def test_an_embeddings_vectors_stand_where_its_word_stands(
    own: Reading, tmp_path: Path, text: str
) -> None:
    """Vectors copied from "red" mean red, in any case of letters; the next prompt has none."""
    embed(tmp_path, "myword", own.vectors("red"))
    before = own.states("a myword circle")
    assert torch.equal(own.states(text, "myword"), own.states("a red circle"))
    own.encoder.forget()
    assert torch.equal(own.states("a myword circle"), before)


def test_only_whole_words_count_and_the_longest_wins(own: Reading, tmp_path: Path) -> None:
    """ "stars" is no "star", "star-two" is not "star" and a rest."""
    embed(tmp_path, "star", own.vectors("red"))
    embed(tmp_path, "star-two", own.vectors("a blue star"))
    names = ("star", "star-two")
    assert own.chunks("stars, superstar", *names) == own.chunks("stars, superstar")
    tokens, (chunk,) = own.tokens(*names), own.chunks("star-two star", *names)
    assert words_of(chunk) == [*tokens["star-two"], *tokens["star"]]


def test_an_embedding_stays_in_one_chunk(own: Reading, tmp_path: Path) -> None:
    """It moves to the next one as a whole."""
    embed(tmp_path, "phrase", own.vectors("red").repeat(10, 1))
    ten = list(own.tokens("phrase")["phrase"])
    first, second = own.chunks("red " * 70 + "phrase", "phrase")
    assert (words_of(first), words_of(second)) == ([RED] * 70, ten)
    (only,) = own.chunks("red " * 65 + "phrase", "phrase")
    assert words_of(only) == [RED] * 65 + ten


@pytest.mark.parametrize(
    ("name", "vectors", "said"),
    [
        ("wide", torch.ones(2, 768), r"'wide' is for another kind .* 768 numbers, .* 8\."),
        ("long", torch.ones(76, WIDTH), "'long' has 76 vectors; it must have 1 to 75"),
    ],
)
def test_an_embedding_that_does_not_fit_is_refused_with_the_reason(
    own: Reading, tmp_path: Path, name: str, vectors: torch.Tensor, said: str
) -> None:
    """Rather than cut, or left out."""
    embed(tmp_path, name, vectors)
    with pytest.raises(RenderFailed, match=said):
        own.states(f"a {name}", name)


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
    assert read_vectors(write(tmp_path / "it.safetensors", tensors)).shape[1] == 8


def test_an_embedding_in_models_is_used(models: Path) -> None:
    """Found by name, verified by hash, counted in the chunks; also in negative prompts."""
    tokenizer, encoder = demo().parts["tokenizer"], demo().encoders[0]
    tokens = tokenizer("a red circle", add_special_tokens=False)["input_ids"]
    vectors = encoder.get_input_embeddings().weight[tokens].detach().clone()
    assert vectors.shape[1] == DEMO_WIDTH
    write(models / "embeddings/my/thing.safetensors", {"emb_params": vectors})
    catalog = Catalog(models)
    use = EmbeddingUse("my/thing", catalog.sha256(catalog.find("embedding", "my/thing")))
    renderer = Renderer(EngineOptions(models=models, device="cpu", threads=1))
    given: dict[str, Any] = {"steps": 2, "width": 64, "height": 64}
    wanted = [
        request("thing on blue", embeddings=(use,), **given),
        request("a red circle on blue", **given),
        request("a star", negative_prompt="thing", embeddings=(use,), **given),
        request("a star", negative_prompt="a red circle", **given),
    ]
    images = [draw(renderer, one)[0] for one in wanted]
    assert difference(images[0], images[1]) == difference(images[2], images[3]) == 0
    together = draw(renderer, *wanted)
    assert all(difference(*pair) <= 2 for pair in zip(images, together, strict=True))
    lost = request("thing", embeddings=(EmbeddingUse("my/thing", "0" * 64),))
    with pytest.raises(RenderFailed, match="embedding 'my/thing' is a different file now"):
        draw(Renderer(EngineOptions(models=models, device="cpu", threads=1)), lost)
