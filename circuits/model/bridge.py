"""What a TransformerLens bridge holds, as the weights of `circuits.model.transformer`."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Shape
from circuits.model.attention import Attention, Rotary
from circuits.model.norm import Norm
from circuits.model.transformer import Block, Components, Mlp, UnsupportedArchitecture


def bridge_components(bridge: Any, shape: Shape, biases: Tensor, n_pos: int) -> Components:
    """The bridge's processed weights. What is read off wrongly here shows in the engine's comparison of logits."""
    rotary = _rotary(bridge, n_pos)
    return Components(
        shape=shape,
        W_E=bridge.W_E.detach(),
        W_pos=None if rotary else _position_table(bridge),
        blocks=tuple(_block(bridge, layer, rotary) for layer in range(shape.n_layers)),
        b_O=biases,
        final=_norm(bridge.ln_final, bridge.cfg),
        W_U=bridge.W_U.detach(),
        b_U=_or_zero(getattr(bridge, "b_U", None), bridge.W_U, bridge.cfg.d_vocab),
    )


def _or_zero(tensor: Tensor | None, like: Tensor, *shape: int) -> Tensor:
    return like.new_zeros(shape) if tensor is None else tensor.detach()


def _position_table(bridge: Any) -> Tensor | None:
    kind = getattr(bridge.cfg, "positional_embedding_type", "standard")
    if kind != "standard":
        raise UnsupportedArchitecture(f"positions of kind {kind!r} are neither embedded nor rotated")
    return bridge.W_pos.detach()


def _norm(component: Any, config: Any) -> Norm:
    if component is None:
        return Norm()
    inner = component.original_component
    weight = component.weight.detach()
    eps = next((value for value in (getattr(inner, n, None) for n in ("eps", "variance_epsilon")) if value), config.eps)
    bias = None if component.uses_rms_norm else getattr(inner, "bias", None)
    return Norm(
        kind="rms" if component.uses_rms_norm else "layer",
        weight=1 + weight if component.uses_weight_offset else weight,
        bias=None if bias is None else bias.detach(),
        eps=float(eps),
    )


def _rotary(bridge: Any, n_pos: int) -> Rotary | None:
    if getattr(bridge.cfg, "positional_embedding_type", None) != "rotary":
        return None
    model = bridge.original_model
    table = getattr(model.get_submodule("transformer.h.0.attn"), "embed_positions", None) if _is_gptj(bridge) else None
    if table is not None:
        sin, cos = (half.repeat_interleave(2, -1) for half in table[:n_pos].to(bridge.W_U).chunk(2, -1))
        return Rotary(cos, sin, "pairs")
    for name, module in model.named_modules():
        if type(module).__name__.endswith("RotaryEmbedding") and ".layers." not in name:
            positions = torch.arange(n_pos, device=bridge.W_U.device)[None]
            cos, sin = module(bridge.W_U.new_zeros(1, n_pos, 1), positions)
            return Rotary(cos[0].detach(), sin[0].detach())
    raise UnsupportedArchitecture("the model rotates positions by a table that was not found")


def _is_gptj(bridge: Any) -> bool:
    return bridge.cfg.architecture == "GPTJForCausalLM"


def _block(bridge: Any, layer: int, rotary: Rotary | None) -> Block:
    block, config = bridge.blocks[layer], bridge.cfg
    heads, mlp = block.attn, block.mlp
    first = _norm(block.ln1, config)
    n_heads, _, d_head = heads.W_Q.shape
    attention = Attention(
        norm=first,
        W_Q=heads.W_Q.detach(),
        W_K=heads.W_K.detach(),
        W_V=heads.W_V.detach(),
        W_O=heads.W_O.detach(),
        b_Q=_or_zero(heads.b_Q, heads.W_Q, n_heads, d_head),
        b_K=_or_zero(heads.b_K, heads.W_Q, n_heads, d_head),
        b_V=_or_zero(heads.b_V, heads.W_Q, n_heads, d_head),
        scale=_score_scale(bridge, layer, d_head),
        rotary=rotary,
        q_norm=_norm(getattr(heads, "q_norm", None), config),
        k_norm=_norm(getattr(heads, "k_norm", None), config),
        window=_window(bridge, layer),
    )
    gate = getattr(mlp, "W_gate", None)
    return Block(
        attention,
        Mlp(
            norm=_norm(block.ln2, config) if getattr(block, "ln2", None) is not None else first,
            W_in=mlp.W_in.detach(),
            b_in=_or_zero(mlp.b_in, mlp.W_in, mlp.W_in.shape[1]),
            W_out=mlp.W_out.detach(),
            b_out=_or_zero(mlp.b_out, mlp.W_out, mlp.W_out.shape[1]),
            activation=str(config.act_fn),
            W_gate=None if gate is None else gate.detach(),
            b_gate=None if getattr(mlp, "b_gate", None) is None else mlp.b_gate.detach(),
        ),
    )


def _score_scale(bridge: Any, layer: int, d_head: int) -> float:
    if bridge.cfg.architecture == "GPTNeoForCausalLM":
        return 1.0
    inner = bridge.blocks[layer].attn.original_component
    scale = float(getattr(inner, "scaling", None) or d_head**-0.5)
    return scale / (layer + 1) if getattr(bridge.cfg, "scale_attn_by_inverse_layer_idx", False) else scale


def _window(bridge: Any, layer: int) -> int | None:
    config = bridge.original_model.config
    if bridge.cfg.architecture == "GPTNeoForCausalLM":
        return config.window_size if config.attention_layers[layer] == "local" else None
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[layer] != "sliding_attention":
        return None
    return getattr(config, "sliding_window", None)


def output_biases(bridge: Any, n_layers: int) -> Float[Tensor, "layer d_model"]:
    """The biases of attention's outputs, which belong to no head; 0 where a layer has none."""
    zero = torch.zeros(bridge.cfg.d_model, device=bridge.cfg.device, dtype=bridge.cfg.dtype)
    rows = [_output_bias(bridge, layer) for layer in range(n_layers)]
    return torch.stack([zero if row is None else row.detach() for row in rows])


def _output_bias(bridge: Any, layer: int) -> Tensor | None:
    return getattr(bridge.blocks[layer].attn, "b_O", None)
