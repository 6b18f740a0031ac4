"""Which engines run which architecture, and the chat template of model families whose files may lack one.

exllamav2 0.3.2 only warns about an unknown architecture and loads it as a Llama, so docmill refuses architectures that
are not listed here. OpenVINO GenAI 2026.4 reads few architectures from GGUF files; llama.cpp reads all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from docmill.catalogue.errors import CatalogueError


@dataclass(frozen=True, slots=True)
class Family:
    """`hf` are the names used in config.json, `gguf` is `general.architecture` of a GGUF file.

    exllamav2 runs those of `hf` that `exllamav2` lists. `template` is a name in chat_templates.py, for files without a
    template.
    """

    name: str
    hf: tuple[str, ...]
    gguf: str
    exllamav2: tuple[str, ...] = ()
    openvino: bool = False
    template: str | None = None


def _family(name: str, architecture: str, gguf: str, *, openvino: bool = False) -> Family:
    return Family(name, (architecture,), gguf, exllamav2=(architecture,), openvino=openvino)


FAMILIES = (
    _family("Llama", "LlamaForCausalLM", "llama", openvino=True),
    _family("Mistral", "MistralForCausalLM", "llama", openvino=True),
    _family("Mixtral", "MixtralForCausalLM", "llama"),
    Family("Phi-2", ("PhiForCausalLM",), "phi2", template="phi-2"),
    _family("Phi-3", "Phi3ForCausalLM", "phi3"),
    Family("Phi-3.5-MoE", ("PhiMoEForCausalLM", "PhimoeForCausalLM"), "phimoe", template="phi-3"),
    _family("Qwen2", "Qwen2ForCausalLM", "qwen2", openvino=True),
    _family("Qwen3", "Qwen3ForCausalLM", "qwen3", openvino=True),
    _family("Qwen3-MoE", "Qwen3MoeForCausalLM", "qwen3moe"),
    _family("Gemma", "GemmaForCausalLM", "gemma"),
    _family("Gemma 2", "Gemma2ForCausalLM", "gemma2"),
    Family(
        "Gemma 3",
        ("Gemma3ForConditionalGeneration", "Gemma3ForCausalLM"),
        "gemma3",
        exllamav2=("Gemma3ForConditionalGeneration",),
    ),
)


class ArchitectureUnsupported(CatalogueError):
    """The engine does not support this architecture."""

    def __init__(self, architecture: str, engine: str) -> None:
        self.architecture, self.engine = architecture, engine
        others = [name for name in engines_for(architecture) if name != engine]
        hint = f"{' or '.join(others)} runs its GGUF files" if others else "llamacpp runs most models as GGUF files"
        super().__init__(f"{engine} does not run {architecture}; {hint} (`docmill models list` names some)")


def family_of(architecture: str) -> Family | None:
    """The family of an architecture name from config.json or a GGUF file; Llama for the GGUF name `llama`."""
    return next((family for family in FAMILIES if architecture in (*family.hf, family.gguf)), None)


def engines_for(architecture: str) -> tuple[str, ...]:
    """The engines that run models of this architecture, the fastest first; OpenVINO and llama.cpp run GGUF files.

    For the name in a GGUF file: the engines that run that file. There are none for an unknown name.
    """
    family = family_of(architecture)
    if family is None:
        return ()
    engines = ("exllamav2",) if architecture in family.exllamav2 else ()
    return (*engines, *(("openvino",) if family.openvino else ()), "llamacpp")


def require_exllamav2(architecture: str) -> None:
    """Raise ArchitectureUnsupported, which names an engine that works, if exllamav2 does not run the architecture."""
    if "exllamav2" not in engines_for(architecture):
        raise ArchitectureUnsupported(architecture, "exllamav2")
