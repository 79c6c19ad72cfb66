"""What the documents show can be used as it stands: configurations are right, links lead somewhere."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from edge_seg import config_file
from edge_seg.config import Config
from edge_seg.errors import ConfigError

DOCUMENTS = [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
FILES_OF_USERS = ("no such file", "password_", "token_", "no such environment variable")
"""What a document cannot have: the pictures, recordings and secrets that it names."""


def snippets() -> list[tuple[str, str]]:
    """Every YAML block that has only keys of a configuration, with where it stands."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for match in re.finditer(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            data = yaml.safe_load(match[1])
            if isinstance(data, dict) and set(data) <= set(Config.model_fields):
                found.append((f"{document}:{text[: match.start()].count(chr(10)) + 1}", match[1]))
    for manifest in yaml.safe_load_all(Path("docs/fleet/daemonset.yaml").read_text()):
        if manifest["kind"] == "ConfigMap":
            found.append(("docs/fleet/daemonset.yaml", manifest["data"]["edge-seg.yaml"]))
    found.append(("config/installed.yaml", Path("config/installed.yaml").read_text()))
    return found


@pytest.mark.parametrize(("where", "text"), [pytest.param(*found, id=found[0]) for found in snippets()])
def test_a_configuration_that_is_shown_is_right(where: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "shown.yaml"
    file.write_text(text)
    problems: list[str] = []
    try:
        config_file.load(file)
    except ConfigError as error:
        problems = [p for p in error.problems if not any(known in p for known in FILES_OF_USERS)]
    assert problems == [], where


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        assert (document.parent / target.split("#")[0]).exists(), target


def test_what_the_fleet_pages_show_is_valid_yaml() -> None:
    for file in sorted(Path("docs/fleet").glob("*.y*ml")):
        assert list(yaml.safe_load_all(file.read_text())), file


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_program() -> None:
    said = "\0".join(text for file in sorted(Path("edge_seg").rglob("*.py")) for text in literals(file))
    for line in Path("docs/troubleshooting.md").read_text(encoding="utf-8").splitlines():
        if not (quoted := re.match(r"\| `([^`]+)` \|", line)):
            continue
        for part in quoted[1].split("…"):
            assert part.strip(" :;,()") in said, f"{quoted[1]}: nothing says {part!r}"


def literals(file: Path) -> Iterator[str]:
    """The texts in a module, with a NUL for what is filled in."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[-\w.]*[a-z]", "\0", node.value)
