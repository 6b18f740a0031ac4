"""Every setting of docmill with its type, unit, range and default, in the order of config.yaml.

Names ending in `_s` are in seconds, in `_bytes` in bytes, in `_tokens` in tokens. This module is the only place that
states a default; other modules import it or take the value as an argument. docs/configuration.md explains the keys.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from docmill.engine_table import ENGINE_NAMES
from docmill.settings.errors import SettingsError
from docmill.settings.sampling_presets import named_temperature

# Not configurable:
DEFAULT_SLOTS = 16  # jobs in the engine at once if neither worker.slots nor optimization.batch_size is set
LEASE_RENEWALS = 3  # how often a worker renews its leases (its heartbeat) within worker.lease_s
WORKER_SEEN_S = 60.0  # a worker whose last heartbeat is older than this counts as gone
STATUS_POLL_S = 0.5  # how often `run`, `wait` and the Python API read the status of a batch
RECENT_S = 120.0  # the period over which the recent speed of a batch is measured


def _reject_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("it should be a number")  # noqa: TRY004 - pydantic turns only ValueError into its own error
    return value


Whole = Annotated[int, BeforeValidator(_reject_bool)]
Real = Annotated[float, BeforeValidator(_reject_bool), Field(allow_inf_nan=False)]
Count = Annotated[Whole, Field(ge=1)]
Seconds = Annotated[Real, Field(gt=0)]
Port = Annotated[Whole, Field(ge=1, le=65535)]
if TYPE_CHECKING:
    EngineName = str
else:
    EngineName = Literal["auto", *ENGINE_NAMES]


class Section(BaseModel):
    """A section of config.yaml: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Optimization(Section):
    """`llm.optimization`: how the engine runs the model."""

    quantization: Literal["fp16", "int8", "int6", "int4"] | None = None  # of keys and values; None: the engine's own
    threads: Count | None = None  # of the engine; None: one per physical core
    batch_size: Count | None = None  # jobs in the engine at once; None: DEFAULT_SLOTS
    cuda_enabled: bool | None = None  # None: if there is a GPU
    cuda_layers: Literal["all"] | Annotated[Whole, Field(ge=0)] | None = None  # layers on the GPU
    kv_cache: bool = True  # no engine supports false


class Profile(Section):
    """`llm` and every section `*_llm`: a model and how to use it. None leaves a value to the task and the model."""

    model: Annotated[str, Field(min_length=1)] = "smollm2-135m-instruct"  # catalogue name, path or OWNER/REPO
    temperature: Annotated[Real, BeforeValidator(named_temperature), Field(ge=0, le=5)] | None = None  # 0: greedy
    top_p: Annotated[Real, Field(gt=0, le=1)] | None = None
    top_k: Annotated[Whole, Field(ge=0)] | None = None
    min_p: Annotated[Real, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[Real, Field(gt=0, le=10)] | None = None
    seed: Whole | None = None
    max_tokens: Count = 512  # longest output of a job, in tokens
    context_window: Count | None = None  # tokens of prompt and output together; None: the model's own
    chunk_tokens: Count | None = None  # longest chunk, in tokens; None: the catalogue's suggestion
    optimization: Optimization = Optimization()

    @model_validator(mode="after")
    def _output_leaves_room(self) -> Profile:
        if self.context_window is not None and self.max_tokens >= self.context_window:
            raise ValueError(
                f"max_tokens {self.max_tokens} leaves no room for text in a context_window of {self.context_window}"
            )
        return self

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling options that are set."""
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class Broker(Section):
    """`broker`: where messages are queued."""

    url: str | None = None  # redis:// or rediss://; None: an embedded Valkey


class Storage(Section):
    """`storage`: where batches, jobs and results are stored."""

    url: str | None = None  # sqlite:// or postgresql://; None: SQLite in the home directory


class Worker(Section):
    """`worker`: how a worker takes and runs jobs."""

    engine: EngineName = "auto"  # auto: chosen by the format and architecture of the model
    slots: Count | None = None  # jobs in the engine at once; None: optimization.batch_size
    lookahead: Annotated[Whole, Field(ge=0)] = 3  # further jobs that wait in the worker, so that the engine never idles
    lease_s: Seconds = 6.0  # how long a job belongs to a worker that has stopped renewing its lease
    max_attempts: Count = 3  # failures after which a job fails
    poison_deaths: Count = 3  # engine crashes with a job alone in the engine after which the job fails as Poison
    drain_timeout_s: Annotated[Real, Field(ge=0)] = 0.0  # time for running jobs to finish after SIGTERM
    sample_s: Annotated[Real, Field(ge=0)] = 10.0  # interval of the resource samples; 0: none
    metrics_port: Port | None = None  # Prometheus; None: no metrics
    metrics_address: str = "127.0.0.1"


class Producer(Section):
    """`producer`: reading documents, chunking and the dispatcher."""

    chunk_tokens: Count | None = None  # longest chunk, in tokens; None: the profile's
    overlap_tokens: Annotated[Whole, Field(ge=0)] = 0  # text repeated from the previous chunk, in tokens
    encoding: str | None = None  # of documents that are not UTF-8 and have no byte-order mark; None: detected
    text_field: str = "text"  # the field of JSONL and CSV rows that holds the text
    max_document_bytes: Count = 1 << 30
    max_archive_bytes: Count = 64 << 30  # of all files of a zip, unpacked
    watermark: Count | None = None  # most messages in a model's queue; None: 4 per listening slot, at least 1,000
    dispatch_interval_s: Seconds = 0.25  # between rounds of the dispatcher while batches are in progress
    republish_s: Seconds = 60.0  # age at which a message that no worker has taken counts as lost
    metrics_port: Port | None = None  # Prometheus; None: no metrics
    metrics_address: str = "127.0.0.1"

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str | None) -> str | None:
        try:
            codecs.lookup(encoding or "utf-8")
        except (LookupError, ValueError):
            raise ValueError("this encoding does not exist") from None
        return encoding


class Settings(Section):
    """All settings. `profiles` holds `llm` and every `*_llm` section by name, `sources` where each value was set."""

    home: Path  # database, models, caches and logs
    profiles: Mapping[str, Profile]
    broker: Broker = Broker()
    storage: Storage = Storage()
    worker: Worker = Worker()
    producer: Producer = Producer()
    sources: Mapping[str, str] = Field(default_factory=dict, exclude=True, repr=False)

    def profile(self, name: str | None = None) -> Profile:
        """The profile of this name, `llm` by default. Raises SettingsError, naming the known ones."""
        try:
            return self.profiles[name or "llm"]
        except KeyError:
            raise SettingsError(f"unknown profile {name!r}; the profiles are {', '.join(self.profiles)}") from None
