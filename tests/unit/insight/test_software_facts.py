"""The installed software, and libraries that cannot be imported for every possible reason."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from docmill.insight.checkup.software_facts import Import, read_libraries, unmet_requirements


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on the module path of this process and its children."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_engines_of_this_installation_import() -> None:
    found = {library.name: library for library in read_libraries(("openvino_genai", "xllamacpp"))}
    assert {library.state for library in found.values()} == {Import.WORKS}
    assert found["xllamacpp"].version == metadata.version("xllamacpp")
    assert found["xllamacpp"].detail in ("for the CPU", "with a GPU")


def test_a_library_that_raises_or_crashes_is_broken_and_has_a_reason(libraries: Path) -> None:
    (libraries / "raises_lib.py").write_text("raise OSError('no such device')")
    (libraries / "crashes_lib.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    (libraries / "works_lib.py").write_text("print('chatter')")
    raises, crashes, works, absent = read_libraries(("raises_lib", "crashes_lib", "works_lib", "absent_lib"))
    assert (raises.state, raises.detail) == (Import.BROKEN, "OSError: no such device")
    assert (crashes.state, crashes.detail) == (Import.BROKEN, "its import was killed: Segmentation fault")
    assert works.state is Import.WORKS
    assert absent.state is Import.ABSENT


def test_a_file_in_the_working_directory_is_not_mistaken_for_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "xllamacpp.py").write_text("raise OSError('not this one')")
    assert read_libraries(("xllamacpp",))[0].state is Import.WORKS


def test_requirements_are_compared_with_the_installed_versions() -> None:
    installed = metadata.version("click")
    asked = ["click>=1", "click<1", "no-such-package>=2", "other>=1; extra == 'gpu'", "more; python_version < '3'"]
    assert list(unmet_requirements(asked)) == [("click<1", installed), ("no-such-package>=2", "")]
