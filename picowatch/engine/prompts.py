"""Turns prompt texts into what guides the UNet, with A1111's arithmetic.

A text is cut into chunks of 75 tokens, each with its begin and end token, each encoded
separately; weights multiply the hidden states, then the chunk's mean is restored. A comma within
the last 20 tokens of a full chunk is where the rest moves to the next chunk; BREAK ends a chunk.
After A1111's modules/sd_hijack_clip.py (tokenize_line, process_tokens) and sd_emphasis.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import torch

from picowatch.engine.embeddings import Embeddings, layers_of
from picowatch.recipe.passes import Pass, passes_of
from picowatch.recipe.prompts.editing import parse_edits, text_at
from picowatch.recipe.prompts.grammar import (
    embedding_words,
    parse_attention,
    plain_prompt,
    split_loras,
)
from picowatch.recipe.request import ImageRequest

CHUNK_TOKENS = 75
_COMMA_REACH = 20
_KEPT_CHUNKS = 256


class Encoded(NamedTuple):
    """Encoded texts, a row for each image: what guides the UNet besides latents and timestep.

    `states` are rows x tokens x width. `pooled`, rows x width, is a summary of each text, for
    families whose UNet is shown one (SDXL).
    """

    states: torch.Tensor
    pooled: torch.Tensor | None = None

    def zeros(self) -> "Encoded":
        """Zeros in these shapes."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return Encoded(torch.zeros_like(self.states), pooled)

    @staticmethod
    def joined(parts: Sequence["Encoded"]) -> "Encoded":
        """Join the rows of all, in their order."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Encoded(
            torch.cat([part.states for part in parts]), torch.cat(pooled) if pooled else None
        )


@dataclass(frozen=True)
class Conditions:
    """The encoded negative prompts and prompts of a batch."""

    negative: Encoded
    positive: Encoded

    @cached_property
    def both(self) -> Encoded:
        """The rows of all negative prompts, then those of all prompts: once, not in each step."""
        return Encoded.joined((self.negative, self.positive))

    @staticmethod
    def joined(rows: Sequence["Conditions"]) -> "Conditions":
        """Join the conditions of all images, in their order."""
        return Conditions(
            Encoded.joined([row.negative for row in rows]),
            Encoded.joined([row.positive for row in rows]),
        )


def at_each_evaluation(images: Iterable[Sequence[Conditions]]) -> list[Conditions]:
    """What guides a batch at each evaluation of a pass, from what guides each of its images.

    Prompt editing changes it between the steps. It is the same object where nothing changed.
    """
    known: dict[tuple[int, ...], Conditions] = {}
    found = []
    for rows in zip(*images, strict=True):
        key = tuple(map(id, rows))
        if key not in known:
            known[key] = Conditions.joined(rows)
        found.append(known[key])
    return found


@dataclass(frozen=True, slots=True)
class Chunk:
    """77 tokens and their weights, begin and end included; negative ones are embeddings'."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TextTower:
    """One text encoder, its embeddings, and how its family reads it.

    `padding` is the token that fills a chunk after its end token, None for the end token itself.
    `least_skip` is the least `clip_skip`, where a family is trained on an earlier layer than the
    last; `normed` says whether the final norm is applied to an earlier one.
    """

    encoder: Any
    embeddings: Embeddings
    padding: int | None = None
    least_skip: int = 1
    normed: bool = True

    def encoded(self, chunk: Chunk, end: int, clip_skip: int, device: torch.device) -> Encoded:
        """One chunk's hidden states, 1 x 77 x width, and its summary, where there is one."""
        encoder, skip = self.encoder, max(clip_skip, self.least_skip)
        with self.embeddings.inserted(self._padded(chunk.tokens, end)) as known:
            tokens = torch.tensor([known], device=device)
            output = encoder(input_ids=tokens, output_hidden_states=True)
        states = output.last_hidden_state if skip == 1 else output.hidden_states[-skip]
        if skip > 1 and self.normed:
            states = layers_of(encoder).final_layer_norm(states)
        return Encoded(states, getattr(output, "text_embeds", None))

    def _padded(self, tokens: tuple[int, ...], end: int) -> tuple[int, ...]:
        """Pad what follows the first end token, as A1111's modules/sd_hijack_clip.py."""
        if self.padding is None:
            return tokens
        length = tokens.index(end) + 1
        return (*tokens[:length], *[self.padding] * (len(tokens) - length))


class PromptEncoder:
    """A checkpoint's tokenizer and text encoders. Keeps the chunks it encoded last."""

    def __init__(
        self,
        tokenizer: Any,
        towers: Sequence[TextTower],
        device: torch.device,
        *,
        zeros_for_empty_negative: bool = False,
    ) -> None:
        """The towers' hidden states are joined in their width; the last one gives the summary.

        `device` is where they compute; their weights may be elsewhere until then.
        `zeros_for_empty_negative`: an empty negative prompt is zeros, not the encoded "".
        """
        self._tokenizer = tokenizer
        self._towers = tuple(towers)
        self._device = device
        self._zeros = zeros_for_empty_negative
        self._comma = self._tokens(",")
        self._encoded = lru_cache(_KEPT_CHUNKS)(self._encoded_chunk)

    def chunk_count(self, request: ImageRequest) -> int:
        """The chunks of its longest prompt: both prompts are encoded at that length.

        With prompt editing, they are so at each step.
        """
        texts = {
            text
            for one in passes_of(request)
            for prompt in (request.prompt, request.negative_prompt)
            for text in _texts(prompt, one)
        }
        return max(len(self._chunks_of(request, text)) for text in texts)

    def guiding(self, request: ImageRequest, length: int) -> list[tuple[Conditions, ...]]:
        """What guides an image at each evaluation of each pass, in a length of so many chunks.

        All are of one length, so that shapes stay.
        """
        encoded: dict[tuple[Chunk, ...], Encoded] = {}
        return [self._of_pass(request, one, length, encoded) for one in passes_of(request)]

    def _of_pass(
        self,
        request: ImageRequest,
        one: Pass,
        length: int,
        encoded: dict[tuple[Chunk, ...], Encoded],
    ) -> tuple[Conditions, ...]:
        """What guides an image at each evaluation of a pass; `encoded` are known texts.

        As A1111's "zeros for an empty negative prompt", that holds if no step has another one.
        """
        negatives, prompts = (
            _texts(prompt, one) for prompt in (request.negative_prompt, request.prompt)
        )
        zeros = self._zeros and not any(map(plain_prompt, set(negatives)))

        def row(text: str) -> Encoded:
            chunks = tuple(self._chunks_of(request, text))
            if chunks not in encoded:
                encoded[chunks] = self.encode(chunks, length, request.clip_skip)
            return encoded[chunks]

        both = list(zip(negatives, prompts, strict=True))
        found: dict[tuple[str, str], Conditions] = {}
        for negative, prompt in dict.fromkeys(both):
            away = row(negative)
            found[negative, prompt] = Conditions(away.zeros() if zeros else away, row(prompt))
        return tuple(found[texts] for texts in both)

    def _chunks_of(self, request: ImageRequest, text: str) -> list[Chunk]:
        """A text of the request, with its embeddings for the words that name them.

        Each tower has its own vectors for an embedding, and the same number of them.
        """
        tokens = [tower.embeddings.tokens(request.embeddings) for tower in self._towers]
        return self.chunks(text, tokens[0])

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
        self._encoded.cache_clear()

    def encode(self, chunks: Sequence[Chunk], length: int, clip_skip: int) -> Encoded:
        """The chunks' hidden states joined, padded with empty chunks to `length` chunks.

        The summary is the first chunk's, as in A1111.
        """
        padded = [*chunks, *[self._framed([])] * (length - len(chunks))]
        encoded = [self._encoded(chunk, clip_skip) for chunk in padded]
        return Encoded(torch.cat([one.states for one in encoded], dim=1), encoded[0].pooled)

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

    def _encoded_chunk(self, chunk: Chunk, clip_skip: int) -> Encoded:
        """One chunk's weighted hidden states, 1 x 77 x width, and its summary.

        One chunk per call, so that its numbers do not depend on what else is in the batch.
        """
        end = self._tokenizer.eos_token_id
        found = [tower.encoded(chunk, end, clip_skip, self._device) for tower in self._towers]
        states = [weighted(one.states, chunk.weights) for one in found]
        return Encoded(torch.cat(states, dim=-1), found[-1].pooled)


def _texts(prompt: str, one: Pass) -> list[str]:
    """What the prompt says at each evaluation of a pass, or at the first one where none is."""
    nodes = parse_edits(split_loras(prompt)[0])
    return [text_at(nodes, evaluation, one) for evaluation in range(max(1, one.evaluations))]


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
