"""The environment that peers and plots run in: what they need is nothing that the service needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-bench"
LOCK = ROOT / "bench" / "requirements.lock"


class Missing(Exception):
    """It is not there and could not be made."""


def python(say: Callable[[str], None]) -> str:
    """The interpreter of `.venv-bench`, which is made from `bench/requirements.lock` when it is missing or older."""
    interpreter, stamp = FOLDER / "bin" / "python", FOLDER / ".installed"
    if not stamp.exists() or stamp.stat().st_mtime < LOCK.stat().st_mtime:
        say(f"making {FOLDER.name} from {LOCK.relative_to(ROOT)} ...")
        try:
            subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
            pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "-r", str(LOCK)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Missing(str(error)) from error
        stamp.touch()
    return str(interpreter)
