"""Encodes prompts for the UNet, with A1111's arithmetic.

A text is cut into chunks of 75 tokens, each encoded separately with begin and end tokens; weights
multiply the hidden states, then the chunk's mean is restored. A full chunk is cut after its last
comma if that is among its last 20 tokens; BREAK ends a chunk. After A1111's
modules/sd_hijack_clip.py (tokenize_line, process_tokens) and sd_emphasis.py.

The vectors of an embedding ("An Image is Worth One Word", https://arxiv.org/abs/2208.01618) have
negative numbers as tokens. The text encoder's own table is never changed.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from picowatch.engine.model.verify import Verified
from picowatch.errors import RenderFailed
from picowatch.recipe.passes import Sampling, samplings
from picowatch.recipe.prompts import grammar
from picowatch.recipe.prompts.editing import parse_edits, text_at
from picowatch.recipe.request import EmbeddingUse, ImageRequest

CHUNK_TOKENS = 75
_COMMA_REACH = 20


class Encoded(NamedTuple):
    """Encoded texts for the UNet, a row for each image."""

    states: torch.Tensor  # rows x tokens x width
    pooled: torch.Tensor | None = None  # rows x width, a summary, if the UNet takes it (SDXL)

    def zeros(self) -> "Encoded":
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return Encoded(torch.zeros_like(self.states), pooled)


class Conditions(NamedTuple):
    """An image's encoded negative prompt and prompt; prompt editing changes them between steps."""

    negative: Encoded
    positive: Encoded


def joined(parts: Sequence[Encoded]) -> Encoded:
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return Encoded(
        torch.cat([part.states for part in parts]), torch.cat(pooled) if pooled else None
    )


class Chunk(NamedTuple):
    """77 tokens with their weights, begin and end included; negative tokens are embeddings'."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TextTower:
    """A text encoder, and how its family reads it."""

    encoder: Any
    key: str = "clip_l"  # its tensor in embedding files for several encoders
    padding: int | None = None  # the token that fills a chunk, None for the end token
    least_skip: int = 1  # of `clip_skip`, for families that were trained on an earlier layer
    normed: bool = True  # the final norm is also applied to an earlier layer
    vectors: dict[int, torch.Tensor] = field(default_factory=dict)  # of embeddings by token

    def encoded(self, chunk: Chunk, end: int, clip_skip: int, device: torch.device) -> Encoded:
        """Return a chunk's hidden states, 1 x 77 x width, and its summary, if any."""
        skip = max(clip_skip, self.least_skip)
        tokens = chunk.tokens
        if self.padding is not None:
            # After the first end token, as in A1111's modules/sd_hijack_clip.py.
            length = tokens.index(end) + 1
            tokens = (*tokens[:length], *[self.padding] * (len(tokens) - length))
        inserted = {at: self.vectors[token] for at, token in enumerate(tokens) if token < 0}

        def insert(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            output = output.clone()
            for position, vector in inserted.items():
                output[0, position] = vector.to(output)
            return output

        table = self.encoder.get_input_embeddings()
        with table.register_forward_hook(insert) if inserted else nullcontext():
            known = torch.tensor([[max(token, 0) for token in tokens]], device=device)
            output = self.encoder(input_ids=known, output_hidden_states=True)
        states = output.last_hidden_state if skip == 1 else output.hidden_states[-skip]
        if skip > 1 and self.normed:
            # The layers of an encoder with a projection are inside it.
            states = getattr(self.encoder, "text_model", self.encoder).final_layer_norm(states)
        return Encoded(states, getattr(output, "text_embeds", None))

    def read(self, path: Path, name: str) -> torch.Tensor:
        """Return an embedding's vectors for this encoder as rows. RenderFailed if they do not fit.

        A file has them as `key`, as A1111's `emb_params`, or as diffusers' only tensor.
        """
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            key = next((each for each in (self.key, "emb_params") if each in names), names[0])
            tensor: torch.Tensor = file.get_tensor(key)
        vectors = tensor.float().reshape(-1, tensor.shape[-1]).clone()
        width, own = vectors.shape[1], self.encoder.get_input_embeddings().embedding_dim
        if width != own:
            raise RenderFailed(
                f"The embedding {name!r} is for another kind of model: its vectors have "
                f"{width} numbers, this checkpoint's {own}.",
                "Remove its name from the prompt, or use it with a checkpoint that it is made for.",
            )
        return vectors


@dataclass(eq=False)
class PromptEncoder:
    """A checkpoint's tokenizer and text encoders."""

    _tokenizer: Any
    _towers: Sequence[TextTower]  # their states are joined; the last gives the summary
    _verified: Verified  # opens embeddings
    _device: torch.device  # where the towers compute; their weights may be elsewhere until then
    # Returns what a key was encoded to, or encodes it.
    _encoded_once: Callable[[Hashable, Callable[[], Encoded]], Encoded]
    _zeros: bool  # an empty negative prompt is zeros, not the encoded ""
    _embeddings: dict[str, tuple[int, ...]] = field(default_factory=dict)  # their tokens, by hash

    def guiding(self, request: ImageRequest) -> tuple[int, list[tuple[Conditions, ...]]]:
        """Return the number of chunks of an image's prompts, and its conditions.

        Each pass has a tuple of conditions by evaluation. All have the longest prompt's length.
        """
        embeddings = {use.name: self._embedding(use) for use in request.embeddings}
        texts = [
            (_texts(request.negative_prompt, sampling), _texts(request.prompt, sampling))
            for sampling in samplings(request)
        ]
        chunks = {
            text: self.chunks(text, embeddings) for both in texts for text in {*both[0], *both[1]}
        }
        length = max(map(len, chunks.values()))
        encoded = {
            text: self.encode(found, length, request.clip_skip) for text, found in chunks.items()
        }
        passes: list[tuple[Conditions, ...]] = []
        for negatives, prompts in texts:
            away = {negative: encoded[negative] for negative in negatives}
            if self._zeros and not any(map(grammar.plain_prompt, away)):  # it is always empty
                away = {negative: states.zeros() for negative, states in away.items()}
            pairs = zip(negatives, prompts, strict=True)
            passes.append(tuple(Conditions(away[each], encoded[prompt]) for each, prompt in pairs))
        return length, passes

    def _embedding(self, use: EmbeddingUse) -> tuple[int, ...]:
        """Return an embedding's tokens, for which each tower has vectors; its file is read once."""
        if use.hash not in self._embeddings:
            with self._verified("embedding", use.name, use.hash) as model:
                vectors = [tower.read(model.path, use.name) for tower in self._towers]
            first = -1 - sum(map(len, self._embeddings.values()))
            tokens = tuple(range(first, first - len(vectors[0]), -1))
            for tower, rows in zip(self._towers, vectors, strict=True):
                tower.vectors.update(zip(tokens, rows, strict=True))
            self._embeddings[use.hash] = tokens
        return self._embeddings[use.hash]

    def chunks(
        self, text: str, embeddings: Mapping[str, tuple[int, ...]] | None = None
    ) -> list[Chunk]:
        """Return the text without its LoRA tags in chunks; an empty text is an empty chunk.

        `embeddings` has the tokens of embeddings by name. The tokens of an embedding stay together.
        """
        full: list[list[tuple[int, float]]] = []
        chunk: list[tuple[int, float]] = []
        for words, weight in grammar.parse_attention(grammar.plain_prompt(text)):
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

    def encode(self, chunks: Sequence[Chunk], length: int, clip_skip: int) -> Encoded:
        """Return the chunks' states, padded to `length` chunks; A1111's summary is the first's."""
        padded = [*chunks, *[self._framed([])] * (length - len(chunks))]
        encoded = [self._encoded(chunk, clip_skip) for chunk in padded]
        return Encoded(torch.cat([chunk.states for chunk in encoded], dim=1), encoded[0].pooled)

    def _tokens(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    def _units(
        self, text: str, embeddings: Mapping[str, tuple[int, ...]]
    ) -> Iterator[tuple[int, ...]]:
        """Yield the text's tokens one by one, and each embedding's tokens together."""
        end = 0
        for start, stop, name in grammar.embedding_words(text, list(embeddings)):
            yield from ((token,) for token in self._tokens(text[end:start]))
            yield embeddings[name]
            end = stop
        yield from ((token,) for token in self._tokens(text[end:]))

    def _kept(self, chunk: list[tuple[int, float]], following: tuple[int, ...]) -> int:
        """Return the number of tokens that stay in a chunk when `following` no longer fits."""
        comma = self._tokens(",")
        if len(chunk) < CHUNK_TOKENS or list(following) == comma:
            return len(chunk)
        for kept in range(CHUNK_TOKENS, CHUNK_TOKENS - _COMMA_REACH, -1):
            if [chunk[kept - 1][0]] == comma:
                return kept if len(following) <= kept else len(chunk)
        return len(chunk)

    def _framed(self, chunk: list[tuple[int, float]]) -> Chunk:
        """Return the chunk with a begin token, and with end tokens up to the full length."""
        begin, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        padding = CHUNK_TOKENS + 1 - len(chunk)
        return Chunk(
            tokens=(begin, *(token for token, _ in chunk), *[end] * padding),
            weights=(1.0, *(weight for _, weight in chunk), *[1.0] * padding),
        )

    def _encoded(self, chunk: Chunk, clip_skip: int) -> Encoded:
        """Return a chunk's weighted hidden states, 1 x 77 x width, and its summary."""

        def encode() -> Encoded:
            # One chunk by itself: its numbers must not depend on the rest of the batch.
            how = chunk, self._tokenizer.eos_token_id, clip_skip, self._device
            found = [tower.encoded(*how) for tower in self._towers]
            states = [weighted(tower.states, chunk.weights) for tower in found]
            return Encoded(torch.cat(states, dim=-1), found[-1].pooled)

        # Tokens of embeddings are numbered in their order.
        embeddings = tuple(self._embeddings) if min(chunk.tokens) < 0 else ()
        return self._encoded_once((chunk, clip_skip, embeddings), encode)


def _texts(prompt: str, sampling: Sampling) -> list[str]:
    """Return the prompt's text at each evaluation of a pass, at least one."""
    nodes = parse_edits(grammar.without_loras(prompt))
    return [
        text_at(nodes, evaluation, sampling) for evaluation in range(max(1, sampling.evaluations))
    ]


def weighted(hidden: torch.Tensor, weights: tuple[float, ...]) -> torch.Tensor:
    """Return hidden states times their tokens' weights, scaled back to the former mean."""
    if all(weight == 1.0 for weight in weights):
        return hidden
    before = hidden.float()
    multiplied = before * torch.tensor(weights, device=hidden.device)[None, :, None]
    return (multiplied * (before.mean() / multiplied.mean())).to(hidden.dtype)
