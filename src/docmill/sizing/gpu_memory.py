"""What a model occupies on GPUs once it is loaded: arithmetic only, in bytes and tokens.

The numbers follow exllamav2 0.3.2. `load_autosplit` fills one GPU after another, module by module; each module's
`scratch_space_fixed` and the tensors of the caches give the sizes (attn.py, mlp.py, moe_mlp.py, linear.py, cache.py,
device.py). Activations and the CUDA context are estimates: the log of a worker has the measured sizes. exllamav3 keeps
a cache of the same size; the other numbers are estimates for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from docmill.sizing.model_shape import ModelShape

PAGE_TOKENS = 256  # the cache is allocated in pages

_MIB = 1 << 20
_RESERVE = (192 * _MIB, 64 * _MIB)  # load_autosplit's default for the first GPU and for the others
_LOAD_MARGIN = 256 * _MIB  # load_autosplit keeps it free on every GPU until the model is loaded
_CONTEXT = 400 * _MIB  # of the driver and torch, for each process and GPU
_LARGEST_DEQUANTIZED = 512 << 20  # elements; config.max_dq_size
_HALF = 2  # bytes


class CacheType(StrEnum):
    """The precision of cached keys and values."""

    FP16 = "fp16"
    Q8 = "q8"
    Q6 = "q6"
    Q4 = "q4"

    @classmethod
    def from_quantization(cls, quantization: str | None) -> CacheType:
        """The cache type for `optimization.quantization` in config.yaml. Raises ValueError."""
        return cls((quantization or "fp16").replace("int", "q"))

    @property
    def quantization(self) -> str:
        """The value of `optimization.quantization` in config.yaml for this cache type."""
        return self.replace("q", "int")

    @property
    def smaller(self) -> tuple[CacheType, ...]:
        """The types that need less memory, largest first."""
        types = tuple(CacheType)
        return types[types.index(self) + 1 :]

    def layer_bytes(self, shape: ModelShape) -> int:
        """Bytes per token and layer: key and value, with a scale for every 32 elements if they are quantized."""
        quarters = {CacheType.FP16: 32, CacheType.Q8: 17, CacheType.Q6: 13, CacheType.Q4: 9}[self]
        return shape.dimensions.kv_heads * shape.dimensions.head_dim * quarters // 8

    def bytes_per_token(self, shape: ModelShape) -> int:
        """Bytes per token in all layers."""
        return shape.layers * self.layer_bytes(shape)

    def unpacked_bytes(self, shape: ModelShape) -> int:
        """Bytes per token, once per GPU: the buffer into which a quantized layer is unpacked."""
        return 0 if self is CacheType.FP16 else 2 * _HALF * shape.dimensions.kv_heads * shape.dimensions.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """What one GPU holds. `layers` counts the layers whose cache is on this GPU."""

    vram_bytes: int
    layers: int = 0
    weights_bytes: int = 0
    cache_bytes: int = 0
    scratch_bytes: int
    tables_bytes: int
    activations_bytes: int
    reserve_bytes: int

    @property
    def used_bytes(self) -> int:
        """The sum of all parts."""
        return (
            self.weights_bytes + self.cache_bytes + self.scratch_bytes
            + self.tables_bytes + self.activations_bytes + self.reserve_bytes
        )  # fmt: skip

    @property
    def free_bytes(self) -> int:
        """What remains; negative if the GPU is too small."""
        return self.vram_bytes - self.used_bytes


@dataclass(frozen=True, slots=True)
class GpuLayout:
    """One way to load a model. `vram_bytes` is free on each GPU; `chunk` is the prompt tokens per forward pass."""

    shape: ModelShape
    vram_bytes: tuple[int, ...]
    window: int
    cache_type: CacheType
    chunk: int

    def most_tokens(self) -> int:
        """The largest cache that fits, in tokens; a multiple of PAGE_TOKENS."""
        low, high = 0, sum(self.vram_bytes) // (self.cache_type.bytes_per_token(self.shape) * PAGE_TOKENS)
        while low < high:
            middle = -(-(low + high) // 2)
            if all(device.free_bytes >= 0 for device in self.place(middle * PAGE_TOKENS)):
                low = middle
            else:
                high = middle - 1
        return low * PAGE_TOKENS

    def place(self, tokens: int) -> tuple[DeviceUse, ...]:
        """Fill one GPU after another with a cache of `tokens`, as autosplit does; the last GPU takes the excess."""
        cache = tokens * self.cache_type.layer_bytes(self.shape)
        unpacked = tokens * self.cache_type.unpacked_bytes(self.shape)
        uses = [self._empty(0)]
        left, layers, weights = uses[0].free_bytes, 0, 0
        for module, has_cache in self._modules():
            needs = module + (cache + (0 if layers else unpacked) if has_cache else 0)
            if needs > left and len(uses) < len(self.vram_bytes):
                uses[-1] = _filled(uses[-1], layers, weights, cache, unpacked)
                uses.append(self._empty(len(uses)))
                left, layers, weights = uses[-1].free_bytes, 0, 0
                needs = module + (cache + unpacked if has_cache else 0)
            left, layers, weights = left - needs, layers + has_cache, weights + module
        uses[-1] = _filled(uses[-1], layers, weights, cache, unpacked)
        return tuple(uses)

    def _modules(self) -> Iterator[tuple[int, bool]]:
        """The weights of each module in bytes, and whether the module has a cache."""
        for attention, mlp in zip(self.shape.attention_bytes, self.shape.mlp_bytes, strict=True):
            yield attention, True
            yield mlp, False
        yield self.shape.head_bytes, False

    def _empty(self, index: int) -> DeviceUse:
        return DeviceUse(
            vram_bytes=self.vram_bytes[index],
            scratch_bytes=scratch_bytes(self.shape, self.chunk),
            tables_bytes=self.shape.rotary_tables * 2 * _HALF * self.shape.rotary_dim * self.window,
            activations_bytes=_activations_bytes(self.shape, self.chunk),
            reserve_bytes=_RESERVE[min(index, 1)] + _LOAD_MARGIN + _CONTEXT,
        )


def scratch_bytes(shape: ModelShape, chunk: int) -> int:
    """The largest `scratch_space_fixed` of all modules, for prompt chunks of `chunk` tokens."""
    dimensions = shape.dimensions
    hidden, inter = dimensions.hidden, dimensions.intermediate
    query = dimensions.heads * dimensions.head_dim
    attention = chunk * _HALF * max(query, hidden) + 128 + _dequantized(hidden * query)
    if dimensions.experts > 1:
        mlp = chunk * _HALF * (2 * hidden + 2 * inter + dimensions.experts) + 5 * 128
    else:
        mlp = chunk * _HALF * (hidden + 2 * max(hidden, inter)) + 3 * 128
    return max(attention, mlp + _dequantized(hidden * inter), _dequantized(hidden * shape.padded_vocab))


def _dequantized(elements: int) -> int:
    return _HALF * min(elements, _LARGEST_DEQUANTIZED)


def _activations_bytes(shape: ModelShape, chunk: int) -> int:
    """What a forward pass allocates in addition to the scratch space (an estimate).

    Two hidden states, query, key, value and the output of attention.
    """
    dimensions = shape.dimensions
    state = 2 * dimensions.hidden * shape.residual_bytes
    attention = _HALF * dimensions.head_dim * 2 * (dimensions.heads + dimensions.kv_heads)
    experts = 3 * _HALF * dimensions.hidden if dimensions.experts > 1 else 0
    return chunk * (state + attention + experts)


def _filled(use: DeviceUse, layers: int, weights: int, cache: int, unpacked: int) -> DeviceUse:
    cache_bytes = layers * cache + (unpacked if layers else 0)
    return replace(use, layers=layers, weights_bytes=weights, cache_bytes=cache_bytes)
