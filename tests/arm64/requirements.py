"""Prints what an arm64 board needs to run the package and its tests, one requirement a line."""

from pathlib import Path

import tomllib

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
of_tests = ("pytest", "hypothesis", "flatbuffers")
print(*project["dependencies"], sep="\n")
print(*(line for line in project["optional-dependencies"]["dev"] if line.startswith(of_tests)), sep="\n")
