"""What the tests do with the real package. These functions run inside a `Child`: they import no more than they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.exllamav2_cpu.generation import Output, add, finish, generate, load, steps

PROMPTS = ("The quick brown fox jumps over", "A mill on a river", "It was the best of times, it was")
LONG = " ".join(f"Sentence {i} of a long document about mills." for i in range(60))  # 651 tokens, three pages


def texts(directory: Path) -> list[str]:
    """What a model writes after the prompts."""
    return [output.text for output in generate(load(directory), PROMPTS, 24)]


def answer(directory: Path, prompt: str) -> str:
    """The greedy answer, up to the end-of-text token."""
    generator = load(directory)
    ids = generator.tokenizer.encode(prompt, encode_special_tokens=True)[0].tolist()
    return generate(generator, [ids], 32, stop_conditions=[generator.tokenizer.eos_token_id])[0].text


def text_without_pages(directory: Path, *, as_packaged: bool = False) -> str:
    """The first of them, written without flash-attn."""
    generator = load(directory, paged=False, flash_attn=False, as_packaged=as_packaged)
    return generate(generator, PROMPTS[:1], 24)[0].text


def call_missing_kernel() -> None:
    """An EXL2 kernel."""
    from exllamav2.ext import exllamav2_ext

    kernel = exllamav2_ext.gemm_half_q_half
    kernel(1, 2)


@dataclass(frozen=True, slots=True)
class Compared:
    """A job's tokens, the plain forward pass's best at each place, and how far the logits are from its own."""

    chosen: tuple[int, ...]
    best: tuple[int, ...]
    mean_logit_error: float
    logit_range: float
    worst_choice: float  # by how much a chosen token's logit is below the best


def compare(
    directory: Path, prompts: Sequence[str], max_new_tokens: int, *, cache_bits: int = 16, as_packaged: bool = False
) -> list[Compared]:
    """Finish all prompts (special tokens are read as such) in one batch, then follow each with the plain pass."""
    import torch

    from tests.exllamav2_cpu.plain_forward import forward

    generator = load(directory, cache_bits, as_packaged=as_packaged)
    encoded = [generator.tokenizer.encode(p, encode_special_tokens=True)[0].tolist() for p in prompts]
    outputs = generate(generator, encoded, max_new_tokens, return_logits=True)
    compared = []
    for ids, output in zip(encoded, outputs, strict=True):
        plain = forward(directory, [*ids, *output.ids[:-1]])[len(ids) - 1 :]
        chosen = plain.gather(1, torch.tensor(output.ids).view(-1, 1))[:, 0]
        compared.append(
            Compared(
                chosen=output.ids,
                best=tuple(plain.argmax(1).tolist()),
                mean_logit_error=float((torch.from_numpy(output.logits) - plain).abs().mean()),
                logit_range=float(plain.max() - plain.min()),
                worst_choice=float((plain.max(1).values - chosen).max()),
            )
        )
    return compared


def join_late(directory: Path) -> tuple[Output, Output, int]:
    """A job alone, the same job joining two others, and how many then ran in one step."""
    generator = load(directory)
    alone = generate(generator, PROMPTS[:1], 20)[0]
    add(generator, PROMPTS[1], 40, 1)
    add(generator, PROMPTS[2], 40, 2)
    steps(generator, 10)
    add(generator, PROMPTS[0], 20, 0)
    results = steps(generator, 1)
    running = sum(result["stage"] == "streaming" for result in results)
    return alone, finish(generator, results)[0], running


def same_beginning(directory: Path) -> tuple[Output, Output, Output]:
    """A long prompt, another with the same beginning, and that one with an empty cache."""
    generator = load(directory)
    generator.reset_page_table()
    first = generate(generator, [f"{LONG} One."], 8)[0]
    second = generate(generator, [f"{LONG} Two."], 8)[0]
    generator.reset_page_table()
    return first, second, generate(generator, [f"{LONG} Two."], 8)[0]


def cancel_one_of_two(directory: Path) -> tuple[dict[int, Output], Output, int]:
    """What comes after one job was cancelled, the other one alone, and the pages still in use."""
    generator = load(directory)
    alone = generate(generator, PROMPTS[:1], 20)[0]
    add(generator, PROMPTS[0], 20, 0)
    other = add(generator, PROMPTS[1], 100, 1)
    earlier = [r for r in steps(generator, 5) if r["identifier"] == 0]
    generator.cancel(other)
    return finish(generator, earlier), alone, len(generator.referenced_pages)


def defragment(directory: Path) -> tuple[int, Output, Output]:
    """Pages moved, and a long prompt before and after."""
    import exllamav2_ext

    generator = load(directory)
    before = generate(generator, [f"{LONG} End."], 8)[0]
    for i in range(12):
        generate(generator, [f"{i} {LONG[: 900 + i]}", f"{i} {i}", f"{LONG} End."], 4)
    return exllamav2_ext.calls["cache_rotate"], before, generate(generator, [f"{LONG} End."], 8)[0]


def logits_and_cache_bytes(directory: Path, bits: int) -> tuple[NDArray[np.float32], int]:
    """Logits of the second token after a long prompt, and the bytes of the cache's tensors."""
    generator = load(directory, bits)
    generate(generator, PROMPTS, 2)  # so that the long prompt's pages are not the first
    ids = generator.tokenizer.encode(LONG)[0].tolist()
    output = generate(generator, [ids], 2, return_logits=True)[0]
    tensors = generator.cache.all_tensors()
    return output.logits[0], sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def gpus() -> list[tuple[str, int]]:
    """Name and bytes of every GPU."""
    import exllamav2  # noqa: F401
    import torch

    every = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [(gpu.name, gpu.total_memory) for gpu in every]


def spread(directory: Path) -> tuple[dict[str, int], list[int], list[str]]:
    """Where three modules lie, what each GPU holds, and what the model writes."""
    import torch

    model = load(directory).model
    devices = {
        "embed_tokens": model.modules[0].device_idx,
        "first layer": model.modules[1].device_idx,
        "lm_head": model.modules[-1].device_idx,
    }
    allocated = [torch.cuda.memory_allocated(i) for i in range(torch.cuda.device_count())]
    return devices, allocated, texts(directory)


def load_too_large_a_cache(directory: Path) -> tuple[str, list[int]]:
    """The error, and what it left on the GPUs."""
    import gc

    import torch

    load.cache_clear()
    message = ""
    try:
        load(directory, cache_tokens=1 << 22)
    except RuntimeError as error:
        message = str(error)
    gc.collect()
    return message, [torch.cuda.memory_allocated(i) for i in range(torch.cuda.device_count())]


def allocated_by_loading(directory: Path) -> tuple[int, int]:
    """Bytes counted on the GPU for one model, and those of its weights (without the embedding) and cache."""
    import exllamav2  # noqa: F401
    import torch

    before = torch.cuda.memory_allocated(0)
    generator = load(directory, cache_tokens=4096)
    counted = torch.cuda.memory_allocated(0) - before
    weights = sum(module.weight_footprint() for module in generator.model.modules[1:])
    return counted, weights + sum(tensor.numel() * 2 for tensor in generator.cache.all_tensors())


def fault(directory: Path, variable: str, step: int, once: Path | None = None) -> tuple[str | None, int, list[str]]:
    """The kind of error, the steps before it, and what the generator writes after it was cleared."""
    import os

    os.environ[variable] = str(step)
    if once is not None:
        os.environ["DOCMILL_TEST_FAULT_ONCE"] = str(once)
    load.cache_clear()
    generator = load(directory)
    add(generator, PROMPTS[0], 24)
    kind, done = None, 0
    try:
        while generator.num_remaining_jobs():
            generator.iterate()
            done += 1
    except RuntimeError as error:  # OutOfMemoryError is one
        kind = type(error).__name__
    os.environ.pop("DOCMILL_TEST_FAULT_ONCE", None)
    del os.environ[variable]
    generator.clear_queue()
    generator.reset_page_table()
    return kind, done, texts(directory)
