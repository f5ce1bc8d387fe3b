"""One way to train, complete: all that memory and time depend on besides the model and the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainer_image.trainer.spec import Attention, Method

Weights = Literal["bf16", "fp16", "fp32", "nf4", "int8"]
"""What the base weights are held in."""
OptimizerName = Literal[
    "adamw",
    "adamw_fused",
    "adamw_foreach",
    "adamw_8bit",
    "adamw_4bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "adafactor",
    "sgd",
]
"""`adamw` is the one that the stack takes by that name, foreach or fused."""
Sharding = Literal["none", "ddp", "fsdp", "zero2", "zero3"]
Loss = Literal["eager", "fused", "chunked", "selected"]
"""How logits become a loss: all of them in fp32; the loss in place; head and loss together in chunks, no
logits at all; or eager, but only at positions whose token is learned (ftcloud's trainer)."""

STACKS = (
    "ftcloud", "trl", "hf-trainer", "litgpt", "torchtune", "torchtitan", "llama-factory", "ms-swift",
    "fsdp_qlora", "unsloth",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stack:
    """The software that trains, and its version where it matters and is known.

    `versions` holds library versions such as `transformers` -> `4.48.1`; absent means current.
    """

    name: str = "ftcloud"
    version: str | None = None
    versions: tuple[tuple[str, str], ...] = ()

    def version_of(self, library: str) -> str | None:
        return next((version for name, version in self.versions if name == library), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Sizes of one GPU's share: `micro_batch` rows of `seq_len` tokens in one forward pass of one GPU.

    A field that is None is left to the stack.
    """

    method: Method
    stack: Stack = Stack()
    weights: Weights = "bf16"
    double_quant: bool = True
    """Quantisation constants are quantised again; `nf4` alone."""
    compute: Literal["bf16", "fp16", "fp32"] = "bf16"
    mixed_precision: bool | None = None
    """Autocast over fp32 weights (for `full`: fp32 masters). None: as the stack does it."""
    kbit_prepare: bool | None = None
    """PEFT's prepare_model_for_kbit_training was called: 16-bit weights that are left become fp32."""

    rank: int = 0
    targets: tuple[str, ...] = ()
    """Names of linear layers, or the words attention, mlp, all-linear; with `embed` and `head` those two
    are trained in full."""
    dropout: float = 0.0
    adapter_dtype: Literal["bf16", "fp16", "fp32"] | None = None

    optimizer: OptimizerName = "adamw"
    seq_len: int = 2048
    micro_batch: int = 1
    grad_accum: int = 1
    grad_ckpt: bool = True
    attention: Attention = "sdpa"
    loss: Loss | None = None
    loss_share: float = 1.0
    """Share of the positions whose token is learned."""
    filled: float = 1.0
    """Share of `micro_batch * seq_len` positions that hold a token and not padding."""

    gpus: int = 1
    sharding: Sharding = "none"
    cpu_offload: bool = False
    compile: bool = False

    @property
    def tokens(self) -> int:
        """T: positions in one forward pass of one GPU, padding included."""
        return self.micro_batch * self.seq_len
