from __future__ import annotations

from dataclasses import replace

import pytest

from docmill.worker.engines.base import ModelUnusable
from tests.unit.worker.conftest import MakeSpec


@pytest.mark.parametrize(("quantization", "precision"), [(None, "fp16"), ("fp16", "fp16"), ("int8", "int8")])
def test_the_quantization_names_the_precision_of_keys_and_values(
    make_spec: MakeSpec, quantization: str | None, precision: str
) -> None:
    assert replace(make_spec(), engine="openvino", quantization=quantization).kv_precision == precision


def test_a_quantization_the_engine_does_not_have_is_refused_with_those_it_has(make_spec: MakeSpec) -> None:
    with pytest.raises(ModelUnusable, match="int4 is not supported by openvino; use fp16 or int8"):
        _ = replace(make_spec(), engine="openvino", quantization="int4").kv_precision


def test_an_engine_without_kept_keys_and_values_is_refused(make_spec: MakeSpec) -> None:
    with pytest.raises(ModelUnusable, match="kv_cache: false is not supported"):
        _ = replace(make_spec(), kv_cache=False).kv_precision


def test_layers_counted_out_for_a_gpu_are_refused_where_there_is_none(make_spec: MakeSpec) -> None:
    with pytest.raises(ModelUnusable, match="cuda_layers: 20 is not supported: OpenVINO has no GPU here"):
        replace(make_spec(), cuda_layers=20).without_gpu("OpenVINO")


def test_cuda_where_there_is_one_is_a_remark_and_not_an_error(make_spec: MakeSpec) -> None:
    assert replace(make_spec(), cuda_enabled=True, cuda_layers="all").without_gpu("OpenVINO") == (
        "CUDA is enabled, but OpenVINO has no GPU here: it runs on the CPU",
    )
    assert replace(make_spec(), cuda_enabled=False, cuda_layers=0).without_gpu("OpenVINO") == ()


def test_the_window_is_the_smaller_of_the_models_and_the_one_asked_for(make_spec: MakeSpec) -> None:
    spec = make_spec(window=4096)
    assert spec.window == 4096
    assert replace(spec, context_window=1024).window == 1024
    assert replace(spec, context_window=100_000).window == 4096
