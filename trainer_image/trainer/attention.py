"""Documents that share a row must not see each other.

A packed row holds several documents end to end. Two ways keep them apart in any transformers decoder:

- `SEGMENTS`: our attention function cuts the row and runs causal attention on each document by itself,
  so the cost is the sum of squares of the lengths, not the square of their sum. Only for models in which
  every layer attends to all earlier tokens.
- `POSITIONS`: position ids that start again at 0 make transformers build the block-diagonal mask (sdpa,
  eager) or the variable-length call (flash attention) itself; knows sliding windows and soft caps.

Neither is trusted: `choose_isolation` tries them on the real model before training, and where both leak
(a state-space layer, say) it says so and the rows are padded instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from trainer_image.trainer.spec import Attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IMPLEMENTATION = "ftcloud_segments"
CHECK_LENGTHS = (5, 11, 8)
# Largest difference of logits, relative to the largest logit, that rounding explains. A leak is ~1.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}


class Isolation(Enum):
    """How documents in one row are kept apart. PADDED: they never share one."""

    SEGMENTS = "segments"
    POSITIONS = "positions"
    PADDED = "padded"


def segment_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _attention_mask: torch.Tensor | None,
    *,
    segments: Sequence[int],
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each of `segments` (lengths that sum to N). Shapes [B, heads, N, head_dim].

    Whatever a model asks for beyond plain attention reaches transformers' own function, which refuses
    what it cannot do; a missing `segments` is a TypeError, not a leak.
    """
    parts = zip(*(torch.split(tensor, list(segments), dim=2) for tensor in (query, key, value)), strict=True)
    for extra in ("s_aux", "position_bias"):
        if kwargs.get(extra) is not None:
            raise TypeError(f"attention per segment knows no {extra}")
    kwargs["is_causal"] = True
    return torch.cat(
        [sdpa_attention_forward(module, *part, None, **kwargs)[0] for part in parts], dim=1
    ), None


AttentionInterface.register(IMPLEMENTATION, segment_attention)


@contextmanager
def isolated(model: PreTrainedModel, isolation: Isolation) -> Iterator[None]:
    """Within it, forward passes of `model` isolate by `isolation`; call them with `packed_arguments`."""
    if isolation is not Isolation.SEGMENTS:
        yield
        return
    before = model.config._attn_implementation
    model.set_attn_implementation(IMPLEMENTATION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def packed_arguments(isolation: Isolation, positions: torch.Tensor, lengths: Sequence[int]) -> dict[str, Any]:
    """What a forward pass over a packed row [1, N] is given beside `input_ids`."""
    arguments: dict[str, Any] = {"position_ids": positions, "use_cache": False}
    return arguments | ({"segments": list(lengths)} if isolation is Isolation.SEGMENTS else {})


def choose_isolation(model: PreTrainedModel, attention: Attention) -> Isolation:
    """The fastest way of packing that gives `model` the logits that its documents have alone."""
    candidates = [Isolation.POSITIONS]
    if attention == "sdpa" and _attends_to_all(model.config):
        candidates.insert(0, Isolation.SEGMENTS)
    return next((way for way in candidates if isolates(model, way)), Isolation.PADDED)


def isolates(model: PreTrainedModel, isolation: Isolation) -> bool:
    """Whether three random documents in one row get the logits that each gets alone."""
    device, vocabulary = model.device, model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(vocabulary, (1, n), generator=generator).to(device) for n in CHECK_LENGTHS]
    positions = torch.cat([torch.arange(n, device=device) for n in CHECK_LENGTHS])[None]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = torch.cat([model(d, use_cache=False).logits for d in documents], dim=1).float()
            with isolated(model, isolation):
                arguments = packed_arguments(isolation, positions, CHECK_LENGTHS)
                packed = model(torch.cat(documents, dim=1), **arguments).logits.float()
    except (TypeError, ValueError, RuntimeError):
        return False  # the model or its attention does not take the arguments: this way is not for it
    finally:
        model.train(was_training)
    return bool((packed - alone).abs().max() <= TOLERANCE[model.dtype] * alone.abs().max())


def _attends_to_all(config: Any) -> bool:
    """Whether no layer has a window or chunks: short documents would not show that these are ignored."""
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    chunks = getattr(text, "attention_chunk_size", None)
    layers = set(getattr(text, "layer_types", None) or ["full_attention"])
    return window is None and chunks is None and layers == {"full_attention"}
