"""A model goes through GGUF and comes back the same, with a tokenizer that cuts numbers into digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dispatcher.demo.convert import convert, main
from tests.dispatcher.demo.tiny_gguf import TOKENS, tiny_llama, write_gguf
from trainer_image.trainer.errors import DataError

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tied tiny model, through GGUF and back."""
    where = tmp_path_factory.mktemp("converted")
    convert(write_gguf(tiny_llama(), where / "tiny.gguf"), where / "tiny")
    return where / "tiny"


@pytest.mark.parametrize("tied", [True, False])
def test_weights_and_answers_come_back_the_same(tmp_path: Path, tied: bool) -> None:
    model = tiny_llama(tied=tied)
    parameters = convert(write_gguf(model, tmp_path / "tiny.gguf"), tmp_path / "tiny")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny", dtype=torch.float32).eval()
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits)
    assert parameters == sum(p.numel() for p in model.parameters())
    assert loaded.config.tie_word_embeddings is tied


def test_what_the_file_says_stands_in_the_config(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    config = model.config
    assert model.dtype == torch.bfloat16
    assert config.rms_norm_eps == 1e-5
    assert config.rope_parameters["rope_theta"] == 100000.0
    assert (config.max_position_embeddings, config.eos_token_id, config.pad_token_id) == (128, 2, 2)
    assert not hasattr(config, "quantization_config")


def test_quantised_weights_are_expanded(tmp_path: Path) -> None:
    model = tiny_llama()
    convert(write_gguf(model, tmp_path / "tiny.gguf", kind="Q8_0"), tmp_path / "tiny")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny", dtype=torch.float32)
    for name, weight in model.state_dict().items():
        error = (loaded.state_dict()[name] - weight).abs().max()
        assert error <= weight.abs().max() / 100, name


def test_numbers_are_cut_into_digits_even_where_the_vocabulary_has_longer_ones(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert "12" in TOKENS
    assert tokenizer.tokenize("a12 12") == ["a", "1", "2", "Ġ", "1", "2"]
    assert tokenizer.tokenize(" a") == ["Ġa"]


def test_text_comes_back_from_its_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = 'Order: 12 of {"a": 1}\n  and 3 more'
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_special_tokens_and_chat_template_are_kept(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.eos_token_id) == (
        "<|im_end|>",
        "<|im_end|>",
        2,
    )
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], return_dict=True)["input_ids"]
    assert ids[0] == 1
    assert ids[-2] == 2
    assert tokenizer.decode(ids, skip_special_tokens=True) == "user\na\n"


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tiny_llama(), tmp_path / "tiny.gguf", architecture="mamba")
    with pytest.raises(DataError, match=r"general\.architecture is 'mamba'"):
        convert(path, tmp_path / "out")


def test_a_file_that_is_no_gguf_gets_one_message_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"no model" * 100)
    assert main([str(path), str(tmp_path / "out")]) == 2
    assert "not a readable GGUF file" in capsys.readouterr().err
