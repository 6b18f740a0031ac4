"""The settings, frozen. Sizes in tokens unless their name says otherwise, times in seconds (`_s`)."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from docmill.engine_table import ENGINE_NAMES
from docmill.settings.errors import SettingsError
from docmill.settings.sampling_presets import named_temperature


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("it should be a number")  # noqa: TRY004 - what pydantic makes a validation error of
    return value


Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Count = Annotated[Whole, Field(ge=1)]
Seconds = Annotated[Real, Field(gt=0)]
Port = Annotated[Whole, Field(ge=1, le=65535)]
if TYPE_CHECKING:
    EngineName = str
else:
    EngineName = Literal["auto", *ENGINE_NAMES]

DEFAULT_SLOTS = 16  # jobs at once in an engine, if neither worker.slots nor optimization.batch_size is set


class Section(BaseModel):
    """A part of config.yaml: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Optimization(Section):
    """How the engine runs the model. `threads` and `batch_size` default by the machine."""

    quantization: Literal["fp16", "int8", "int6", "int4"] | None = None
    threads: Count | None = None
    batch_size: Count | None = None
    cuda_enabled: bool | None = None
    cuda_layers: Literal["all"] | Annotated[Whole, Field(ge=0)] | None = None
    kv_cache: bool = True


class Profile(Section):
    """A model and how to use it. What is None is left to the task and the model."""

    model: Annotated[str, Field(min_length=1)] = "smollm2-135m-instruct"
    temperature: Annotated[Real, BeforeValidator(named_temperature), Field(ge=0, le=5)] | None = None
    top_p: Annotated[Real, Field(gt=0, le=1)] | None = None
    top_k: Annotated[Whole, Field(ge=0)] | None = None
    min_p: Annotated[Real, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[Real, Field(gt=0, le=10)] | None = None
    seed: Whole | None = None
    max_tokens: Count = 512
    context_window: Count | None = None
    chunk_tokens: Count | None = None
    optimization: Optimization = Optimization()

    @model_validator(mode="after")
    def _output_leaves_room(self) -> Profile:
        if self.context_window is not None and self.max_tokens >= self.context_window:
            raise ValueError(
                f"max_tokens {self.max_tokens} leaves no room for text in a context_window of {self.context_window}"
            )
        return self


class Broker(Section):
    """`url` None: an embedded Valkey."""

    url: str | None = None


class Storage(Section):
    """`url` None: SQLite under the home directory."""

    url: str | None = None


class Worker(Section):
    """A lease of `lease_s` is renewed every third of it; a job of a dead worker waits that long.

    What it uses is stored every `sample_s`, 0: never. `metrics_port` None: no metrics are exported.
    """

    engine: EngineName = "auto"
    slots: Count | None = None
    lookahead: Annotated[Whole, Field(ge=0)] = 3
    lease_s: Seconds = 6.0
    max_attempts: Count = 3
    poison_deaths: Count = 3
    drain_timeout_s: Annotated[Real, Field(ge=0)] = 0.0
    sample_s: Annotated[Real, Field(ge=0)] = 10.0
    metrics_port: Port | None = None
    metrics_address: str = "127.0.0.1"


class Producer(Section):
    """Intake, chunking and the dispatcher."""

    chunk_tokens: Count | None = None
    overlap_tokens: Annotated[Whole, Field(ge=0)] = 0
    encoding: str | None = None
    text_field: str = "text"
    max_document_bytes: Count = 1 << 30
    max_archive_bytes: Count = 64 << 30
    watermark: Count | None = None
    dispatch_interval_s: Seconds = 0.25
    republish_s: Seconds = 60.0
    metrics_port: Port | None = None
    metrics_address: str = "127.0.0.1"

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str | None) -> str | None:
        try:
            codecs.lookup(encoding or "utf-8")
        except (LookupError, ValueError):
            raise ValueError("there is no such encoding") from None
        return encoding


class Settings(Section):
    """Everything. `profiles` holds `llm` and every `*_llm` section by name."""

    home: Path
    profiles: Mapping[str, Profile]
    broker: Broker = Broker()
    storage: Storage = Storage()
    worker: Worker = Worker()
    producer: Producer = Producer()
    sources: Mapping[str, str] = Field(default_factory=dict, exclude=True, repr=False)

    def profile(self, name: str | None = None) -> Profile:
        """The profile of this name, `llm` by default. Raises SettingsError naming those there are."""
        try:
            return self.profiles[name or "llm"]
        except KeyError:
            raise SettingsError(f"there is no profile {name!r}; there are {', '.join(self.profiles)}") from None
