"""What a student has solved, in one small file on their own machine; nothing is sent anywhere.

The file lies in the user's data folder. The environment variable ``FLOWLAB_PROGRESS`` names another, or is ``off``.
"""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import platformdirs

from flowlab.files import write_whole
from flowlab.lessons.base import order


def file() -> Path | None:
    """Where progress is kept; None where it is not."""
    chosen = os.environ.get("FLOWLAB_PROGRESS", "")
    if chosen == "off":
        return None
    # os.path and not Path: it leaves the ~ of nobody we know as it is, instead of raising.
    return Path(os.path.expanduser(chosen or platformdirs.user_data_path("flowlab", appauthor=False) / "progress.json"))


def read() -> dict[str, Any]:
    """``{"solved": {"nice.1": "2026-11-22", ...}, "inventory": [["2026-11-22", 7], ...]}``, with the day of each.

    Where an older version of the course has kept "04.1", that is "nice.1" now. Raises ValueError where the file is
    there but cannot be read as that.
    """
    path = file()
    if path is None or not path.exists():
        return {"solved": {}, "inventory": []}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        solved: dict[str, str] = {}
        for name, day in sorted(dict(kept["solved"]).items(), key=lambda item: str(item[1])):
            solved.setdefault(order.renamed(str(name)), str(day))  # the first day, where both names are kept
        return {"solved": solved, "inventory": [[str(day), int(right)] for day, right in kept["inventory"]]}
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise ValueError(
            f"{path} should hold your progress, but cannot be read ({error}). Delete it to start anew."
        ) from None


def solved(name: str) -> None:
    """Note that an exercise is solved, with the day it first was. Never raises: feedback matters more than notes."""
    _note(lambda kept: kept["solved"].setdefault(name, str(date.today())))


def inventory(right: int) -> None:
    """Note a score in the concept inventory. Never raises."""
    _note(lambda kept: kept["inventory"].append([str(date.today()), right]))


def _note(change: Any) -> None:
    path = file()
    if path is None:
        return
    try:
        kept = read()
        before = json.dumps(kept)
        change(kept)
        if json.dumps(kept) == before:
            return
        write_whole(path.resolve(), json.dumps(kept, indent=1))  # a link to the file stays one
    except (OSError, ValueError):
        pass
