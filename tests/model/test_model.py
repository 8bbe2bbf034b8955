"""The protocol's model at small bounds: no state breaks a promise; without a rule one does (or is known not to)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def load_runs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("model_runs", Path(__file__).with_name("runs.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


runs = load_runs()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if runs.compiler() is None:
        pytest.skip("no C compiler to build the model with")
    return runs.build(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("words", runs.PROTOCOL)
def test_protocol_holds(model: Path, words: str) -> None:
    result = runs.run(model, words)
    assert result.startswith(("OK", "LIMIT") if "limit=" in words else "OK"), result


@pytest.mark.parametrize("words", runs.BROKEN)
def test_without_the_rule_something_breaks(model: Path, words: str) -> None:
    result = runs.run(model, words)
    assert result.startswith("VIOLATION"), result


@pytest.mark.parametrize("words", runs.HARMLESS)
def test_another_mechanism_covers(model: Path, words: str) -> None:
    result = runs.run(model, words)
    assert result.startswith("OK"), result


def test_every_rule_is_switched_off_somewhere() -> None:
    header = Path(__file__).with_name("model.h").read_text()
    rules = header.split("#define RULES(R)")[1].split("#define NAME")[0]
    named = {part.split(")")[0] for part in rules.split("R(")[1:]}
    off = {word[8:] for words in runs.BROKEN + runs.HARMLESS for word in words.split() if word.startswith("without=")}
    assert named == off
