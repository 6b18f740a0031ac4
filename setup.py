"""Two safeguards for builds; everything else is configured in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SOURCE = Path(__file__).parent / "src" / "docmill"
LINKED = ("migrations", "producer", "storage", "worker")


class CleanBuild(build_py):
    """A build that starts from an empty directory.

    setuptools copies everything in `build/lib` into the wheel, including files that an earlier build left there.
    """

    def run(self) -> None:
        """Delete what an earlier build left, then build."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


# In a clone without symbolic links, each link is a small text file, and a build would lack the package.
missing = [name for name in LINKED if not (SOURCE / name / "__init__.py").is_file()]
if missing:
    raise SystemExit(
        f"docmill cannot be built here: src/docmill/{missing[0]} must be a symbolic link to the directory "
        f"{missing[0]}/, and this checkout has no symbolic links. Allow them (on Windows: switch on Developer Mode) "
        "and run:\n"
        "  git config core.symlinks true\n"
        f"  git checkout -- {' '.join(f'src/docmill/{name}' for name in LINKED)}"
    )

setup(cmdclass={"build_py": CleanBuild})
