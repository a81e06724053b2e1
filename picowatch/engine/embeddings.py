"""Textual inversion: words whose vectors come from a file instead of the text encoder's table.

"An Image is Worth One Word", https://arxiv.org/abs/2208.01618. The table itself is never
changed: a hook inserts the vectors while one chunk is encoded, so no other image gets them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from picowatch.engine.verify import FindFile, unchanged
from picowatch.errors import RenderFailed
from picowatch.recipe.request import EmbeddingUse

# A chunk of the prompt must hold all of an embedding's vectors.
MAX_VECTORS = 75


class Embeddings:
    """The embeddings of one loaded checkpoint; each vector's token is a negative number."""

    def __init__(
        self,
        text_encoder: Any,
        find: FindFile,
        key: str = "clip_l",
        tokens: dict[str, tuple[int, ...]] | None = None,
    ) -> None:
        """`key` is the tensor with this encoder's vectors in files that have them for several.

        `tokens` are those of each embedding by its hash; a checkpoint's text encoders share them.
        """
        self._table = layers_of(text_encoder).embeddings.token_embedding
        self._find = find
        self._key = key
        self._vectors: dict[int, torch.Tensor] = {}
        self._tokens = {} if tokens is None else tokens

    def tokens(self, uses: Sequence[EmbeddingUse]) -> dict[str, tuple[int, ...]]:
        """The tokens of each embedding by name; reads files that were not read yet."""
        for use in uses:
            if use.hash not in self._tokens or self._tokens[use.hash][0] not in self._vectors:
                self._read(use)
        return {use.name: self._tokens[use.hash] for use in uses}

    @contextmanager
    def inserted(self, tokens: Sequence[int]) -> Iterator[list[int]]:
        """While inside, the text encoder uses the vectors for negative tokens.

        Gives the tokens with those replaced by 0, which the table contains.
        """
        positions = {position: token for position, token in enumerate(tokens) if token < 0}

        def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            output = output.clone()
            for position, token in positions.items():
                output[0, position] = self._vectors[token].to(output)
            return output

        handle = self._table.register_forward_hook(hook) if positions else None
        try:
            yield [max(token, 0) for token in tokens]
        finally:
            if handle is not None:
                handle.remove()

    def _read(self, use: EmbeddingUse) -> None:
        with unchanged(self._find, "embedding", use.name, use.hash) as path:
            vectors = read_vectors(path, self._key)
        count, width = vectors.shape
        if width != self._table.embedding_dim:
            raise RenderFailed(
                f"The embedding {use.name!r} is for another kind of model: its vectors have "
                f"{width} numbers, this checkpoint's {self._table.embedding_dim}.",
                "Remove its name from the prompt, or use it with a checkpoint that it is made for.",
            )
        if count > MAX_VECTORS:
            raise RenderFailed(
                f"The embedding {use.name!r} has {count} vectors; it must have 1 to {MAX_VECTORS}."
            )
        if use.hash not in self._tokens:
            taken = sum(map(len, self._tokens.values()))
            self._tokens[use.hash] = tuple(range(-taken - 1, -taken - 1 - count, -1))
        self._vectors.update(zip(self._tokens[use.hash], vectors, strict=True))


def layers_of(text_encoder: Any) -> Any:
    """The module with a text encoder's layers: one with a projection has another inside."""
    return getattr(text_encoder, "text_model", text_encoder)


def read_vectors(path: Path, key: str = "clip_l") -> torch.Tensor:
    """The vectors as rows: `key`, A1111's `emb_params`, or diffusers' one nameless tensor."""
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        name = next((one for one in (key, "emb_params") if one in names), names[0])
        tensor: torch.Tensor = file.get_tensor(name)
    return tensor.float().reshape(-1, tensor.shape[-1]).clone()
