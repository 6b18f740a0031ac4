"""The real exllamav2 0.3.2 on the stand-in: pages, batches, caches and every architecture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from docmill.catalogue.local_model import Model
from tests.exllamav2_cpu import scenarios
from tests.exllamav2_cpu.child import SITE, Child
from tests.exllamav2_cpu.generation import load
from tests.exllamav2_cpu.models import ARCHITECTURES, Shape, tiny_model

WIDE = Shape(kv_heads=16, heads=16)  # one token's keys fill a block of the quantized cache, as in large models


def test_kernel_that_is_not_there_raises_when_it_is_called(child: Child) -> None:
    with pytest.raises(NotImplementedError, match="gemm_half_q_half"):
        child.run(scenarios.call_missing_kernel)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_agrees_with_a_plain_forward_pass(
    child: Child, demo_model: Model, tmp_path: Path, architecture: str
) -> None:
    directory = tiny_model(tmp_path, demo_model.path, architecture)
    prompts = (*scenarios.PROMPTS, scenarios.LONG[:1800])
    for compared in child.run(scenarios.compare, directory, prompts, 12):
        assert len(set(compared.chosen)) > 2
        assert compared.mean_logit_error < compared.logit_range / 2000
        assert compared.worst_choice < compared.logit_range / 500


def test_qwen3_needs_its_head_norm_set_right(child: Child, demo_model: Model, tmp_path: Path) -> None:
    directory = tiny_model(tmp_path, demo_model.path, "Qwen3ForCausalLM")
    compared = child.run(scenarios.compare, directory, scenarios.PROMPTS, 4, as_packaged=True)
    assert all(one.mean_logit_error > one.logit_range / 200 for one in compared)


def test_fused_weights_give_the_text_of_the_same_weights_apart(
    child: Child, demo_model: Model, llama: Path, tmp_path: Path
) -> None:
    phi = tiny_model(tmp_path, demo_model.path, "Phi3ForCausalLM")
    assert child.run(scenarios.texts, phi) == child.run(scenarios.texts, llama)


def test_job_that_joins_a_running_batch_writes_what_it_writes_alone(child: Child, llama: Path) -> None:
    alone, late, running = child.run(scenarios.join_late, llama)
    assert late.ids == alone.ids
    assert running == 3, "the third job did not run beside the two others"


def test_second_job_with_the_same_beginning_reuses_its_pages(child: Child, llama: Path) -> None:
    first, second, fresh = child.run(scenarios.same_beginning, llama)
    assert first.cached_tokens == 0
    assert second.cached_tokens >= 512
    assert second.ids == fresh.ids


def test_cancelled_job_frees_its_pages_and_leaves_the_others_alone(child: Child, llama: Path) -> None:
    outputs, alone, pages_in_use = child.run(scenarios.cancel_one_of_two, llama)
    assert set(outputs) == {0}
    assert outputs[0].ids == alone.ids
    assert pages_in_use == 0


def test_pages_moved_by_defragmentation_keep_what_they_hold(child: Child, llama: Path) -> None:
    moved, before, after = child.run(scenarios.defragment, llama)
    assert moved > 0
    assert after.cached_tokens >= 512
    assert after.ids == before.ids


@pytest.mark.parametrize(("shape", "kinds"), [(Shape(), (8, 6, 4)), (WIDE, (4,))], ids=["narrow", "wide"])
def test_quantized_caches_take_the_memory_they_should_and_lose_little(
    child: Child, demo_model: Model, tmp_path: Path, shape: Shape, kinds: tuple[int, ...]
) -> None:
    directory = tiny_model(tmp_path, demo_model.path, shape=shape)
    exact, bytes_of_fp16 = child.run(scenarios.logits_and_cache_bytes, directory, 16)
    bytes_a_value = {8: 2.125, 6: 1.625, 4: 1.125}
    largest_loss = {8: 0.01, 6: 0.2, 4: 0.2}  # in standard deviations; values have 4 bits in "6" as well
    for bits in kinds:
        logits, cache_bytes = child.run(scenarios.logits_and_cache_bytes, directory, bits)
        assert cache_bytes / bytes_of_fp16 == bytes_a_value[bits] / 4
        assert 0 < np.abs(logits - exact).mean() / exact.std() < largest_loss[bits]


def test_without_flash_attention_there_are_no_pages_and_one_job_runs(child: Child, llama: Path) -> None:
    with pytest.raises(AssertionError, match="requires flash-attn"):
        child.run(load, llama, flash_attn=False)
    text = child.run(scenarios.texts, llama)[0]
    assert child.run(scenarios.text_without_pages, llama) == text
    assert child.run(scenarios.text_without_pages, llama, as_packaged=True) != text


def test_pythonpath_alone_is_enough_in_processes_of_processes(llama: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "from pathlib import Path\n"
        "def main(directory):\n"
        "    from tests.exllamav2_cpu.generation import generate, load\n"
        "    print(generate(load(Path(directory)), ['A mill'], 4)[0].reason)\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=main, args=(sys.argv[1],))\n"
        "    process.start()\n"
        "    process.join()\n",
        encoding="utf-8",
    )
    environment = os.environ | {"PYTHONPATH": f"{SITE}:{SITE.parents[2]}"}
    ended = subprocess.run(
        [sys.executable, script, llama], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert ended.stdout.splitlines()[-1] == "max_new_tokens", ended.stderr


def test_docmill_reads_the_made_directory_as_it_reads_the_model_it_came_from(
    llama: Path, home: Path, demo_model: Model
) -> None:
    from docmill.producer.model_text import load_model_text

    made, original = load_model_text(str(llama), home), load_model_text(demo_model.name, home)
    text = "Understanding <|im_end|> mills, 1234 naïve 水車.\n"
    assert made.tokenizer.encode(text) == original.tokenizer.encode(text)
    assert made.tokenizer.vocabulary.chat_template == original.tokenizer.vocabulary.chat_template
    assert set(made.tokenizer.eos_ids) <= set(original.tokenizer.eos_ids)
