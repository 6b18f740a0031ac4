"""Chat templates for models whose files have none: Phi-2, and conversions made before files contained templates.

Each follows the prompt format on the model's card. A template in the model's files takes precedence.
"""

from __future__ import annotations

from docmill.catalogue.families import family_of
from docmill.catalogue.known_models import find_entry_of_file

# https://github.com/openai/openai-python/blob/release-v0.28.1/chatml.md; Orca 2 uses it.
_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'"
    " + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# https://huggingface.co/microsoft/phi-2: the QA format. It has no roles: the system's text comes first.
_PHI_2 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + '\\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Instruct: ' + message['content'] + '\\n' }}"
    "{% else %}{{ 'Output: ' + message['content'] + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Output:' }}{% endif %}"
)
# https://huggingface.co/microsoft/Phi-3.5-MoE-instruct
_PHI_3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
# https://huggingface.co/meta-llama/Llama-2-7b-chat-hf
_LLAMA_2 = (
    "{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{% set ns.system = '<<SYS>>\\n' + message['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% elif message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + ns.system + message['content'] | trim + ' [/INST]' }}{% set ns.system = '' %}"
    "{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)

TEMPLATES = {"chatml": _CHATML, "phi-2": _PHI_2, "phi-3": _PHI_3, "llama-2": _LLAMA_2}


def template_for(name: str, architecture: str) -> str | None:
    """The template for a model without one, by its name or its family; None if both are unknown.

    `name` is a catalogue name or the name of a file or directory, such as `llama-2-7b-chat.q4_k_m`; `architecture` is
    the name in its config.json or GGUF header.
    """
    entry, family = find_entry_of_file(name), family_of(architecture)
    chosen = entry.chat_template if entry is not None else family.template if family is not None else None
    return TEMPLATES.get(chosen) if chosen is not None else None


def without_thinking(template: str) -> str:
    """The template with thinking disabled, for models that can think before they answer, such as Qwen3.

    The thoughts would be part of the answer and use up its `max_tokens`.
    """
    return "{% set enable_thinking = false %}" + template if "enable_thinking" in template else template
