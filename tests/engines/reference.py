"""A plain Llama in numpy and fp32: what every engine's greedy text is held against.

Written to be read beside the papers, not to be fast. Weights come from a GGUF, dequantized by the `gguf` package.
A GGUF of a Llama stores the rows of the query and key weights so that rotary embedding turns neighbours (2i, 2i + 1),
where Hugging Face's files turn i and i + head/2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf.quants import dequantize

Floats = npt.NDArray[np.float32]


class ReferenceLlama:
    """Greedy continuations of several prompts at once. Batch B, length T, heads H, key heads K, head size D."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)

        def value(key: str) -> Any:
            return reader.fields[f"llama.{key}"].contents()

        self._weights: dict[str, Floats] = {
            tensor.name.removesuffix(".weight"): dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            for tensor in reader.tensors
        }
        self._layers = int(value("block_count"))
        self._heads = int(value("attention.head_count"))
        self._key_heads = int(value("attention.head_count_kv"))
        self._epsilon = float(value("attention.layer_norm_rms_epsilon"))
        self._head = int(value("embedding_length")) // self._heads
        pairs = np.arange(0, self._head, 2, dtype=np.float64) / self._head
        self._frequencies = float(value("rope.freq_base")) ** -pairs

    def greedy(self, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        """The `count` most likely next tokens of each prompt, one after the other; no token ends a text."""
        caches = [_Cache(self._layers) for _ in prompts]
        last = np.stack([self._run([prompt], [cache])[0] for prompt, cache in zip(prompts, caches, strict=True)])
        written: list[list[int]] = [[] for _ in prompts]
        for step in range(count):
            chosen = last.argmax(axis=-1)
            for text, token in zip(written, chosen, strict=True):
                text.append(int(token))
            if step + 1 < count:
                last = self._run([[int(token)] for token in chosen], caches)
        return written

    def _run(self, tokens: Sequence[Sequence[int]], caches: Sequence[_Cache]) -> Floats:
        """Logits (B, vocabulary) behind the last of the new tokens (B, T), which join the caches."""
        hidden = self._weights["token_embd"][np.asarray(tokens)]
        for layer in range(self._layers):
            name = f"blk.{layer}"
            hidden = hidden + self._attend(layer, self._normed(hidden, f"{name}.attn_norm"), caches)
            normed = self._normed(hidden, f"{name}.ffn_norm")
            gate, up = self._linear(normed, f"{name}.ffn_gate"), self._linear(normed, f"{name}.ffn_up")
            hidden = hidden + self._linear(gate / (1 + np.exp(-gate)) * up, f"{name}.ffn_down")
        output = "output" if "output" in self._weights else "token_embd"  # tied embeddings
        return self._linear(self._normed(hidden[:, -1], "output_norm"), output)

    def _attend(self, layer: int, normed: Floats, caches: Sequence[_Cache]) -> Floats:
        name = f"blk.{layer}"
        query = self._split(self._linear(normed, f"{name}.attn_q"), self._heads)
        key = self._split(self._linear(normed, f"{name}.attn_k"), self._key_heads)
        value = self._split(self._linear(normed, f"{name}.attn_v"), self._key_heads)
        rows = [
            self._attend_one(query[row], key[row], value[row], layer, cache) for row, cache in enumerate(caches)
        ]  # each prompt has a length of its own
        return self._linear(np.stack(rows), f"{name}.attn_output")

    def _attend_one(self, query: Floats, key: Floats, value: Floats, layer: int, cache: _Cache) -> Floats:
        """One prompt's new tokens (T, heads, D) over all it has read: (T, H * D)."""
        known = cache.length(layer)
        positions = np.arange(known, known + len(query))
        keys, values = cache.extend(layer, self._rotated(key, positions), value)
        group = self._heads // self._key_heads  # query heads that share a key head
        keys, values = np.repeat(keys, group, axis=1), np.repeat(values, group, axis=1)
        scores = np.einsum("thd,shd->hts", self._rotated(query, positions), keys) / np.float32(np.sqrt(self._head))
        future = np.arange(len(keys))[None, :] > positions[:, None]
        scores = np.where(future, np.float32(-np.inf), scores)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        return np.einsum("hts,shd->thd", scores, values).reshape(len(query), -1)

    def _rotated(self, heads: Floats, positions: npt.NDArray[np.int64]) -> Floats:
        """Rotary embedding of (T, heads, D), by neighbouring pairs."""
        angles = (positions[:, None] * self._frequencies)[:, None, :]
        cosine, sine = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        even, odd = heads[..., 0::2], heads[..., 1::2]
        turned = np.stack((even * cosine - odd * sine, even * sine + odd * cosine), axis=-1)
        return turned.reshape(heads.shape)

    def _normed(self, hidden: Floats, name: str) -> Floats:
        mean_square = np.mean(hidden * hidden, axis=-1, keepdims=True)
        return hidden / np.sqrt(mean_square + np.float32(self._epsilon)) * self._weights[name]

    def _linear(self, hidden: Floats, name: str) -> Floats:
        return hidden @ self._weights[name].T

    def _split(self, hidden: Floats, heads: int) -> Floats:
        return hidden.reshape(*hidden.shape[:-1], heads, self._head)


class _Cache:
    """Keys and values of one prompt, (T, key heads, D) a layer."""

    def __init__(self, layers: int) -> None:
        self._layers: list[tuple[Floats, Floats] | None] = [None] * layers

    def length(self, layer: int) -> int:
        stored = self._layers[layer]
        return 0 if stored is None else len(stored[0])

    def extend(self, layer: int, keys: Floats, values: Floats) -> tuple[Floats, Floats]:
        """Append and return all of them."""
        stored = self._layers[layer]
        if stored is not None:
            keys, values = np.concatenate((stored[0], keys)), np.concatenate((stored[1], values))
        self._layers[layer] = keys, values
        return keys, values
