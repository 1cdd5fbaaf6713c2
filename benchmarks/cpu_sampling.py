"""Sampling, softmax and top-k on the CPU beside the plain torch way of the same, in one process.

Torch's side sorts for top-p, takes ``torch.topk`` for top-k, and draws with ``torch.multinomial``,
for top-k from the few that it leaves.

Example:
    python benchmarks/cpu_sampling.py --threads 1 2 --output benchmarks/results/cpu_sampling.json

Run it with a Python that has the built flashinfer installed. How it measures is told by cpu_ops.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# At the end: the flashinfer that is measured is an installed one, not the source tree in here.
sys.path.append(str(Path(__file__).resolve().parents[1]))

import torch

import flashinfer
from benchmarks.cpu_ops import (
    SEED,
    Case,
    Operation,
    add_arguments,
    check_arguments,
    report,
    run,
    size,
)

TOP_K, TOP_P, MIN_P = 50, 0.9, 0.05


def probabilities(batch: int, vocab: int) -> torch.Tensor:
    """As a language model gives them: a few large ones, and a long tail."""
    return torch.softmax(torch.randn(batch, vocab, generator=SEED) * 3, -1)


def sorted_nucleus(p: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorted rows with 0 outside of the nucleus, and the order of the sort."""
    values, order = p.sort(dim=-1, descending=True)
    values[values.cumsum(-1) - values >= top_p] = 0
    return values, order


def drawn(values: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    return order.gather(-1, torch.multinomial(values, 1))[:, 0]


def top_k_mask(x: torch.Tensor) -> torch.Tensor:
    return x < x.topk(TOP_K, -1).values[:, -1:]


def renormalised(p: torch.Tensor) -> torch.Tensor:
    return p / p.sum(-1, keepdim=True)


def torch_top_k_top_p(p: torch.Tensor) -> torch.Tensor:
    values, order = p.topk(TOP_K, -1)
    values = renormalised(values)
    values[values.cumsum(-1) - values >= TOP_P] = 0
    return drawn(values, order)


def torch_joint(p: torch.Tensor) -> torch.Tensor:
    values, order = p.topk(TOP_K, -1)
    values[values.cumsum(-1) - values >= TOP_P] = 0
    return drawn(values, order)


def torch_min_p(p: torch.Tensor) -> torch.Tensor:
    kept = p.masked_fill(p < p.amax(-1, keepdim=True) * MIN_P, 0)
    return torch.multinomial(kept, 1)[:, 0]


def torch_top_p_renorm(p: torch.Tensor) -> torch.Tensor:
    values, order = sorted_nucleus(p, TOP_P)
    return torch.zeros_like(p).scatter_(-1, order, renormalised(values))


def speculation(batch: int, vocab: int) -> Case:
    length = 4
    draft = probabilities(batch * length, vocab).view(batch, length, vocab)
    target = probabilities(batch * (length + 1), vocab).view(batch, length + 1, vocab)
    # Half of the requests have all their tokens accepted, half lose the third.
    target[: batch // 2, :length] = draft[: batch // 2]
    target[:, :2] = draft[:, :2]
    ids = torch.multinomial(draft.view(-1, vocab), 1, generator=SEED).view(batch, length)
    u = torch.rand(batch, length + 1, generator=SEED)
    rows = torch.arange(batch)

    def plain() -> torch.Tensor:
        places = ids[..., None]
        p = draft.gather(-1, places)[..., 0]
        q = target[:, :length].gather(-1, places)[..., 0]
        accepted = (u[:, :length] * p < q).int().cumprod(-1)
        count = accepted.sum(-1)
        row = target[rows, count]
        other = draft[rows, count.clamp(max=length - 1)]
        row = torch.where((count < length)[:, None], (row - other).clamp(min=0), row)
        out = torch.cat([ids.where(accepted.bool(), -1), ids.new_full((batch, 1), -1)], -1)
        out[rows, count] = torch.multinomial(row, 1)[:, 0]
        return out

    return Case(
        "chain_speculative",
        torch.float32,
        f"{batch} x {length} x {vocab}",
        2 * size(draft) // length,
        lambda: flashinfer.chain_speculative_sampling(draft, ids, u, target),
        plain,
    )


def forms(batch: int, vocab: int) -> dict[str, tuple[int, Operation, Operation]]:
    """By name: how many tensors like probs are read and written, ours, and torch's."""
    p = probabilities(batch, vocab)
    x = p.log()
    u = torch.rand(1, batch, generator=SEED)
    both = flashinfer.top_k_top_p_sampling_from_probs
    from_logits = flashinfer.top_k_top_p_sampling_from_logits
    return {
        "sampling": (
            1,
            lambda: flashinfer.sampling_from_probs(p, u[0]),
            lambda: torch.multinomial(p, 1)[:, 0],
        ),
        "top_p_sampling": (
            1,
            lambda: flashinfer.top_p_sampling_from_probs(p, u, TOP_P),
            lambda: drawn(*sorted_nucleus(p, TOP_P)),
        ),
        "top_k_sampling": (
            1,
            lambda: flashinfer.top_k_sampling_from_probs(p, u, TOP_K),
            lambda: drawn(*p.topk(TOP_K, -1)),
        ),
        "min_p_sampling": (
            1,
            lambda: flashinfer.min_p_sampling_from_probs(p, u, MIN_P),
            lambda: torch_min_p(p),
        ),
        "top_k_top_p, top_k_first": (
            1,
            lambda: both(p, u, TOP_K, TOP_P),
            lambda: torch_top_k_top_p(p),
        ),
        "top_k_top_p, joint": (
            1,
            lambda: both(p, u, TOP_K, TOP_P, "joint"),
            lambda: torch_joint(p),
        ),
        "top_k_top_p, logits": (
            1,
            lambda: from_logits(x, u, TOP_K, TOP_P),
            lambda: torch_top_k_top_p(torch.softmax(x, -1)),
        ),
        "top_p_renorm": (
            2,
            lambda: flashinfer.top_p_renorm_probs(p, TOP_P),
            lambda: torch_top_p_renorm(p),
        ),
        "top_k_renorm": (
            2,
            lambda: flashinfer.top_k_renorm_probs(p, TOP_K),
            lambda: renormalised(p.masked_fill(top_k_mask(p), 0)),
        ),
        "top_k_mask_logits": (
            2,
            lambda: flashinfer.top_k_mask_logits(x, TOP_K),
            lambda: x.masked_fill(top_k_mask(x), -torch.inf),
        ),
        "softmax": (
            2,
            lambda: flashinfer.softmax(x, 0.7),
            lambda: torch.softmax(x / 0.7, -1),
        ),
        "top_k": (
            1,
            lambda: flashinfer.top_k(x, TOP_K, sorted=True),
            lambda: x.topk(TOP_K, -1),
        ),
    }


def cases() -> list[Case]:
    """Every form for two vocabularies and three batches."""
    rows: list[Case] = []
    for vocab in (32000, 128256):
        for batch in (1, 8, 64):
            shape, one = f"{batch} x {vocab}", batch * vocab * 4
            rows += [
                Case(name, torch.float32, shape, tensors * one, ours, plain)
                for name, (tensors, ours, plain) in forms(batch, vocab).items()
            ]
            rows.append(speculation(min(batch, 16), vocab))  # five rows of each model a request
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    options = parser.parse_args()
    check_arguments(parser, options)
    report(run(options, cases()), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
