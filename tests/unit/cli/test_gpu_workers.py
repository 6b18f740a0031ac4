from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from docmill.cli.services.gpu_workers import place
from tests.exllamav2_cpu.child import SITE


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The driver's library as the stand-in answers it."""
    monkeypatch.syspath_prepend(str(SITE))
    monkeypatch.setenv("DOCMILL_TEST_GPUS", "4")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    yield
    sys.modules.pop("pynvml", None)


@pytest.mark.usefixtures("four_gpus")
def test_every_gpu_of_the_box_gets_a_worker() -> None:
    placements = place("exllamav2", None, is_split=False)
    assert [p.device for p in placements] == ["gpu0", "gpu1", "gpu2", "gpu3"]
    assert [p.visible_devices for p in placements] == ["0", "1", "2", "3"]


@pytest.mark.usefixtures("four_gpus")
def test_named_gpus_only_and_each_once() -> None:
    assert [p.device for p in place("exllamav2", "2, 0,2", is_split=False)] == ["gpu2", "gpu0"]


@pytest.mark.usefixtures("four_gpus")
def test_cuda_visible_devices_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert [p.device for p in place("exllamav2", None, is_split=False)] == ["gpu3", "gpu1"]
    with pytest.raises(click.UsageError, match="there is no GPU 0; there are 3, 1"):
        place("exllamav2", "0", is_split=False)


@pytest.mark.usefixtures("four_gpus")
def test_one_model_over_several_gpus_is_one_worker_named_for_all() -> None:
    (placement,) = place("exllamav2", "1,2", is_split=True)
    assert (placement.device, placement.visible_devices) == ("gpu1+2", "1,2")


@pytest.mark.usefixtures("four_gpus")
def test_engines_of_the_cpu_take_no_gpu_flags() -> None:
    assert place("openvino", None, is_split=False) == []
    with pytest.raises(click.UsageError, match="for exllamav2, not for openvino"):
        place("openvino", "0", is_split=False)


def test_without_a_gpu_asking_for_one_is_an_error_and_not_asking_is_none(
    four_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCMILL_TEST_GPUS", "0")
    assert place("exllamav2", None, is_split=False) == []
    with pytest.raises(click.UsageError, match="no NVIDIA GPU or driver"):
        place("exllamav2", "0", is_split=False)


def test_flags_reach_the_workers_own_process_whole(tmp_path: Path) -> None:
    from docmill.cli.commands.worker import parse_engine_option
    from docmill.cli.services.worker_options import WorkerFlags

    flags = WorkerFlags("m", "exllamav2", 4, engine_options={"gpu_split": [1.5, 2.0], "tensor_parallel": True})
    arguments = flags.as_arguments()
    assert arguments[:6] == ["--model", "m", "--engine", "exllamav2", "--slots", "4"]
    pairs = [a for a in arguments[6:] if a != "--engine-option"]
    assert dict(map(parse_engine_option, pairs)) == flags.engine_options
