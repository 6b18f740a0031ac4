"""Chat templates for models whose files bring none: conversions made before files carried templates, and Phi-2.

Each as its model's card describes the prompt. A model's own template always comes first.
"""

from __future__ import annotations

from docmill.catalogue.families import family_of
from docmill.catalogue.lookup import find_entry_of_file

# https://github.com/openai/openai-python/blob/release-v0.28.1/chatml.md; Orca 2 uses it.
_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'"
    " + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# https://huggingface.co/microsoft/phi-2: the QA format. It knows no roles: the system's text goes first.
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
    """The template of a model whose files bring none, by its name or else its family; None where neither tells.

    `name` is a catalogue name or a file's or directory's own, as `llama-2-7b-chat.q4_k_m`; `architecture` as its
    config.json or GGUF header writes it.
    """
    entry, family = find_entry_of_file(name), family_of(architecture)
    chosen = entry.chat_template if entry is not None else family.template if family is not None else None
    return TEMPLATES.get(chosen) if chosen is not None else None


def without_thinking(template: str) -> str:
    """The template of a model that may think before it answers, as Qwen3's, told that it shall not.

    What it thinks would be part of its answer, and would take the room of `max_tokens` from it.
    """
    return "{% set enable_thinking = false %}" + template if "enable_thinking" in template else template
