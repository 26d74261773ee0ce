"""The tokens of a prompt are those of the native tokenizer; other vocabularies come from beside the checkpoint."""

from pathlib import Path

import pytest

from fusebus.vision.export.errors import CheckpointError
from fusebus.vision.export.tokens import CLIP_VOCABULARY, clip_tokenizer, prompt_tokens, save_prompt_tokens

# Written down from facebookresearch/sam3's own tokenizer (sam3 0.1.4, model/tokenizer_ve.py).
NATIVE_TOKENS = {
    "fuse neutral": (49406, 23386, 17011, 49407),
    "Fuse  Neutral": (49406, 23386, 17011, 49407),
    "a 32A fuse-carrier's cap": (49406, 320, 274, 273, 320, 23386, 268, 12308, 568, 3938, 49407),
    "Sicherung für Neutralleiter": (49406, 8278, 1223, 4334, 69, 6522, 337, 17207, 4870, 19773, 49407),
    "don't 'stop'! 123 &amp; <b>": (49406, 847, 713, 568, 1253, 13781, 272, 273, 274, 261, 283, 321, 285, 49407),
    "日本語 ⚡ fuse": (49406, 39121, 44353, 34002, 508, 20712, 23386, 49407),
    "neutral_link N1/N2": (49406, 17011, 318, 2468, 333, 272, 270, 333, 273, 49407),
}


@pytest.mark.parametrize("prompt", NATIVE_TOKENS)
def test_clip_tokens_are_the_native_ones(prompt: str) -> None:
    assert prompt_tokens(prompt, CLIP_VOCABULARY, 32) == NATIVE_TOKENS[prompt]


def test_a_folder_with_a_tokenizer_uses_its_own(tmp_path: Path) -> None:
    clip_tokenizer().save_pretrained(tmp_path)
    assert prompt_tokens("fuse neutral", CLIP_VOCABULARY, 32, folder=tmp_path) == NATIVE_TOKENS["fuse neutral"]
    assert prompt_tokens("fuse neutral", CLIP_VOCABULARY, 32, tokenizer=tmp_path) == NATIVE_TOKENS["fuse neutral"]


def test_a_model_that_was_trained_for_some_prompts_takes_no_others(tmp_path: Path) -> None:
    save_prompt_tokens(tmp_path, {"fuse neutral": (510, 101, 102, 511)})
    assert prompt_tokens("fuse neutral", 512, 32, folder=tmp_path) == (510, 101, 102, 511)
    with pytest.raises(CheckpointError, match="trained for 'fuse neutral' only, not for 'meter'"):
        prompt_tokens("meter", 512, 32, folder=tmp_path)


def test_a_prompt_that_the_text_encoder_cannot_take_is_refused(tmp_path: Path) -> None:
    clip_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="the prompt is empty"):
        prompt_tokens("  ", CLIP_VOCABULARY, 32)
    with pytest.raises(CheckpointError, match="has 42 tokens, the text encoder takes 32"):
        prompt_tokens("fuse " * 40, CLIP_VOCABULARY, 32)
    with pytest.raises(CheckpointError, match="vocabulary of 512 entries, which is not CLIP's"):
        prompt_tokens("fuse neutral", 512, 32)
    with pytest.raises(CheckpointError, match="token 49407, the text encoder knows 512"):
        prompt_tokens("fuse neutral", 512, 32, tokenizer=tmp_path)
    (tmp_path / "none").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="no tokenizer that can be read"):
        prompt_tokens("fuse neutral", 512, 32, tokenizer=tmp_path / "broken")
    with pytest.raises(CheckpointError, match="no tokenizer: neither"):
        prompt_tokens("fuse neutral", 512, 32, tokenizer=tmp_path / "none")
