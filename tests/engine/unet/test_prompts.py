"""Prompts in chunks, weights, clip skip: A1111's arithmetic."""

from functools import cache
from pathlib import Path

import pytest
import torch
from picowatch.engine.models.parts import SD15
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from picowatch.catalog import Kind
from picowatch.engine.embeddings import Embeddings
from picowatch.engine.prompts import CHUNK_TOKENS, Chunk, PromptEncoder, TextTower, weighted

BEGIN, END, COMMA, CAT = 49406, 49407, 267, 2368


@cache
def encoder() -> PromptEncoder:
    """The real tokenizer with a tiny text encoder of random weights."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        bos_token_id=BEGIN,
        eos_token_id=END,
    )
    tokenizer = CLIPTokenizer.from_pretrained(SD15 / "tokenizer", local_files_only=True)
    model = CLIPTextModel(config).requires_grad_(False)
    model.train(False)
    # A trained norm's biases give the states a mean; new ones do not.
    torch.nn.init.uniform_(getattr(model, "text_model", model).final_layer_norm.bias)
    tower = TextTower(model, Embeddings(model, no_file))
    return PromptEncoder(tokenizer, [tower], torch.device("cpu"))


def no_file(kind: Kind, name: str, digest: str) -> Path:
    raise AssertionError(name)


def encode(text: str, clip_skip: int = 1, length: int | None = None) -> torch.Tensor:
    chunks = encoder().chunks(text)
    with torch.inference_mode():
        return encoder().encode(chunks, length or len(chunks), clip_skip).states


def words(chunk: Chunk) -> list[int]:
    """A chunk's tokens between the begin token and the padding."""
    tokens = list(chunk.tokens)
    assert (tokens[0], len(tokens)) == (BEGIN, CHUNK_TOKENS + 2)
    return tokens[1 : tokens.index(END)]


def test_the_shipped_tokenizer_is_clips() -> None:
    """The field's check."""
    (chunk,) = encoder().chunks("a photo of a cat")
    assert chunk.tokens[:8] == (BEGIN, 320, 1125, 539, 320, CAT, END, END)
    assert words(encoder().chunks("A  PHOTO\nof a Cat")[0]) == words(chunk)


def test_an_empty_prompt_is_one_empty_chunk() -> None:
    """Begin token, then nothing but end tokens."""
    (chunk,) = encoder().chunks("")
    assert chunk.tokens == (BEGIN, *[END] * 76)


@pytest.mark.parametrize(("count", "chunks"), [(75, 1), (76, 2), (150, 2), (151, 3)])
def test_chunks_hold_75_tokens(count: int, chunks: int) -> None:
    """And all tokens arrive."""
    made = encoder().chunks("cat " * count)
    assert len(made) == chunks
    assert [token for chunk in made for token in words(chunk)] == [CAT] * count


def test_a_comma_near_the_end_is_where_the_rest_moves_on() -> None:
    """Within the last 20 tokens of a full chunk."""
    first, second = encoder().chunks("cat " * 60 + ", " + "cat " * 20)
    assert words(first) == [CAT] * 60 + [COMMA]
    assert words(second) == [CAT] * 20


def test_a_comma_far_from_the_end_does_not_matter() -> None:
    """The chunk is filled."""
    first, second = encoder().chunks("cat " * 54 + ", " + "cat " * 30)
    assert words(first) == [CAT] * 54 + [COMMA] + [CAT] * 20
    assert words(second) == [CAT] * 10


def test_a_comma_as_token_76_begins_the_next_chunk() -> None:
    """A1111 does not search backwards for it."""
    first, second = encoder().chunks("cat " * 70 + ", " + "cat " * 4 + ", cat")
    assert words(first) == [CAT] * 70 + [COMMA] + [CAT] * 4
    assert words(second) == [COMMA, CAT]


def test_break_ends_a_chunk() -> None:
    """Wherever it stands, and also inside brackets."""
    assert [words(chunk) for chunk in encoder().chunks("cat BREAK a cat")] == [[CAT], [320, CAT]]
    assert len(encoder().chunks("(cat BREAK a cat:1.2)")) == 2


def test_weights_belong_to_their_tokens() -> None:
    """Begin, end and padding weigh 1."""
    (chunk,) = encoder().chunks("a (cat:1.5) [photo]")
    assert chunk.weights[:5] == pytest.approx((1, 1, 1.5, 1 / 1.1, 1))
    assert set(chunk.weights[4:]) == {1.0}


def test_weights_multiply_and_keep_the_chunks_mean() -> None:
    """A1111's "Original" emphasis."""
    plain, weighed = encode("a cat"), encode("a (cat:1.5)")
    assert float(weighed.mean()) == pytest.approx(float(plain.mean()), abs=1e-6)
    ratio = (weighed / plain)[0].mean(dim=1)
    assert float(ratio[2] / ratio[1]) == pytest.approx(1.5, abs=1e-4)
    assert torch.equal(encode("a (cat:1.0)"), plain)


def test_a_weight_that_leaves_no_mean_makes_no_nan() -> None:
    """Dividing by it would make the whole picture black."""
    hidden = torch.tensor([[[1.0, -1.0], [2.0, -2.0]]])
    assert torch.equal(weighted(hidden, (1.0, 2.0)), torch.tensor([[[1.0, -1.0], [4.0, -4.0]]]))


def test_chunks_are_encoded_each_by_itself_and_joined() -> None:
    """Two chunks are 154 rows."""
    both = encode("a cat BREAK a photo")
    assert both.shape == (1, 154, 8)
    assert torch.equal(both, torch.cat([encode("a cat"), encode("a photo")], dim=1))


def test_short_prompts_are_padded_with_empty_chunks() -> None:
    """So that negative and positive prompt are of one length."""
    assert torch.equal(encode("a cat", length=2), torch.cat([encode("a cat"), encode("")], dim=1))


def test_clip_skip_takes_an_earlier_layer_through_the_last_norm() -> None:
    """A1111's numbers: 2 skips one layer."""
    model = encoder()._towers[0].encoder
    (chunk,) = encoder().chunks("a cat")
    with torch.inference_mode():
        output = model(torch.tensor([chunk.tokens]), output_hidden_states=True)
        normed = getattr(model, "text_model", model).final_layer_norm
        assert torch.equal(encode("a cat", clip_skip=1), output.last_hidden_state)
        assert torch.equal(encode("a cat", clip_skip=1), normed(output.hidden_states[-1]))
        assert torch.equal(encode("a cat", clip_skip=2), normed(output.hidden_states[-2]))
