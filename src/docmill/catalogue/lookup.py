"""The catalogue: models that docmill knows by name."""

from __future__ import annotations

from difflib import get_close_matches

from docmill.catalogue.known_models import ENTRIES
from docmill.catalogue.model_entry import Entry, HubSource, PyPISource

__all__ = ["ENTRIES", "Entry", "HubSource", "PyPISource", "find_entry", "find_entry_of_file", "nearest_names"]


def find_entry(name: str) -> Entry | None:
    """The entry of this name or alias, without regard to case."""
    wanted = name.lower()
    return next((entry for entry in ENTRIES if wanted in (entry.name, *entry.aliases)), None)


def find_entry_of_file(name: str) -> Entry | None:
    """The entry of this name, or whose name a file's begins with, as in `orca-2-7b.Q4_K_M`; aliases do not count."""
    wanted = name.lower().rpartition("/")[2]
    named = [
        entry for entry in ENTRIES if wanted == entry.name or wanted.startswith((f"{entry.name}.", f"{entry.name}-"))
    ]
    return max(named, key=lambda entry: len(entry.name), default=None)


def nearest_names(name: str) -> list[str]:
    """Catalogue names that look like this one."""
    names = {known: entry.name for entry in ENTRIES for known in (entry.name, *entry.aliases)}
    close = get_close_matches(name.lower(), names, n=4, cutoff=0.4)
    return list(dict.fromkeys(names[known] for known in close))[:2]
