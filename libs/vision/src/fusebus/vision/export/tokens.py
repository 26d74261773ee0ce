"""Owns the way from a prompt's words to the numbers that the text encoder was trained with.

Three sources, the nearest first: `prompt_tokens.json` beside the checkpoint, for a model that knows its few prompts
only; the tokenizer files of a transformers folder; CLIP's own vocabulary, which every native SAM 3 uses.
"""

import gzip
import html
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from transformers import CLIPTokenizer, PreTrainedTokenizerBase

from fusebus.vision.export.errors import CheckpointError

PROMPT_TOKENS = "prompt_tokens.json"
CLIP_VOCABULARY = 49_408
"""Entries of CLIP's vocabulary: 512 bytes (inside a word, at its end), 48,894 merges, begin and end."""
_MERGES = Path(__file__).parent / "clip_vocabulary" / "merges.txt.gz"
_TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # either is a whole tokenizer


def prompt_tokens(
    prompt: str, vocabulary: int, longest: int, folder: Path | None = None, tokenizer: Path | None = None
) -> tuple[int, ...]:
    """The tokens of `prompt`, begin and end included, for a text encoder of `vocabulary` entries and `longest` places.

    `folder` is the checkpoint's, `tokenizer` a folder that comes before it. Raises CheckpointError: no vocabulary fits,
    a prompt that the model does not know, or one that is too long or empty.
    """
    words = html.unescape(html.unescape(prompt)).strip()
    if not words:
        raise CheckpointError("the prompt is empty; name what to look for, for example --prompt 'fuse neutral'")
    tokens = _tokens(words, vocabulary, folder, tokenizer)
    if len(tokens) > longest:
        raise CheckpointError(
            f"the prompt {prompt!r} has {len(tokens)} tokens, the text encoder takes {longest}; shorten it"
        )
    if max(tokens) >= vocabulary:
        raise CheckpointError(
            f"the prompt {prompt!r} has token {max(tokens)}, the text encoder knows {vocabulary}: the tokenizer "
            "belongs to another model; give the right one with --tokenizer"
        )
    return tokens


def save_prompt_tokens(folder: Path, tokens: Mapping[str, Sequence[int]]) -> None:
    """Write beside a checkpoint which prompts it was trained for, with their tokens: no others are then taken."""
    (folder / PROMPT_TOKENS).write_text(json.dumps({prompt: list(found) for prompt, found in tokens.items()}) + "\n")


@cache
def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer, from the merge rules that come with this package."""
    with gzip.open(_MERGES, "rt", encoding="utf-8") as stream:
        merges = [tuple(line.split()) for line in stream]
    letters = _byte_letters()
    entries = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge) for merge in merges)]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={entry: number for number, entry in enumerate(entries)}, merges=merges)


def _tokens(words: str, vocabulary: int, folder: Path | None, tokenizer: Path | None) -> tuple[int, ...]:
    if tokenizer is not None:
        return _encoded(_folder_tokenizer(tokenizer), words)
    if folder is not None and (folder / PROMPT_TOKENS).is_file():
        known = json.loads((folder / PROMPT_TOKENS).read_text())
        if words not in known:
            raise CheckpointError(f"the model was trained for {', '.join(map(repr, known))} only, not for {words!r}")
        return tuple(int(token) for token in known[words])
    if folder is not None and _has_tokenizer(folder):
        return _encoded(_folder_tokenizer(folder), words)
    if vocabulary == CLIP_VOCABULARY:
        return _encoded(clip_tokenizer(), words)
    raise CheckpointError(
        f"the text encoder has a vocabulary of {vocabulary} entries, which is not CLIP's ({CLIP_VOCABULARY}), and the "
        f"checkpoint has neither {PROMPT_TOKENS} nor tokenizer files; give a folder that has with --tokenizer"
    )


def _has_tokenizer(folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in names) for names in _TOKENIZER_FILES)


def _folder_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    if not _has_tokenizer(folder):  # transformers would make an empty one without a word
        raise CheckpointError(f"{folder}: no tokenizer: neither tokenizer.json nor vocab.json with merges.txt")
    try:
        # Files only, no code of the folder's: trust_remote_code stays off, and nothing is fetched.
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: no tokenizer that can be read: {error}") from error


def _encoded(tokenizer: PreTrainedTokenizerBase, words: str) -> tuple[int, ...]:
    return tuple(int(token) for token in tokenizer(words)["input_ids"])


def _byte_letters() -> list[str]:
    """The letter that stands for each byte, in the vocabulary's order: the printable ones themselves come first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [number for number in range(256) if number not in printable]
    return [chr(number) for number in printable] + [chr(256 + place) for place in range(len(others))]
