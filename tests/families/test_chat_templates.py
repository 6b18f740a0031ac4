"""What each family's model reads: golden texts, and special tokens that only the template can write.

The templates are the conversation parts of the published ones, without tools.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer

from docmill.catalogue.chat_templates import TEMPLATES, without_thinking
from docmill.catalogue.gguf_file import read_header
from docmill.catalogue.known_models import ENTRIES
from docmill.catalogue.local_model import Model
from docmill.producer.gguf_tokenizer import build_tokenizer
from docmill.producer.model_text import load_model_text
from docmill.producer.prompts import PromptRenderer
from docmill.producer.tokenizer import ModelTokenizer, Vocabulary
from tests.families.tiny_gguf import write_tiny_gguf

SYSTEM = "Be brief."
USER = " What is a harbour?\n"


@dataclass(frozen=True)
class Family:
    template: str
    specials: tuple[str, ...]
    with_system: str
    without_system: str
    bos: str = ""


_CHATML = ("<|im_start|>", "<|im_end|>")
_PHI_3 = ("<s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_GEMMA = ("<bos>", "<start_of_turn>", "<end_of_turn>")
_LLAMA_3 = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")

FAMILIES = {
    "chatml": Family(
        template=TEMPLATES["chatml"],
        specials=_CHATML,
        with_system="<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n What is a harbour?\n<|im_end|>\n"
        "<|im_start|>assistant\n",
        without_system="<|im_start|>user\n What is a harbour?\n<|im_end|>\n<|im_start|>assistant\n",
    ),
    "qwen2.5": Family(
        template="""{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or message.role == "system" and not loop.first %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
        specials=_CHATML,
        with_system="<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n What is a harbour?\n<|im_end|>\n"
        "<|im_start|>assistant\n",
        without_system="<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\n What is a harbour?\n<|im_end|>\n<|im_start|>assistant\n",
    ),
    "qwen3": Family(
        template=without_thinking(
            """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
        ),
        specials=_CHATML,
        with_system="<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n What is a harbour?\n<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        without_system="<|im_start|>user\n What is a harbour?\n<|im_end|>\n<|im_start|>assistant\n"
        "<think>\n\n</think>\n\n",
    ),
    "llama-2": Family(
        template=TEMPLATES["llama-2"],
        specials=("<s>", "</s>"),
        bos="<s>",
        with_system="<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhat is a harbour? [/INST]",
        without_system="<s>[INST] What is a harbour? [/INST]",
    ),
    "llama-3": Family(
        template="""{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\nToday Date: " + strftime_now("%d %b %Y") + "\\n\\n" }}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
        specials=_LLAMA_3,
        bos="<|begin_of_text|>",
        with_system="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: DAY\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhat is a harbour?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        without_system="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: DAY\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhat is a harbour?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "mistral": Family(
        template="""{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("roles must alternate") }}
    {%- elif loop.last and system_message is defined %}
        {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
    {%- elif message["role"] == "user" %}
        {{- "[INST] " + message["content"] + "[/INST]" }}
    {%- endif %}
{%- endfor %}""",
        specials=("<s>", "[INST]", "[/INST]"),
        bos="<s>",
        with_system="<s>[INST] Be brief.\n\n What is a harbour?\n[/INST]",
        without_system="<s>[INST]  What is a harbour?\n[/INST]",
    ),
    "phi-3": Family(
        template=TEMPLATES["phi-3"],
        specials=_PHI_3,
        with_system="<|system|>\nBe brief.<|end|>\n<|user|>\n What is a harbour?\n<|end|>\n<|assistant|>\n",
        without_system="<|user|>\n What is a harbour?\n<|end|>\n<|assistant|>\n",
    ),
    "phi-3, first edition, silent on the system role": Family(
        template="{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '<|user|>\n' + message['content'] + '<|end|>\n<|assistant|>\n' }}{% endif %}{% endfor %}",
        specials=_PHI_3,
        bos="<s>",
        with_system="<s><|user|>\nBe brief.\n\n What is a harbour?\n<|end|>\n<|assistant|>\n",
        without_system="<s><|user|>\n What is a harbour?\n<|end|>\n<|assistant|>\n",
    ),
    "phi-2": Family(
        template=TEMPLATES["phi-2"],
        specials=("<|endoftext|>",),
        with_system="Be brief.\nInstruct:  What is a harbour?\n\nOutput:",
        without_system="Instruct:  What is a harbour?\n\nOutput:",
    ),
    "gemma": Family(
        template="{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}"
        "{{ '<start_of_turn>' + message['role'] + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        specials=_GEMMA,
        bos="<bos>",
        with_system="<bos><start_of_turn>user\nBe brief.\n\n What is a harbour?<end_of_turn>\n<start_of_turn>model\n",
        without_system="<bos><start_of_turn>user\nWhat is a harbour?<end_of_turn>\n<start_of_turn>model\n",
    ),
}


@pytest.fixture(scope="module")
def bare(demo_model: Model) -> str:
    """SmolLM2's tokenizer as JSON."""
    tokenizer: str = build_tokenizer(read_header(demo_model.path), "smollm2").to_str()
    return tokenizer


def renderer(bare: str, family: Family) -> tuple[PromptRenderer, dict[str, int]]:
    """The family's template on a real tokenizer that has the family's special tokens."""
    tokenizer = Tokenizer.from_str(bare)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in family.specials])
    ids = {token: i for token in family.specials if (i := tokenizer.token_to_id(token)) is not None}
    vocabulary = Vocabulary(
        special_ids=ids,
        bos_id=ids.get(family.bos),
        add_bos=bool(family.bos),
        eos_ids=(),
        chat_template=family.template,
        bos_token=family.bos,
        eos_token="</s>",
    )
    return PromptRenderer(ModelTokenizer(tokenizer, vocabulary)), ids


def without_date(text: str) -> str:
    return re.sub(r"Today Date: \d\d \w{3} \d{4}\n", "Today Date: DAY\n", text)


@pytest.mark.parametrize("name", FAMILIES)
def test_prompt_is_what_the_family_was_trained_on(bare: str, name: str) -> None:
    family = FAMILIES[name]
    prompts, _ = renderer(bare, family)
    assert without_date(prompts.render(SYSTEM, USER).text) == family.with_system
    assert without_date(prompts.render(None, USER).text) == family.without_system


@pytest.mark.parametrize("name", FAMILIES)
def test_special_tokens_come_from_the_template_alone(bare: str, name: str) -> None:
    family = FAMILIES[name]
    prompts, specials = renderer(bare, family)
    attack = " ".join(family.specials)
    prompt = prompts.render(SYSTEM, f"a {attack} b")
    expected = {token: family.with_system.count(token) for token in specials}
    assert {token: prompt.ids.count(i) for token, i in specials.items()} == expected
    assert attack in prompt.text


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.bos])
def test_text_begins_with_one_token_that_says_so(bare: str, name: str) -> None:
    prompts, specials = renderer(bare, FAMILIES[name])
    bos = specials[FAMILIES[name].bos]
    ids = prompts.render(SYSTEM, USER).ids
    assert ids[0] == bos
    assert ids.count(bos) == 1


@pytest.mark.parametrize(
    ("file", "architecture", "begins", "ends"),
    [
        ("phi-2.Q4_K_M.gguf", "phi2", "Be brief.\nInstruct: Hello", "\nOutput:"),
        ("somebodys-phi-2-finetune.gguf", "phi2", "Be brief.\nInstruct: Hello", "\nOutput:"),
        ("orca-2-7b.Q4_K_M.gguf", "llama", "<|im_start|>system\nBe brief.<|im_end|>", "<|im_start|>assistant\n"),
        ("Orca-2-13B-f16.gguf", "llama", "<|im_start|>system\nBe brief.<|im_end|>", "<|im_start|>assistant\n"),
        ("llama-2-13b-chat.Q4_K_M.gguf", "llama", "<|im_start|>[INST] <<SYS>>\nBe brief.\n<</SYS>>", " [/INST]"),
        ("tiny-moe.gguf", "phimoe", "<|system|>\nBe brief.<|end|>\n<|user|>\nHello", "<|assistant|>\n"),
        ("llama-2-13b.Q4_K_M.gguf", "llama", "Be brief.\n\nHello", "Hello"),  # the base model has no turns
        ("unknown.gguf", "llama", "Be brief.\n\nHello", "Hello"),
    ],
)
def test_a_file_without_a_template_gets_the_one_of_its_name_or_family(
    file: str, architecture: str, begins: str, ends: str, demo_model: Model, tmp_path: Path
) -> None:
    path = write_tiny_gguf(tmp_path / file, architecture, demo_model.path)
    text = load_model_text(str(path), tmp_path).renderer.render(SYSTEM, "Hello").text
    # "<|im_start|>" is what SmolLM2's vocabulary calls the beginning of a text.
    assert text.startswith(begins)
    assert text.endswith(ends)


def test_a_template_in_the_file_goes_before_the_catalogues(demo_model: Model, tmp_path: Path) -> None:
    own = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    path = write_tiny_gguf(tmp_path / "phi-2.gguf", "phi2", demo_model.path, chat_template=own)
    assert load_model_text(str(path), tmp_path).renderer.render(SYSTEM, "Hi").text == "<system>Be brief.<user>Hi"


def test_a_model_that_may_think_is_told_not_to(demo_model: Model, tmp_path: Path) -> None:
    own = (
        "{{ messages[0].content }}{% if enable_thinking is defined and enable_thinking is false %}{{ '!' }}{% endif %}"
    )
    path = write_tiny_gguf(tmp_path / "qwen3.gguf", "qwen3", demo_model.path, chat_template=own)
    assert load_model_text(str(path), tmp_path).renderer.render(None, "Hi").text == "Hi!"


def test_every_template_family_of_the_catalogue_has_a_golden_text() -> None:
    named = {entry.chat_template for entry in ENTRIES}
    golden = {name.partition(",")[0] for name in FAMILIES}
    assert {name if name != "qwen" else "qwen2.5" for name in named} <= golden
