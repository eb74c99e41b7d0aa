#!/usr/bin/env bash
# PyYAML 6.0.3 and ruamel.yaml 0.19.1: a version without quotes that looks like a day, 2026-13-01.
# Expected by most: it is text, as it fits no type; and whatever is wrong with a file is a YAMLError, by which one catches
# it and names the line.
# Seen: 2026-11-01 is a date, 2026-13-01 raises a bare ValueError that names no line, file or key, and 2026.13.01 is text.
# It passes each `except YAMLError`, so one version of thirteen ends the program. ruamel.yaml does the same.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check PyYAML==6.0.3 ruamel.yaml==0.19.1
"$work/venv/bin/python" - <<'PYTHON'
from collections.abc import Callable
from datetime import date

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError as RuamelError


def read(load: Callable[[str], dict[str, object]], text: str) -> object:
    try:
        return load(f"version: {text}")["version"]
    except (yaml.YAMLError, RuamelError):
        return "a fault of YAML"
    except ValueError as error:
        return f"ValueError: {error}"


texts = ("2026-11-01", "2026-13-01", "2026.13.01")
for load in (yaml.safe_load, YAML(typ="safe", pure=True).load):
    seen = [read(load, text) for text in texts]
    print(seen)
    assert seen == [date(2026, 11, 1), "ValueError: month must be in 1..12", "2026.13.01"], seen
PYTHON
echo "as stated"
