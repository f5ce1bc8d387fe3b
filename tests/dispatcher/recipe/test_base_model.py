"""What a model folder says about itself without torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dispatcher.recipe.adapters import absent, effective_targets, trainable
from dispatcher.recipe.base_model import Linear, read_facts
from dispatcher.recipe.defaults import SEVEN_PROJECTIONS
from tests.factories.recipes import llama_tensors, make_facts, make_recipe, write_model, write_safetensors
from trainer_image.trainer.errors import ExitCode, RecipeError

TINY = llama_tensors(layers=2, hidden=8, intermediate=16, vocabulary=32)


def test_llama_2_7b_trains_six_permille_with_the_guides_lora_and_not_0_04_percent(tmp_path: Path) -> None:
    shapes = llama_tensors(layers=32, hidden=4096, intermediate=11008, vocabulary=32000)
    facts = read_facts(write_model(tmp_path / "llama", shapes))
    assert facts.parameters == 6_738_415_616
    count = trainable(make_recipe(), facts)
    assert count is not None
    assert (count.count, count.total) == (39_976_960, 6_778_392_576)
    assert round(100 * count.share, 2) == 0.59


def test_full_fine_tuning_trains_everything(tmp_path: Path) -> None:
    facts = read_facts(write_model(tmp_path / "model", TINY))
    count = trainable(make_recipe(method="full"), facts)
    assert count is not None
    assert count.share == 1


def test_the_config_is_read_through_its_text_part(tmp_path: Path) -> None:
    text = {"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 16, "max_position_embeddings": 128}
    facts = read_facts(write_model(tmp_path / "model", TINY, "F16", text_config=text))
    assert (facts.hidden, facts.layers, facts.intermediate, facts.max_positions) == (8, 2, 16, 128)
    assert facts.stored == "fp16"


def test_a_tied_embedding_that_is_stored_twice_counts_once(tmp_path: Path) -> None:
    untied = read_facts(write_model(tmp_path / "untied", TINY, tie_word_embeddings=False))
    tied = read_facts(write_model(tmp_path / "tied", TINY, tie_word_embeddings=True))
    assert untied.parameters - tied.parameters == 32 * 8


def test_old_buffers_are_no_parameters(tmp_path: Path) -> None:
    buffers = {"model.layers.0.self_attn.rotary_emb.inv_freq": [4], "h.0.attn.bias": [1, 1, 8, 8]}
    assert read_facts(write_model(tmp_path / "model", TINY | buffers)).parameters == make_parameters(TINY)


def make_parameters(shapes: dict[str, list[int]]) -> int:
    total = 0
    for shape in shapes.values():
        size = 1
        for length in shape:
            size *= length
        total += size
    return total


def test_embeddings_and_the_output_head_are_no_targets(tmp_path: Path) -> None:
    facts = read_facts(write_model(tmp_path / "model", TINY))
    assert len(facts.linears) == 14
    assert not any("embed" in linear.name or "head" in linear.name for linear in facts.linears)


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", {})
    (folder / "model.safetensors").unlink()
    parts = [dict(list(TINY.items())[:5]), dict(list(TINY.items())[5:])]
    for number, part in enumerate(parts):
        write_safetensors(folder / f"part-{number}.safetensors", part)
    weight_map = {name: f"part-{number}.safetensors" for number, part in enumerate(parts) for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert read_facts(folder).parameters == make_parameters(TINY)
    (folder / "part-1.safetensors").unlink()
    with pytest.raises(RecipeError, match=r"1 of 2 weight files are missing, part-1.safetensors"):
        read_facts(folder)


def test_a_mixture_of_experts_is_not_counted_by_guessing(tmp_path: Path) -> None:
    facts = read_facts(write_model(tmp_path / "model", TINY, num_local_experts=8))
    assert trainable(make_recipe(), facts) is None


def test_a_chat_template_is_found_beside_or_inside_the_tokenizer_config(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", TINY)
    assert not read_facts(folder).chat_template
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert read_facts(folder).chat_template


@pytest.mark.parametrize(
    ("files", "what", "fix"),
    [
        (None, "no such model folder", "hub id"),
        ({}, "no config.json", "model:"),
        ({"config.json": "{"}, "cannot be read as JSON", ""),
        ({"config.json": "[]"}, "not a JSON object", ""),
        ({"config.json": "{}"}, "the model folder has no weights", "save_pretrained"),
        ({"config.json": "{}", "pytorch_model.bin": "x"}, "the weights are pickled", "save_pretrained"),
        ({"config.json": "{}", "model.safetensors": ""}, "not a safetensors file", "again"),
        ({"config.json": "{}", "model.safetensors": "\0" * 8}, "not a safetensors file", "again"),
        ({"config.json": "{}", "model.safetensors": "\x7f" * 99}, "not a safetensors file", "again"),
    ],
)
def test_what_is_no_model_is_refused(
    tmp_path: Path, files: dict[str, str] | None, what: str, fix: str
) -> None:
    folder = tmp_path / "model"
    if files is not None:
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    with pytest.raises(RecipeError) as raised:
        read_facts(folder)
    assert what in raised.value.what
    assert fix in raised.value.fix
    assert raised.value.exit_code == ExitCode.USAGE


def test_a_weight_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", TINY)
    path = folder / "model.safetensors"
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - 1)
    with pytest.raises(RecipeError, match="cut short"):
        read_facts(folder)


def test_the_words_mean_the_layers_of_their_kind() -> None:
    facts = make_facts()
    for word, count in (("attention", 8), ("mlp", 6), ("all-linear", 14)):
        trained = trainable(make_recipe(target_modules=word, rank=1), facts)
        assert trained is not None
        assert trained.count == count * 200


def test_biases_count_where_they_are_trained() -> None:
    facts = make_facts(linears=(Linear("a.q_proj", 20, 5), Linear("a.k_proj", 20, 7)), biases=100)
    counts = {
        bias: trainable(make_recipe(rank=1, target_modules="q_proj", bias=bias), facts)
        for bias in ("none", "lora_only", "all")
    }
    assert {bias: count.count for bias, count in counts.items() if count} == {
        "none": 20,
        "lora_only": 25,
        "all": 120,
    }


def test_the_default_targets_of_a_model_with_other_names_are_all_its_linear_layers() -> None:
    gpt2 = make_facts(linears=(Linear("h.0.attn.c_attn", 20, 0), Linear("h.0.mlp.c_fc", 20, 0)))
    assert effective_targets(SEVEN_PROJECTIONS, gpt2) == ("all-linear",)
    assert effective_targets(SEVEN_PROJECTIONS, make_facts()) == SEVEN_PROJECTIONS
    assert effective_targets(SEVEN_PROJECTIONS, None) == SEVEN_PROJECTIONS
    assert absent(gpt2, ("c_attn", "q_proj", "mlp")) == ["q_proj"]
