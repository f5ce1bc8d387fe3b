"""From a GGUF file of a Llama-shaped model to an ordinary Hugging Face folder (bf16 safetensors).

    python -m dispatcher.demo.convert FILE.gguf FOLDER

Runs in a process of its own, as it needs torch. transformers can read GGUF too, but then refuses to save
the model, and builds a tokenizer that cuts numbers otherwise than the model was trained with.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trainer_image.trainer.errors import DataError, FtcloudError

LAYER_NAMES: Final = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
OUTER_NAMES: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
CONTROL_TOKEN = 3
"""GGUF's type number of tokens such as <|im_end|>, which never arise from ordinary text."""


def convert(source: Path, folder: Path) -> int:
    """Write model, tokenizer and configs of `source` into `folder`; returns the number of parameters.

    Raises DataError where the file is no GGUF, or of an architecture or tokenizer that is not handled.
    """
    try:
        reader = gguf.GGUFReader(str(source))
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"is not a readable GGUF file: {error}", where=str(source)) from error
    facts = {name: field.contents() for name, field in reader.fields.items()}
    for key, wanted in (("general.architecture", "llama"), ("tokenizer.ggml.model", "gpt2")):
        if facts.get(key) != wanted:
            raise DataError(f"{key} is {facts.get(key)!r}, only {wanted!r} is converted", where=str(source))
    tensors = {
        tensor.name.removesuffix(".weight"): gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in reader.tensors
    }
    model = _model(facts, tensors)
    model.to(torch.bfloat16).save_pretrained(folder)
    _tokenizer(facts).save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def _model(facts: Mapping[str, Any], tensors: Mapping[str, np.ndarray[Any, Any]]) -> LlamaForCausalLM:
    config = _config(facts, tied="output" not in tensors)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    state: dict[str, torch.Tensor] = {}
    for name, weight in tensors.items():
        if name in OUTER_NAMES:
            state[OUTER_NAMES[name] + ".weight"] = _tensor(weight)
            continue
        _, layer, part = name.split(".")
        rows = unpermuted(weight, heads[part]) if part in heads else weight
        state[f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"] = _tensor(rows)
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    return model


def _config(facts: Mapping[str, Any], *, tied: bool) -> LlamaConfig:
    def of_llama(key: str) -> Any:
        return facts[f"llama.{key}"]

    return LlamaConfig(
        vocab_size=of_llama("vocab_size"),
        hidden_size=of_llama("embedding_length"),
        intermediate_size=of_llama("feed_forward_length"),
        num_hidden_layers=of_llama("block_count"),
        num_attention_heads=of_llama("attention.head_count"),
        num_key_value_heads=of_llama("attention.head_count_kv"),
        max_position_embeddings=of_llama("context_length"),
        # GGUF holds floats in 32 bits: 1e-5 comes out as 9.999999747e-06.
        rms_norm_eps=float(f"{of_llama('attention.layer_norm_rms_epsilon'):.6g}"),
        rope_parameters={"rope_type": "default", "rope_theta": of_llama("rope.freq_base")},
        tie_word_embeddings=tied,
        bos_token_id=facts["tokenizer.ggml.bos_token_id"],
        eos_token_id=facts["tokenizer.ggml.eos_token_id"],
        pad_token_id=facts["tokenizer.ggml.padding_token_id"],
    )


def unpermuted(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows of a query or key projection in Hugging Face's order.

    GGUF interleaves the two halves that rotary embedding pairs: row 2i + j of a head is row
    j * (head_dim / 2) + i here.
    """
    by_pair = weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    return by_pair.swapaxes(1, 2).reshape(weight.shape)


def _tensor(weight: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(weight, dtype=np.float32))


def _tokenizer(facts: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """Byte-level BPE that cuts numbers into single digits, as the model was trained with."""
    tokens: Sequence[str] = facts["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in facts["tokenizer.ggml.merges"]]
    bpe = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    control = zip(tokens, facts["tokenizer.ggml.token_type"], strict=True)
    bpe.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in control
            if kind == CONTROL_TOKEN
        ]
    )
    named = {
        f"{role}_token": tokens[facts[f"tokenizer.ggml.{key}_token_id"]]
        for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
    }
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=bpe, model_max_length=facts["llama.context_length"], **named
    )
    wrapped.chat_template = facts["tokenizer.chat_template"]
    return wrapped


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m dispatcher.demo.convert FILE.gguf FOLDER\n")
        return 2
    try:
        parameters = convert(Path(arguments[0]), Path(arguments[1]))
    except FtcloudError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    sys.stdout.write(f"{parameters:,} parameters\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
