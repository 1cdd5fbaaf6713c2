"""A model of two layers that the tests serve as a framework would, and the same in float64.

A framework brings its attention, which stores keys and values where it likes, its norm and its
activation. The reference computes a whole sequence anew, without a cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import reference
import torch

HEADS, KV_HEADS, DIM = 4, 2, 64
HIDDEN, INNER, VOCAB, LAYERS = 128, 192, 320, 2
EPS = 1e-5
SCALE = DIM**-0.5
# Two layers in float16 against float64. In fp8, a key that falls between two numbers may become
# another one than in the reference.
ATOL, ATOL_FP8 = 2e-2, 8e-2

Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Norm = Callable[..., Any]
Activation = Callable[[torch.Tensor], torch.Tensor]


class Layer(NamedTuple):
    """Weights of one layer."""

    norm: torch.Tensor
    qkv: torch.Tensor
    out: torch.Tensor
    mlp_norm: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor


class Stored(NamedTuple):
    """What a cache makes of keys and values: quotients by a scale, in its dtype."""

    dtype: torch.dtype = torch.float16
    k_scale: float = 1.0
    v_scale: float = 1.0

    def _of(self, x: torch.Tensor, scale: float) -> torch.Tensor:
        if self.dtype.itemsize > 1:
            return x
        return (x.to(torch.float16) / scale).to(self.dtype).double() * scale

    def key(self, x: torch.Tensor) -> torch.Tensor:
        return self._of(x, self.k_scale)

    def value(self, x: torch.Tensor) -> torch.Tensor:
        return self._of(x, self.v_scale)


FLOAT16 = Stored()


class Family(NamedTuple):
    """What models differ in.

    Attributes:
        bias: added to norm weights, 1 for Gemma.
        activation: of the gate, as `reference.act_and_mul` names it.
        soft_cap: of attention scores, 0 is none.
        windows: keys before the query that a layer sees, -1 is all.
    """

    bias: float = 0.0
    activation: str = "silu"
    soft_cap: float = 0.0
    windows: tuple[int, ...] = (-1, -1)


LLAMA = Family()
GEMMA = Family(1.0, "gelu_tanh", 20.0, (6, -1))


def turned(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """RoPE, which the frameworks do with kernels of their own."""
    angles = positions.cpu()[:, None] * reference.frequencies(DIM, 1.0, 1e4)
    return reference.rotate(x.cpu(), angles.cos(), angles.sin(), False).to(x.device, x.dtype)


def torch_norm(
    x: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor | None = None, bias: float = 0.0
) -> Any:
    """A norm as frameworks have it: with a residual, of the sum, which becomes the residual."""
    if residual is not None:
        x = residual = x + residual
    normed = reference.rmsnorm(x, weight, EPS, bias).to(x.dtype)
    return normed if residual is None else (normed, residual)


def torch_activation(x: torch.Tensor, name: str = "silu") -> torch.Tensor:
    return reference.act_and_mul(x, name).to(x.dtype)


class Toy:
    """The weights and the two ways to run them."""

    def __init__(self, device: str, family: Family = LLAMA) -> None:
        self.device, self.family = device, family

        def weight(*shape: int) -> torch.Tensor:
            return (torch.randn(shape) / shape[0] ** 0.5).to(device, torch.float16)

        def norm() -> torch.Tensor:
            return (1 - family.bias + 0.1 * torch.randn(HIDDEN)).to(device, torch.float16)

        width = (HEADS + 2 * KV_HEADS) * DIM
        self.layers = [
            Layer(
                *(norm(), weight(HIDDEN, width), weight(HEADS * DIM, HIDDEN)),
                *(norm(), weight(HIDDEN, 2 * INNER), weight(INNER, HIDDEN)),
            )
            for _ in range(LAYERS)
        ]
        self.last_norm, self.head = norm(), weight(HIDDEN, VOCAB)
        self.embedding = torch.randn(VOCAB, HIDDEN).to(device, torch.float16)

    def run(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        attend: Attend,
        norm: Norm = torch_norm,
        activation: Activation = torch_activation,
        dtype: torch.dtype = torch.float16,
    ) -> torch.Tensor:
        """Logits of all tokens."""
        x, residual = self.embedding[tokens].to(dtype), None
        for number, layer in enumerate(self.layers):
            weights = Layer(*(weight.to(dtype) for weight in layer))
            if residual is None:
                residual, x = x, norm(x, weights.norm)
            else:
                x, residual = norm(x, weights.norm, residual)
            heads = (x @ weights.qkv).view(len(tokens), -1, DIM)
            q, k, v = heads.split([HEADS, KV_HEADS, KV_HEADS], dim=1)
            mixed = attend(number, turned(q, positions), turned(k, positions), v)
            x = mixed.reshape(len(tokens), HEADS * DIM) @ weights.out
            x, residual = norm(x, weights.mlp_norm, residual)
            x = activation(x @ weights.up) @ weights.down
        x, _ = norm(x, self.last_norm.to(dtype), residual)
        return x @ self.head.to(dtype)

    def expected(self, tokens: list[int], stored: Stored = FLOAT16) -> torch.Tensor:
        """fp64 logits of one sequence; `stored` is what a cache makes of keys and values."""
        family = self.family

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            out, _ = reference.attention(
                *(q, stored.key(k), stored.value(v)),
                causal=True,
                logits_soft_cap=family.soft_cap,
                window_left=family.windows[layer],
            )
            return out.to(q.device)

        def norm(x: torch.Tensor, weight: torch.Tensor, residual: Any = None) -> Any:
            return torch_norm(x, weight, residual, family.bias)

        return self.run(
            torch.tensor(tokens, device=self.device),
            torch.arange(len(tokens)),
            attend,
            norm,
            lambda x: torch_activation(x, family.activation),
            torch.float64,
        )

    def check(
        self, logits: torch.Tensor, sequences: list[list[int]], stored: Stored = FLOAT16
    ) -> None:
        """Compares the logits of every sequence's last token with the reference."""
        expected = torch.stack([self.expected(tokens, stored)[-1] for tokens in sequences])
        atol = ATOL if stored.dtype.itemsize > 1 else ATOL_FP8
        reference.assert_close(logits, expected, atol=atol)


def offsets(lengths: torch.Tensor) -> torch.Tensor:
    """int32 indptr of lengths."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)


def last_of(lengths: list[int]) -> torch.Tensor:
    """Where the last token of every request is, among all of them."""
    return torch.tensor(lengths).cumsum(0) - 1


def random_tokens(count: int) -> list[int]:
    """A text."""
    return [int(token) for token in torch.randint(VOCAB, (count,))]
