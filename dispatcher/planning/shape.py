"""The shape of a model: every weight that it has, by what is done to it, without any of their values.

Where a shape comes from is not known here: the embedded catalogue, a folder's config.json or a size such
as `13b` (see `models.py`). Memory, time and money are computed from shapes alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What libraries take a group of weights for."""

    LINEAR = "linear"
    """Exactly nn.Linear or transformers' Conv1D: takes adapters, and bitsandbytes converts it."""
    SUBCLASS = "subclass"
    """A class derived from nn.Linear (Falcon): takes adapters, but bitsandbytes leaves it as it is."""
    EXPERTS = "experts"
    """A 3-D parameter that holds the matrices of all experts of a layer (transformers 5)."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Equal matrices that occur once in each of `count` places, usually layers."""

    name: str
    """Path as transformers has it, layer numbers left out: `model.layers.self_attn.q_proj`."""
    inp: int
    out: int
    count: int
    kind: Kind = Kind.LINEAR
    experts: int = 1
    """Matrices in one place; above 1 for `EXPERTS` alone."""
    bias: int = 0
    """Parameters of the bias in one place."""
    tower: bool = False
    """In a vision or audio tower, or the projector behind it: loaded, but text does not pass through."""

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def weights(self) -> int:
        """Parameters in all places, biases aside."""
        return self.inp * self.out * self.experts * self.count

    @property
    def parameters(self) -> int:
        return self.weights + self.bias * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes are of the language model; lengths in elements, counts in parameters."""

    name: str
    """As the user will know it: a hub id, a folder, or a size."""
    model_type: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    intermediate: int
    """Width of the dense MLP; of one expert where every layer is a mixture."""
    gated: bool = True
    """SwiGLU and its kin: three matrices an MLP instead of two."""

    linears: tuple[Linear, ...]
    """Every matrix that a token is multiplied with, but for the output head."""
    embedding: int
    """Parameters that are looked up, not multiplied: tokens, learned positions."""
    head: int
    """Parameters of an output head of its own; 0 where it is the embedding's matrix (tied)."""
    other: int
    """All the rest: norms, routers and sinks that are bare parameters, a head's bias, convolutions."""
    tower_other: int = 0
    """The part of `embedding` and `other` that belongs to towers."""

    experts: int = 0
    experts_per_token: int = 0
    mixture_layers: int = 0
    """Layers whose MLP is a mixture of experts."""
    active_intermediate: int | None = None
    """MLP elements that one token passes in a mixture layer: its experts' and the shared ones'."""
    q_width: int | None = None
    """Elements of all queries of a token, where that is not heads * head_dim (MLA)."""
    kv_width: int | None = None
    """Elements of the keys, and of the values, of a token, where that is not kv_heads * head_dim."""
    attention_layers: int | None = None
    """Layers with softmax attention, where not all have it (state-space and linear-attention hybrids)."""
    sliding_window: int | None = None
    """Tokens that the windowed layers see; None where every layer sees all."""
    windowed_layers: int = 0

    dtype: str = "bf16"
    """What the checkpoint is stored in."""
    checkpoint_bytes: int | None = None
    """Of the files to download, where known; else they follow from dtype and count."""
    max_positions: int | None = None
    gated_access: bool = False
    """Whether the hub asks for a licence to be accepted first."""
    licence: str = ""
    source: str = ""
    """Where the configuration was read."""
    doubts: tuple[str, ...] = ()
    """What is assumed about the shape, for the assumptions of a plan; empty where it is exact."""

    @property
    def tied(self) -> bool:
        return self.head == 0

    @property
    def total(self) -> int:
        """Parameters as loaded: towers included, tied weights once."""
        return sum(linear.parameters for linear in self.linears) + self.embedding + self.head + self.other

    @property
    def text(self) -> int:
        """Parameters of the language model alone."""
        towers = sum(linear.parameters for linear in self.linears if linear.tower) + self.tower_other
        return self.total - towers

    @property
    def active(self) -> int:
        """Parameters that one token passes, embeddings included: of the experts, its share."""
        if not self.experts:
            return self.text
        stacked = sum(linear.parameters for linear in self.linears if linear.kind is Kind.EXPERTS)
        return self.text - stacked + stacked * self.experts_per_token // self.experts

    @property
    def matmul(self) -> int:
        """N of the FLOP formulas: weights that a token of text is multiplied with, output head included."""
        share = self.experts_per_token / self.experts if self.experts else 1.0
        passed = sum(
            linear.weights * (share if linear.kind is Kind.EXPERTS else 1.0)
            for linear in self.linears
            if not linear.tower
        )
        return round(passed) + self.vocab * self.hidden
