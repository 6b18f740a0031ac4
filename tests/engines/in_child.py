"""An engine in a process of its own, driven from a test as if it were here.

For engines that change the process they live in: exllamav2 sets torch's threads, its CPU stand-in patches torch.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from typing import Any

from docmill.worker.engines.base import Completion, EngineFacts, Request, RequestId
from docmill.worker.engines.load_engine import load_engine
from docmill.worker.engines.spec import EngineSpec
from tests.exllamav2_cpu.child import SITE


class EngineInChild:
    """The Engine protocol over a pipe; what the engine raises is raised here."""

    facts: EngineFacts

    def __init__(self, spec: EngineSpec | None = None, **environment: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, environment), daemon=True)
        self._process.start()
        theirs.close()
        if spec is not None:
            try:
                self.load(spec)
            except BaseException:
                self.end()
                raise

    def load(self, spec: EngineSpec) -> None:
        """Load a model in place of the one before: a new process would cost seconds."""
        self.facts = self._call("load", spec)

    def add(self, request: Request) -> None:
        self._call("add", request)

    def step(self) -> list[Completion]:
        completions: list[Completion] = self._call("step")
        return completions

    def cancel(self, request_id: RequestId) -> None:
        self._call("cancel", request_id)

    def text_so_far(self, request_id: RequestId) -> str | None:
        text: str | None = self._call("text_so_far", request_id)
        return text

    @property
    def in_flight(self) -> int:
        count: int = self._call("in_flight")
        return count

    def close(self) -> None:
        """Close the engine; the process stays until the test ends, so that closing twice reaches it twice."""
        self._call("close")

    def inspect(self, expression: str) -> Any:
        """The value of an expression in the engine's process, where `engine` is the engine."""
        return self._call("inspect", expression)

    def end(self) -> None:
        self._connection.close()
        self._process.join(10)

    def _call(self, name: str, *arguments: Any) -> Any:
        self._connection.send((name, arguments))
        return self._answer()

    def _answer(self) -> Any:
        answer = self._connection.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _serve(connection: Connection, environment: dict[str, str]) -> None:
    sys.path.insert(0, str(SITE))
    os.environ.update(environment)
    engine: Any = None
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        try:
            if name == "load":
                if engine is not None:
                    engine.close()
                engine = load_engine(*arguments)
                answer = engine.facts
            elif name == "inspect":
                answer = eval(arguments[0], {"engine": engine})  # noqa: S307 - the test's own words
            elif name == "in_flight":
                answer = engine.in_flight
            else:
                answer = getattr(engine, name)(*arguments)
        except Exception as error:  # noqa: BLE001 - raised again in the test
            answer = error
        connection.send(answer)
