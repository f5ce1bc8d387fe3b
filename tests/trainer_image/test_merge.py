"""A merged folder answers as the trained model did, or there is none."""

from __future__ import annotations

import dataclasses
import io
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainer_image.trainer import merge
from trainer_image.trainer.batches import Example
from trainer_image.trainer.errors import DataError, FtcloudError
from trainer_image.trainer.model import bare, load_base, prepare
from trainer_image.trainer.progress import Reporter, parse
from trainer_image.trainer.spec import TrainSpec

pytestmark = pytest.mark.torch

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    """Rows of 30 random tokens, the last 20 learned."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 400, (12, 30), generator=generator).tolist()
    return [Example(row, bytes([0] * 10 + [1] * 20)) for row in ids]


@pytest.fixture
def bf16_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model, its files in bf16."""
    folder = tmp_path / "tiny-bf16"
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def trained(spec: TrainSpec, *, strength: float = 0.05) -> Any:
    """A model as after training: adapters (or all weights) moved away from where they began."""
    model = prepare(load_base(spec), spec)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator) * strength
            parameter.data += noise.to(parameter.dtype)
    return model.train()


def merged(model: Any, spec: TrainSpec, rows: list[Example], folder: Path) -> tuple[merge.MergeReport, Any]:
    tokenizer = AutoTokenizer.from_pretrained(spec.model.path)
    return merge.merge_and_verify(
        model, tokenizer, spec, rows=rows, folder=folder, reporter=Reporter(io.StringIO())
    )


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        return model.eval()(ids).logits.float()


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_the_merged_folder_loads_by_itself_and_answers_as_the_trained_model(
    method: str, make_spec: Callable[..., TrainSpec], rows: list[Example], tmp_path: Path
) -> None:
    spec = make_spec(method=method)
    model = trained(spec)
    report, _ = merged(model, spec, rows, tmp_path / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert (report.dtype, report.agree, report.rows, report.tokens) == ("float32", 1.0, 12, 240)
    assert report.mean_kl < 1e-6
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-3)
    assert not hasattr(loaded.config, "quantization_config")
    assert loaded.config.use_cache
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template
    assert loaded.generation_config.eos_token_id == loaded.config.eos_token_id


def test_a_head_that_has_learned_is_no_longer_tied_to_the_embedding(
    make_spec: Callable[..., TrainSpec], rows: list[Example], tmp_path: Path
) -> None:
    spec = make_spec(lora__target_modules=("lm_head", "q_proj"))
    model = trained(spec)
    merged(model, spec, rows, tmp_path / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-3)
    assert not torch.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight)


def test_the_trained_model_is_left_as_it_was(
    make_spec: Callable[..., TrainSpec], rows: list[Example], tmp_path: Path
) -> None:
    spec = make_spec()
    model = trained(spec)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    merged(model, spec, rows, tmp_path / "merged")
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_base_stored_in_bf16_gives_a_merged_model_in_bf16(
    make_spec: Callable[..., TrainSpec], bf16_model: Path, rows: list[Example], tmp_path: Path
) -> None:
    spec = make_spec(model__path=str(bf16_model))
    report, _ = merged(trained(spec), spec, rows, tmp_path / "merged")
    assert report.dtype == "bfloat16"
    assert 0 < report.mean_kl < merge.MAX_MEAN_KL
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").dtype == torch.bfloat16


def test_where_bf16_rounds_the_training_away_fp32_is_saved(
    make_spec: Callable[..., TrainSpec],
    bf16_model: Path,
    rows: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(merge, "MAX_MEAN_KL", 1e-6)
    spec = make_spec(model__path=str(bf16_model))
    said = io.StringIO()
    tokenizer = AutoTokenizer.from_pretrained(bf16_model)
    folder = tmp_path / "merged"
    report, _ = merge.merge_and_verify(
        trained(spec), tokenizer, spec, rows=rows, folder=folder, reporter=Reporter(said)
    )
    assert report.dtype == "float32"
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.float32
    lines = [parse(line) for line in said.getvalue().splitlines()]
    assert [line.values["dtype"] for line in lines if line] == ["bfloat16", "float32"]


def test_a_merge_outside_the_bounds_in_every_dtype_is_refused_and_leaves_no_folder(
    make_spec: Callable[..., TrainSpec], rows: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec()
    model = trained(spec)
    monkeypatch.setattr(merge, "_delta", lambda layer: torch.zeros(()))  # the adapter is forgotten
    with pytest.raises(FtcloudError, match="does not answer as the trained one"):
        merged(model, spec, rows, tmp_path / "out" / "merged")
    assert not list((tmp_path / "out").iterdir())


# --- QLoRA: the three wrong ways -------------------------------------------------------------------


@pytest.fixture
def qlora(make_spec: Callable[..., TrainSpec]) -> tuple[TrainSpec, Any]:
    spec = make_spec(method="qlora")
    return spec, trained(spec)


def pack_for_cpu(model: Any) -> None:
    """What bitsandbytes does to 4-bit weights in an eval-mode forward on a CPU with AVX512-bf16."""
    from bitsandbytes.functional import _convert_weight_packed_for_cpu
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.weight.data, module.weight.quant_state = _convert_weight_packed_for_cpu(
                module.weight.data, module.weight.quant_state
            )


def onto_the_unquantised_base(spec: TrainSpec, model: Any, folder: Path) -> Any:
    from peft import PeftModel

    model.save_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(spec.model.path, dtype=torch.float32)
    return PeftModel.from_pretrained(base, folder).merge_and_unload()


def into_4_bits(spec: TrainSpec, model: Any, folder: Path) -> Any:
    return model.merge_and_unload()


def into_4_bits_that_were_repacked(spec: TrainSpec, model: Any, folder: Path) -> Any:
    pack_for_cpu(model)
    return model.merge_and_unload()


@pytest.mark.parametrize(
    "wrong_way",
    [onto_the_unquantised_base, into_4_bits, into_4_bits_that_were_repacked],
    ids=lambda way: way.__name__,
)
@pytest.mark.filterwarnings("ignore:Merge lora module to 4-bit")
def test_a_wrong_merge_of_qlora_is_outside_the_bounds(
    wrong_way: Callable[..., Any], qlora: tuple[TrainSpec, Any], rows: list[Example], tmp_path: Path
) -> None:
    spec, model = qlora
    trained_answers = merge.reference(model, rows)
    report = merge.compare(trained_answers, wrong_way(spec, model, tmp_path / "adapter"), torch.float32)
    assert not report.within_bounds, report


def test_weights_that_were_repacked_for_the_cpu_are_unpacked_before_they_are_merged(
    qlora: tuple[TrainSpec, Any],
) -> None:
    _, model = qlora
    before = merge.merged_state(bare(model), torch.float32)
    pack_for_cpu(model)
    after = merge.merged_state(bare(model), torch.float32)
    assert before.keys() == after.keys()
    for name in before:  # packing itself rounds the blocks' scales, to 8 bits of mantissa and then to 8 bits
        difference = (after[name] - before[name]).norm() / before[name].norm()
        assert difference < 0.02, name


# --- the disk --------------------------------------------------------------------------------------


def test_a_disk_without_room_is_refused_before_writing(
    make_spec: Callable[..., TrainSpec], rows: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec()
    monkeypatch.setattr(merge.shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(FtcloudError, match="GB free"):
        merged(trained(spec), spec, rows, tmp_path / "out" / "merged")
    assert not list((tmp_path / "out").iterdir())


def test_a_big_model_is_saved_in_shards(
    make_spec: Callable[..., TrainSpec], rows: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "MAX_SHARD_SIZE", "200KB")
    spec = make_spec()
    report, _ = merged(trained(spec), spec, rows, tmp_path / "merged")
    assert len(list((tmp_path / "merged").glob("model-*.safetensors"))) > 1
    assert report.within_bounds


def test_the_remains_of_an_interrupted_merge_are_replaced(
    make_spec: Callable[..., TrainSpec], rows: list[Example], tmp_path: Path
) -> None:
    for name in ("merged", "merged.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model-00001-of-00009.safetensors").write_bytes(b"half")
    spec = make_spec()
    merged(trained(spec), spec, rows, tmp_path / "merged")
    assert not list(tmp_path.glob("merged/model-*"))
    assert not (tmp_path / "merged.part").exists()


# --- the check -------------------------------------------------------------------------------------


def test_the_check_needs_a_learned_token(make_spec: Callable[..., TrainSpec], tmp_path: Path) -> None:
    spec = make_spec()
    with pytest.raises(DataError, match="no row with a learned token"):
        merged(trained(spec), spec, [Example([1, 2, 3], b"\0\0\0")], tmp_path / "merged")


def test_the_check_stays_within_its_limits(
    make_spec: Callable[..., TrainSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "CHECK_TOKENS", 50)
    monkeypatch.setattr(merge, "CHECK_BYTES", 4 * 400 * 25)
    model = load_base(make_spec())
    long = Example(list(range(3, 43)), bytes([0] + [1] * 39))
    samples = merge.reference(model, [long, long, long])
    assert [len(s.at) for s in samples] == [25]
    monkeypatch.setattr(merge, "CHECK_BYTES", 1 << 20)
    samples = merge.reference(model, [long, long, long])
    assert [s.ids.shape[1] for s in samples] == [40, 10]


def test_a_model_of_nan_is_outside_the_bounds(
    make_spec: Callable[..., TrainSpec], rows: list[Example]
) -> None:
    model = load_base(make_spec())
    answers = merge.reference(model, rows)
    broken = [dataclasses.replace(sample, logits=sample.logits * float("nan")) for sample in answers]
    assert not merge.compare(broken, model, torch.float32).within_bounds
    assert merge.compare(answers, model, torch.float32).mean_kl == pytest.approx(0, abs=1e-7)


def test_a_generation_config_that_contradicts_itself_is_saved_all_the_same(
    make_spec: Callable[..., TrainSpec], rows: list[Example], tmp_path: Path
) -> None:
    spec = make_spec()
    model = trained(spec)
    bare(model).generation_config.temperature = 0.6  # as hub models have it, without do_sample
    merged(model, spec, rows, tmp_path / "merged")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").generation_config.temperature == 0.6
