"""Builds picowatch/assets/sd15/tokenizer/ from CLIP's merges.

    pip download --no-deps clip-anytorch
    unzip -j clip_anytorch-*.whl clip/bpe_simple_vocab_16e6.txt.gz
    python benchmarks/make_tokenizer.py bpe_simple_vocab_16e6.txt.gz

The merges are lines 1 to 48,894 of that file. The vocabulary is 256 byte characters, the same
with `</w>`, the merges, then the begin and the end token: 49,408 (openai/CLIP,
clip/simple_tokenizer.py).
"""

import argparse
import gzip
import json
import tempfile
from pathlib import Path

from transformers import CLIPTokenizer

MERGES = 48_894
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
TARGET = Path(__file__).parents[1] / "picowatch" / "assets" / "sd15" / "tokenizer"
CHECK = ("a photo of a cat", [49406, 320, 1125, 539, 320, 2368, 49407])


def byte_characters() -> list[str]:
    """A printable character for each byte, in CLIP's order (GPT-2's bytes_to_unicode)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + place) for place in range(others)]


def read_merges(path: Path) -> list[tuple[str, str]]:
    """The pairs of symbols to join, the most frequent first."""
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : MERGES + 1]
    pairs = [line.split() for line in lines]
    return [(left, right) for left, right in pairs]


def vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Every token with its number."""
    characters = byte_characters()
    words = characters + [f"{character}</w>" for character in characters]
    words += [left + right for left, right in merges]
    return {word: number for number, word in enumerate([*words, BEGIN, END])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("merges", type=Path, help="bpe_simple_vocab_16e6.txt.gz")
    merges = read_merges(parser.parse_args().merges)
    tokenizer = CLIPTokenizer(
        vocab=vocabulary(merges),
        merges=merges,  # pairs, as tokenizers' BPE takes them
        model_max_length=77,
    )
    text, expected = CHECK
    assert tokenizer(text)["input_ids"] == expected, tokenizer(text)["input_ids"]
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            values = json.loads((Path(folder) / name).read_text())
            compact = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
            (TARGET / name).write_text(compact + "\n", encoding="utf-8")
    print(f"{TARGET}: {sum(path.stat().st_size for path in TARGET.iterdir()):,} bytes")


if __name__ == "__main__":
    main()
