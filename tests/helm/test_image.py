"""What can be held about the image without building it."""

from __future__ import annotations

import json
import re
import tomllib

from tests.helm.crds import ROOT

LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()


def instructions(word: str) -> list[str]:
    """The arguments of every instruction of a kind."""
    return [line.partition(" ")[2] for line in LINES if line.startswith(f"{word} ")]


def test_every_base_is_pinned_to_one_version() -> None:
    bases = [line.split()[0] for line in instructions("FROM")]
    assert len(bases) == 2
    assert all(re.search(r":[0-9]+\.[0-9]+\.[0-9]+-[a-z-]+$|@sha256:[0-9a-f]{64}$", base) for base in bases)
    assert bases[0] == bases[1]


def test_it_runs_as_the_user_that_the_chart_expects_and_starts_our_command() -> None:
    assert instructions("USER") == ["10001:10001"]
    (entry,) = instructions("ENTRYPOINT")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(entry)[0] in scripts


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    sources = [each for line in instructions("COPY") if "--from" not in line for each in line.split()[:-1]]
    assert {"pyproject.toml", "scheduling", "generated"} <= {source.removeprefix("./") for source in sources}
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored


def test_what_the_wheel_is_made_of_is_copied() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = " ".join(instructions("COPY"))
    assert all(package.partition("/")[0] in copied for package in build["packages"])
