"""The architecture of a model whose files are here, as they write it."""

from __future__ import annotations

import json

from docmill.catalogue.gguf_file import read_header
from docmill.catalogue.local_model import Model, ModelKind


def architecture_of(model: Model) -> str:
    """`general.architecture` of a GGUF file, the first of a directory's `architectures`; "" where there is none.

    Raises ModelDamaged for a damaged GGUF file.
    """
    if model.kind is not ModelKind.DIRECTORY:
        return read_header(model.path).architecture
    try:
        names = json.loads((model.path / "config.json").read_text("utf-8")).get("architectures")
        return str(names[0])
    except (OSError, ValueError, TypeError, AttributeError, LookupError):
        return ""
