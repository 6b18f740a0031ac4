"""Real builds with pip, offline: what a wheel contains, which checkouts can be built, whether the wheel works alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
IMPORT_EVERYTHING = """
import importlib, importlib.util, pkgutil, sys, docmill
not_imported = {"docmill.__main__", "docmill.migrations.env"}  # they run when they are imported
not_imported |= {f"docmill.worker.engines.{name}" for name in ("exllamav2", "exllamav3")}  # their libraries compile
for module in pkgutil.walk_packages(docmill.__path__, "docmill."):
    if module.name in not_imported:
        assert importlib.util.find_spec(module.name)
    else:
        importlib.import_module(module.name)
print(docmill.__file__, sum(name.startswith("docmill.") for name in sys.modules))
"""


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command without the variables that lead Python to this checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def git(*arguments: str, cwd: Path) -> str:
    author = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    done = run("git", *author, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--wheel-dir", target)
    return run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=source)


def wheel_in(directory: Path) -> Path:
    (wheel,) = directory.glob("*.whl")
    return wheel


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the files of this checkout as they are now, committed or not."""
    target = tmp_path_factory.mktemp("checkout") / "docmill"
    for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0"):
        source = ROOT / name
        if name and (source.is_symlink() or source.is_file()):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)
    git("init", "--quiet", cwd=target)
    git("add", "--all", cwd=target)
    git("commit", "--quiet", "--message", "all of it", cwd=target)
    return target


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the checkout, in which an earlier release has left its build directory."""
    for old in ("worker/__init__.py", "cli/main.py", "docmill/removed.py"):
        path = checkout / "build" / "lib" / old
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise AssertionError('a file of an earlier build')\n")
    built = build(checkout, tmp_path_factory.mktemp("wheel"))
    assert built.returncode == 0, built.stderr
    return wheel_in(Path(built.args[built.args.index("--wheel-dir") + 1]))


def test_the_wheel_contains_all_of_docmill_and_nothing_else(wheel: Path, checkout: Path) -> None:
    linked = checkout / "src" / "docmill"
    expected = {
        f"docmill/{path.relative_to(linked)}"
        for link in (linked, *(child for child in linked.iterdir() if child.is_symlink()))
        for path in link.rglob("*")
        if path.is_file() and path.suffix in (".py", ".typed", ".yaml", ".html", ".css", ".mako")
    }
    assert len(expected) > 200
    assert files_of(wheel) == expected


def test_a_checkout_without_symbolic_links_says_what_to_do_and_then_builds(checkout: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git("clone", "--quiet", "-c", "core.symlinks=false", str(checkout), str(clone), cwd=tmp_path)
    refused = build(clone, tmp_path / "none")
    said = refused.stdout + refused.stderr
    assert refused.returncode != 0
    assert not list((tmp_path / "none").glob("*.whl"))
    assert "src/docmill/migrations must be a symbolic link to the directory migrations/" in said
    advice = [line.split() for line in said.splitlines() if line.strip().startswith("git ")]
    assert [words[1] for words in advice] == ["config", "checkout"]
    for words in advice:
        git(*words[1:], cwd=clone)
    assert build(clone, tmp_path / "wheels").returncode == 0


def test_a_source_distribution_builds_the_same_wheel(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    make = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    made = run(sys.executable, "-c", make, tmp_path, cwd=checkout)
    assert made.returncode == 0, made.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path, filter="data")
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    assert not (unpacked / "src" / "docmill" / "worker").is_symlink()
    built = build(unpacked, tmp_path / "wheels")
    assert built.returncode == 0, built.stderr
    assert files_of(wheel_in(tmp_path / "wheels")) == files_of(wheel)


def test_the_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    environment, elsewhere = tmp_path / "venv", tmp_path / "elsewhere"
    assert run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path).returncode == 0
    site = environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # not the editable docmill in it
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install")
    installed = run(*pip, "--no-deps", "--no-index", "--ignore-installed", "--quiet", wheel, cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    elsewhere.mkdir()
    for name in ("cli", "settings", "worker", "storage", "click"):
        (elsewhere / f"{name}.py").write_text("raise AssertionError('the current directory was imported')\n")
    shown = run(environment / "bin" / "docmill", "--help", cwd=elsewhere)
    assert (shown.returncode, "Usage: docmill" in shown.stdout) == (0, True), shown.stderr
    imported = run(environment / "bin" / "python", "-P", "-c", IMPORT_EVERYTHING, cwd=elsewhere)
    assert imported.returncode == 0, imported.stderr
    place, count = imported.stdout.split()
    assert Path(place).is_relative_to(site)
    assert int(count) > 180


def test_make_clean_removes_what_builds_leave(checkout: Path, wheel: Path) -> None:
    assert wheel.is_file()
    assert (checkout / "build").is_dir()
    done = run("make", "clean", cwd=checkout)
    assert done.returncode == 0, done.stderr
    assert git("clean", "--dry-run", "-dx", cwd=checkout) == ""
