"""Write a recommendation as a commented, valid config.yaml."""

from __future__ import annotations

from collections.abc import Iterator

from docmill.formatting import gb, gib
from docmill.insight.advice.recommend import Choice, Recommendation, UseCase
from docmill.settings.defaults import Profile
from docmill.settings.sampling_presets import PRESETS
from docmill.sizing.catalogue_fit import Fit, Place
from docmill.sizing.gpu_memory import CacheType
from docmill.sizing.model_memory import openvino_can_run

_PRESET = {
    UseCase.EDUCATION: "balanced",
    UseCase.GENERAL: "balanced",
    UseCase.MATH: "focused",
    UseCase.RESEARCH: "focused",
}
_OUTPUT_SHARE = 4  # max_tokens is at most a quarter of the window


def config_text(recommendation: Recommendation, machine: str) -> str:
    """The text of the file. `machine` describes it in a line. The first alternative is the profile `other_llm`."""
    return "\n".join(_lines(recommendation, machine)) + "\n"


def _lines(recommendation: Recommendation, machine: str) -> Iterator[str]:
    use_case = recommendation.use_case
    yield f"# config.yaml by `docmill doctor --recommend --use-case {use_case}`"
    yield f"# for {machine}"
    yield f"# tier: {recommendation.standing.tier or 'below Basic'}"
    yield "llm:"
    yield from _profile(recommendation.first, use_case)
    if not _is_auto(recommendation.first):
        yield "worker:"
        yield f"  engine: {recommendation.first.fit.engine}  # docmill would choose openvino, on the processor"
    for choice in recommendation.alternatives[:1]:
        yield ""
        yield "# docmill --profile other_llm run ..."
        yield "other_llm:"
        yield from _profile(choice, use_case)


def _profile(choice: Choice, use_case: UseCase) -> Iterator[str]:
    fitted, entry = choice.fit, choice.entry
    yield from (f"  # {reason}" for reason in choice.why.split("; "))
    yield f"  # {entry.parameters} parameters, licence {entry.license}: {entry.card}"
    preset = _PRESET[use_case]
    max_tokens = min(Profile().max_tokens, fitted.window // _OUTPUT_SHARE)
    yield f"  model: {fitted.model}  # {fitted.pull} ({gb(fitted.download_bytes)})"
    yield f"  context_window: {fitted.window}  # tokens of prompt and output, of the model's {entry.context_window}"
    yield f"  max_tokens: {max_tokens}  # the longest output of a job"
    yield f"  # temperature: {preset}  # {PRESETS[preset]}; if not set, the task decides (summarize: 0)"
    yield "  optimization:"
    quantization = fitted.cache_type.quantization
    yield f"    quantization: {quantization}  # keys and values; {_sizes(fitted)}"
    yield f"    batch_size: {fitted.slots or 1}  # jobs in the engine at once, each of a full window"
    yield f"    threads: {fitted.threads}  # physical cores"
    if fitted.place is Place.GPU:
        yield "    cuda_enabled: true"
        yield "    cuda_layers: all"


def _sizes(fitted: Fit) -> str:
    where = "the GPU's" if fitted.place is Place.GPU else "memory's"
    return (
        f"weights {gib(fitted.weights_bytes)}, together {gib(fitted.needed_bytes)} of {where} "
        f"{gib(fitted.available_bytes)}"
    )


def _is_auto(choice: Choice) -> bool:
    """docmill.worker.engines.load_engine.choose_engine would choose the same engine."""
    fitted = choice.fit
    return fitted.engine != "llamacpp" or fitted.cache_type is CacheType.Q4 or not openvino_can_run(choice.entry)
