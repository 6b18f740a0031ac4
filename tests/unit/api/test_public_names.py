"""What `import docmill` gives to programs, editors and notebooks."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from typing import get_type_hints

import pytest

import docmill
from docmill.producer.client import Client
from docmill.producer.submission import SubmitOptions

FUNCTIONS = ("as_completed", "cancel", "results", "retry", "status", "submit", "wait")


@pytest.mark.parametrize("statement", ["import docmill", "from docmill import DocmillError, NoSuchBatch, Record"])
def test_importing_docmill_and_its_errors_is_cheap(statement: str) -> None:
    code = f"import sys; {statement}; print([n for n in ('sqlalchemy', 'celery', 'tokenizers') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_tab_completion_offers_exactly_the_public_names() -> None:
    assert dir(docmill) == sorted(docmill.__all__)
    assert all(getattr(docmill, name).__name__ == name for name in docmill.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'docmill' has no attribute 'sumbit'"):
        docmill.sumbit  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_typed_and_take_no_unnamed_options(name: str) -> None:
    method, function = getattr(Client, name), getattr(docmill, name)
    signature = inspect.signature(function)
    assert [*inspect.signature(method).parameters][1:] == [*signature.parameters]
    assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    hints = get_type_hints(method, vars(docmill.producer.client))
    assert hints.keys() == {*signature.parameters, "return"}
    assert inspect.getdoc(function)


def test_submit_documents_every_option() -> None:
    parameters = inspect.signature(Client.submit).parameters
    described = re.findall(r"^    (\w+): ", inspect.getdoc(Client.submit) or "", re.MULTILINE)
    assert described[: len(parameters) - 1] == [*parameters][1:]


def test_submit_offers_every_option_with_its_default() -> None:
    parameters = inspect.signature(Client.submit).parameters
    for field in fields(SubmitOptions):
        if field.name != "sampling":
            default = {} if field.name == "metadata" else field.default
            assert (parameters[field.name].default or default) == default, field.name
