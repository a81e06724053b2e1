"""From prompt texts to what guides the UNet, with A1111's arithmetic.

A text is cut into chunks of 75 tokens, each with its begin and end token, each encoded
separately; weights multiply the hidden states, then the chunk's mean is restored. A comma within
the last 20 tokens of a full chunk is where the rest moves to the next chunk; BREAK ends a chunk.
After A1111's modules/sd_hijack_clip.py (tokenize_line, process_tokens) and sd_emphasis.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from picowatch.engine.unet.embeddings import Embeddings
from picowatch.errors import RenderFailed
from picowatch.recipe.prompts.grammar import embedding_words, parse_attention, plain_prompt
from picowatch.recipe.request import ImageRequest

CHUNK_TOKENS = 75
_COMMA_REACH = 20
_KEPT_CHUNKS = 256


@dataclass(frozen=True, slots=True)
class Chunk:
    """77 tokens and their weights, begin and end included; negative ones are embeddings'."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]


class Conditions(NamedTuple):
    """What guides the UNet besides latents and timestep: a row for each image.

    Encoded negative prompts and prompts. A family whose UNet is shown more (SDXL: pooled prompts
    and time ids) gets further fields here, which `EagerUnet` passes on.
    """

    negative: torch.Tensor
    positive: torch.Tensor

    def rows(self, indexes: Sequence[int]) -> "Conditions":
        """Those of some of the images."""
        return Conditions(*(each[indexes] for each in self))


class PromptEncoder:
    """A checkpoint's tokenizer and text encoder. Keeps the chunks it encoded last."""

    def __init__(
        self, tokenizer: Any, text_encoder: Any, embeddings: Embeddings, device: torch.device
    ) -> None:
        """`device` is where it computes; its weights may be elsewhere until then."""
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._embeddings = embeddings
        self._device = device
        self._comma = self._tokens(",")
        self._encoded: dict[tuple[Chunk, int], torch.Tensor] = {}

    def chunk_count(self, request: ImageRequest) -> int:
        """The chunks of its longer prompt: both are encoded at that length."""
        texts = (request.prompt, request.negative_prompt)
        return max(len(self._chunks_of(request, text)) for text in texts)

    def conditions(self, requests: Sequence[ImageRequest], length: int) -> Conditions:
        """The requests' prompts, encoded at a length of that many chunks."""

        def encoded(request: ImageRequest, text: str) -> torch.Tensor:
            return self.encode(self._chunks_of(request, text), length, request.clip_skip)

        return Conditions(
            torch.cat([encoded(request, request.negative_prompt) for request in requests]),
            torch.cat([encoded(request, request.prompt) for request in requests]),
        )

    def _chunks_of(self, request: ImageRequest, text: str) -> list[Chunk]:
        """A text of the request, with its embeddings for the words that name them."""
        return self.chunks(text, self._embeddings.tokens(request.embeddings))

    def chunks(
        self, text: str, embeddings: Mapping[str, tuple[int, ...]] | None = None
    ) -> list[Chunk]:
        """The text without its LoRA tags in chunks; an empty text is one empty chunk.

        `embeddings` are the tokens of the words that stand for one. They stay together in one
        chunk.
        """
        full: list[list[tuple[int, float]]] = []
        chunk: list[tuple[int, float]] = []
        for words, weight in parse_attention(plain_prompt(text)):
            if words == "BREAK" and weight < 0:
                full.append(chunk)
                chunk = []
                continue
            for tokens in self._units(words, embeddings or {}):
                if len(chunk) + len(tokens) > CHUNK_TOKENS:
                    kept = self._kept(chunk, tokens)
                    full.append(chunk[:kept])
                    chunk = chunk[kept:]
                chunk.extend((token, weight) for token in tokens)
        if chunk or not full:
            full.append(chunk)
        return [self._framed(chunk) for chunk in full]

    def forget(self) -> None:
        """Encode everything again: the text encoder no longer computes what it did."""
        self._encoded.clear()

    def encode(self, chunks: list[Chunk], length: int, clip_skip: int) -> torch.Tensor:
        """The chunks' hidden states joined, padded with empty chunks to `length` chunks."""
        padded = chunks + [self._framed([])] * (length - len(chunks))
        return torch.cat([self._hidden(chunk, clip_skip) for chunk in padded], dim=1)

    def _tokens(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    def _units(
        self, text: str, embeddings: Mapping[str, tuple[int, ...]]
    ) -> Iterator[tuple[int, ...]]:
        """The text's tokens one by one, and each embedding's all at once."""
        end = 0
        for start, stop, name in embedding_words(text, list(embeddings)):
            yield from ((token,) for token in self._tokens(text[end:start]))
            yield embeddings[name]
            end = stop
        yield from ((token,) for token in self._tokens(text[end:]))

    def _kept(self, chunk: list[tuple[int, float]], following: tuple[int, ...]) -> int:
        """How much of a chunk stays in it when `following` no longer fits."""
        if len(chunk) < CHUNK_TOKENS or list(following) == self._comma:
            return len(chunk)
        kept = self._good_break(chunk)
        return kept if CHUNK_TOKENS - kept + len(following) <= CHUNK_TOKENS else len(chunk)

    def _good_break(self, chunk: list[tuple[int, float]]) -> int:
        """Where to cut a full chunk: after its last comma, if that is near the end."""
        for position in range(CHUNK_TOKENS - 1, CHUNK_TOKENS - _COMMA_REACH - 1, -1):
            if [chunk[position][0]] == self._comma:
                return position + 1
        return CHUNK_TOKENS

    def _framed(self, chunk: list[tuple[int, float]]) -> Chunk:
        """Begin token, the tokens, and end tokens to the full length."""
        begin, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        padding = CHUNK_TOKENS + 1 - len(chunk)
        return Chunk(
            tokens=(begin, *(token for token, _ in chunk), *[end] * padding),
            weights=(1.0, *(weight for _, weight in chunk), *[1.0] * padding),
        )

    def _hidden(self, chunk: Chunk, clip_skip: int) -> torch.Tensor:
        """One chunk's weighted hidden states, 1 x 77 x width.

        One chunk per call, so that its numbers do not depend on what else is in the batch.
        """
        key = (chunk, clip_skip)
        if key not in self._encoded:
            if len(self._encoded) >= _KEPT_CHUNKS:
                self._encoded.clear()
            self._encoded[key] = weighted(self._run(chunk, clip_skip), chunk.weights)
        return self._encoded[key]

    def _run(self, chunk: Chunk, clip_skip: int) -> torch.Tensor:
        """The text encoder's last hidden state, or with clip_skip an earlier one, normed."""
        encoder = self._text_encoder
        # CLIPTextModel has been flat since transformers 5.6; before, its parts lay one deeper.
        parts = getattr(encoder, "text_model", encoder)
        layers = encoder.config.num_hidden_layers
        if clip_skip > layers:
            raise RenderFailed(
                f"clip_skip {clip_skip} is too much for this checkpoint: its text encoder has "
                f"{layers} layers.",
                f"Set clip_skip to {layers} or less.",
            )
        with self._embeddings.inserted(chunk.tokens) as known:
            tokens = torch.tensor([known], device=self._device)
            output = encoder(input_ids=tokens, output_hidden_states=True)
        if clip_skip == 1:
            return output.last_hidden_state  # type: ignore[no-any-return]
        return parts.final_layer_norm(output.hidden_states[-clip_skip])  # type: ignore[no-any-return]


def weighted(hidden: torch.Tensor, weights: tuple[float, ...]) -> torch.Tensor:
    """Hidden states times their tokens' weights, scaled back to the mean they had."""
    if all(weight == 1.0 for weight in weights):
        return hidden
    before = hidden.float()
    multiplied = before * torch.tensor(weights, device=hidden.device)[None, :, None]
    scale = before.mean() / multiplied.mean()
    if not bool(torch.isfinite(scale)):
        return multiplied.to(hidden.dtype)
    return (multiplied * scale).to(hidden.dtype)
