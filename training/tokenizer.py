"""The demo model's tokenizer: CLIP's byte-level BPE, its merges learnt from our captions."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, models, trainers
from transformers import CLIPTokenizer

from training.captions import caption, known_words
from training.scenes import random_scene

SEED = 20
CAPTIONS_READ = 30_000
MAX_TOKENS = 77
WORD_END = "</w>"

LARGEST_VOCABULARY = 10_000  # never reached

Merge = tuple[str, str]


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write the tokenizer's folder. Every word of a caption is one token; any text tokenises."""
    merges = learnt_merges(caption_words())
    vocabulary = {token: number for number, token in enumerate(tokens_of(merges))}
    tokenizer = CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,  # pairs, as tokenizers' BPE takes them
        model_max_length=MAX_TOKENS,
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    # The fast tokenizer saves tokenizer.json alone; other programs read the two older files.
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return tokenizer


def caption_words() -> Counter[str]:
    rng = random.Random(SEED)
    counts: Counter[str] = Counter(known_words()["words"])
    for _ in range(CAPTIONS_READ):
        counts.update(re.findall(r"[a-z]+|[^\sa-z]+", caption(random_scene(rng), rng)))
    return counts


def learnt_merges(counts: Counter[str]) -> list[Merge]:
    """Byte-pair merges, the most frequent pair first, until every word is one token."""
    model = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=LARGEST_VOCABULARY, end_of_word_suffix=WORD_END, show_progress=False
    )
    model.train_from_iterator(counts.elements(), trainer)
    return [(left, right) for left, right in json.loads(model.to_str())["model"]["merges"]]


def tokens_of(merges: list[Merge]) -> list[str]:
    """Every byte, every byte that ends a word, every merge, and the two special tokens."""
    letters = byte_letters()
    tokens = letters + [letter + WORD_END for letter in letters]
    tokens += [left + right for left, right in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return list(dict.fromkeys(tokens))


def byte_letters() -> list[str]:
    """The 256 printable letters by which GPT-2's and CLIP's BPE write bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(hidden))]
