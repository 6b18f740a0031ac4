"""The sampler's kernels, after the package's ext_sampling.cpp and sampling.cpp.

Temperature, top_k, top_p, min_p, the temperature that comes last and the penalties without decay are here. What is
kept is what the C++ keeps; the order of equals is not, so a seed need not draw the same token.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import torch

KERNELS = ("apply_rep_penalty", "fast_fill_cpu_ones_bool", "logit_filter_exclusive", "sample_basic")

_ROUNDING = 0.9998  # the draw is scaled by this: probabilities may sum to a little less than 1


def apply_rep_penalty(
    sequence: torch.Tensor,
    penalty: float,
    sustain: int,
    decay: int,
    frequency: float,
    presence: float,
    logits: torch.Tensor,
) -> None:
    """Make the tokens of the last `sustain` (-1: all) of each sequence less likely, in place."""
    if decay:
        raise NotImplementedError("the CPU stand-in has no decay of the repetition penalty")
    for ids, row in zip(sequence, logits.view(sequence.shape[0], -1), strict=True):
        recent = ids if sustain == -1 else ids[max(len(ids) - sustain, 0) :]
        seen, count = recent[recent < row.numel()].unique(return_counts=True)
        values = row[seen]
        row[seen] = torch.where(values > 0, values / penalty, values * penalty) - presence - frequency * count


def fast_fill_cpu_ones_bool(tensor: torch.Tensor) -> None:
    """Every element becomes True."""
    tensor.fill_(True)


def logit_filter_exclusive(logit_filter: torch.Tensor, allowed: Sequence[Sequence[int]]) -> None:
    """Keep, in each row of the filter, only the allowed ids."""
    for row, ids in zip(logit_filter, allowed, strict=True):
        keep = torch.zeros_like(row)
        keep[torch.as_tensor(list(ids), dtype=torch.long)] = True
        row &= keep


def sample_basic(
    logits: torch.Tensor,
    temperature: float,
    top_k: int,
    top_p: float,
    top_a: float,
    min_p: float,
    tfs: float,
    typical: float,
    random: float,
    output_tokens: torch.Tensor,
    output_probs: torch.Tensor,
    output_kprobs: torch.Tensor,
    output_ktokens: torch.Tensor,
    logit_filter: torch.Tensor,
    mirostat: bool,
    mirostat_mu: list[float],
    mirostat_tau: float,
    mirostat_eta: float,
    post_temperature: float,
    xtc_mask: torch.Tensor,
    xtc_probability: float,
    xtc_threshold: float,
    min_temp: float,
    max_temp: float,
    temp_exponent: float,
    smoothing_factor: float,
    skew: float,
) -> list[float]:
    """Draw one token for each row of logits (batch, 1, vocabulary) into the output tensors (batch, 1)."""
    asked = {"top_a": top_a, "tfs": tfs, "typical": typical, "mirostat": mirostat, "xtc": xtc_probability,
             "dynamic temperature": max_temp > min_temp, "smoothing": smoothing_factor, "skew": skew}  # fmt: skip
    if missing := [name for name, value in asked.items() if value]:
        raise NotImplementedError(f"the CPU stand-in does not sample with {', '.join(missing)}")
    if logits.dtype != torch.float:
        raise RuntimeError("sample_basic wants logits as fp32")
    if temperature < 0.01:
        temperature, top_k = 1.0, 1
    for i in range(logits.shape[0]):
        row = logits[i].view(-1)
        if not logit_filter.is_meta:
            row = row.masked_fill(~logit_filter[i], float("-inf"))
        probs, ids = _candidates(row, temperature, top_k, top_p, min_p)
        if len(probs) > 1 and post_temperature != 1.0:
            probs = _normalized(probs.pow(1 / post_temperature))
        if not output_kprobs.is_meta:
            _show_most_probable(probs, ids, output_kprobs[i, 0], output_ktokens[i, 0])
        drawn = int((probs.cumsum(0) < random * _ROUNDING).sum())
        drawn = min(drawn, int(probs.nonzero()[-1]))
        output_tokens[i, 0], output_probs[i, 0] = ids[drawn], probs[drawn]
    return mirostat_mu


def _candidates(
    logits: torch.Tensor, temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that may be drawn: their probabilities, which sum to 1, and ids."""
    if top_k == 1:
        return torch.ones(1), logits.argmax().view(1)
    probs, ids = (logits / temperature).softmax(0), torch.arange(logits.numel())
    if 0 < top_k < len(probs):
        probs, ids = probs.topk(top_k)
        probs = _normalized(probs)
    if len(probs) > 1 and 0 < top_p < 1:
        kept = torch.tensor(_top_p(probs.tolist(), top_p))
        probs, ids = _normalized(probs[kept]), ids[kept]
    if len(probs) > 1 and 0 < min_p < 1:
        kept = probs >= probs.max() * min_p
        probs, ids = _normalized(probs[kept]), ids[kept]
    return probs, ids


def _top_p(probs: list[float], top_p: float) -> list[int]:
    """Indices of what top_p keeps, most probable first. Together they do not exceed top_p, unless it is one alone.

    (Elsewhere the token that crosses top_p is kept as well.)
    """
    heap: list[tuple[float, int]] = []
    total = 0.0
    for i, p in enumerate(probs):
        if p < 1e-6:
            continue
        heapq.heappush(heap, (p, i))
        total += p
        while total > top_p and len(heap) > 1:
            total -= heapq.heappop(heap)[0]
    return [i for _, i in sorted(heap, reverse=True)]


def _normalized(probs: torch.Tensor) -> torch.Tensor:
    return probs / probs.sum()


def _show_most_probable(probs: torch.Tensor, ids: torch.Tensor, to_probs: torch.Tensor, to_ids: torch.Tensor) -> None:
    """The most probable candidates; where there are fewer than asked for, others with probability 0."""
    best = probs.topk(min(len(probs), len(to_probs)))
    chosen = ids[best.indices].tolist()
    fill = (i for i in range(len(to_ids) + len(chosen)) if i not in chosen)
    chosen += [next(fill) for _ in range(len(to_ids) - len(chosen))]
    to_ids.copy_(torch.tensor(chosen))
    to_probs.zero_()
    to_probs[: len(best.values)] = best.values
