"""Loading a base model and making it trainable; what cannot work is refused with its reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainer_image.trainer import model
from trainer_image.trainer.errors import FtcloudError, RecipeError, UsageError
from trainer_image.trainer.spec import TrainSpec

pytestmark = pytest.mark.torch

MakeSpec = Callable[..., TrainSpec]
ATTENTION = ["k_proj", "o_proj", "q_proj", "v_proj"]
MLP = ["down_proj", "gate_proj", "up_proj"]


@pytest.fixture
def copied(tiny_model: Path, tmp_path: Path) -> Path:
    """A model folder to damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.mark.parametrize(
    ("wanted", "targets"),
    [
        (("all-linear",), sorted(ATTENTION + MLP)),
        (("attention",), ATTENTION),
        (("mlp",), MLP),
        (("q_proj", "v_proj"), ["q_proj", "v_proj"]),
        (("attention", "up_proj"), sorted([*ATTENTION, "up_proj"])),
        (("lm_head",), ["lm_head"]),
        (("model.layers.1.self_attn.q_proj",), ["model.layers.1.self_attn.q_proj"]),
    ],
)
def test_words_and_names_become_layers(
    wanted: tuple[str, ...], targets: list[str], make_spec: MakeSpec
) -> None:
    assert model.resolve_targets(model.load_base(make_spec()), wanted) == targets


def test_a_name_that_two_families_share_is_given_by_its_path() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2))
    assert model.resolve_targets(gpt2, ["attention"]) == ["c_attn", "transformer.h.0.attn.c_proj"]


def test_a_layer_that_is_not_there_is_refused_with_those_that_are(make_spec: MakeSpec) -> None:
    base = model.load_base(make_spec())
    with pytest.raises(RecipeError, match="no linear layer 'query'") as caught:
        model.resolve_targets(base, ["q_proj", "query"])
    assert "q_proj" in caught.value.fix
    assert "all-linear" in caught.value.fix


def test_parameters_are_counted_once_and_as_numbers(make_spec: MakeSpec) -> None:
    plain = model.count_parameters(
        model.prepare(model.load_base(make_spec(method="full")), make_spec(method="full"))
    )
    assert plain.trainable == plain.total == 99_648
    lora = model.count_parameters(model.prepare(model.load_base(make_spec()), make_spec()))
    # r (d_in + d_out) for q, k, v, o, gate, up, down of two layers
    adapters = 2 * 4 * (128 + 96 + 96 + 128 + 3 * 192)
    assert (lora.trainable, lora.total) == (adapters, 99_648 + adapters)
    assert lora.share == pytest.approx(adapters / (99_648 + adapters))


def test_four_bit_weights_count_as_what_they_stand_for(make_spec: MakeSpec) -> None:
    spec = make_spec(method="qlora")
    assert model.count_parameters(model.prepare(model.load_base(spec), spec)).total == 107_840


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_adapters_are_trained_in_the_precision_of_the_computation(
    method: str, precision: str, make_spec: MakeSpec
) -> None:
    spec = make_spec(method=method, model__precision=precision)
    made = model.prepare(model.load_base(spec), spec)
    trained = {parameter.dtype for parameter in made.parameters() if parameter.requires_grad}
    assert trained == {model.DTYPES[spec.model.precision]}
    assert all("lora_" in name for name, parameter in made.named_parameters() if parameter.requires_grad)


def test_the_adapters_start_depends_on_the_seed_alone(make_spec: MakeSpec) -> None:
    def start(seed: int) -> torch.Tensor:
        torch.rand(seed)  # whatever has been drawn before
        made = model.prepare(model.load_base(make_spec()), make_spec(loop__seed=seed))
        first: torch.Tensor = next(p for n, p in made.named_parameters() if "lora_A" in n)
        return first

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


def test_gradient_checkpointing_changes_memory_and_not_gradients(make_spec: MakeSpec) -> None:
    def gradient(spec: TrainSpec) -> torch.Tensor:
        made = model.prepare(model.load_base(spec), spec).train()
        torch.manual_seed(0)
        ids = torch.tensor([[5, 6, 7, 8]])
        torch.autograd.backward(made(input_ids=ids, labels=ids, use_cache=False).loss)
        grad: torch.Tensor = next(
            p.grad for n, p in made.named_parameters() if "layers.0.mlp.up_proj.lora_B" in n
        )
        return grad

    assert torch.equal(gradient(make_spec(loop__grad_ckpt=True)), gradient(make_spec()))


def test_evaluation_leaves_four_bit_weights_in_their_layout(make_spec: MakeSpec) -> None:
    """Some CPUs would repack them in place at the first evaluation, and training would go on with garbage."""
    spec = make_spec(method="qlora")
    base = model.load_base(spec)
    layers = [module for module in base.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    assert len(layers) == 14
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_a_tokenizer_without_a_pad_token_pads_with_its_eos(copied: Path, make_spec: MakeSpec) -> None:
    file = copied / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["pad_token"]
    file.write_text(json.dumps(config))
    tokenizer = model.load_tokenizer(make_spec(model__path=str(copied)).model)
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such model folder"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "no weights in safetensors, only pickled ones",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 50), "cannot be loaded"),
    ],
)
def test_a_folder_that_holds_no_model_is_refused(
    damage: Callable[[Path], object], message: str, copied: Path, make_spec: MakeSpec
) -> None:
    damage(copied)
    with pytest.raises(UsageError, match=message) as caught:
        model.load_base(make_spec(model__path=str(copied)))
    assert caught.value.where == str(copied)
    assert caught.value.fix


def test_a_hub_model_that_cannot_be_fetched_is_named(make_spec: MakeSpec) -> None:
    with pytest.raises(FtcloudError, match="nobody/nothing@main: the model cannot be fetched") as caught:
        model.load_base(make_spec(model__path="nobody/nothing", model__revision="main"))
    assert "HF_TOKEN" in caught.value.fix


def test_flash_attention_that_is_not_installed_is_refused(make_spec: MakeSpec) -> None:
    with pytest.raises(UsageError, match=r"model.attention") as caught:
        model.load_base(make_spec(model__attention="flash"))
    assert caught.value.fix == "set attention: sdpa"
