"""The base of every error that docmill raises on purpose."""

from __future__ import annotations

from typing import ClassVar


class DocmillError(Exception):
    """An error whose message says what is wrong and what to do about it.

    `exit_code` is what the command line exits with: 1 where the work failed, 2 where docmill was used wrongly.
    """

    exit_code: ClassVar[int] = 1


class WrongUse(DocmillError):
    """The caller asked for something that does not exist or is not allowed."""

    exit_code = 2
