"""Task files (YAML or JSON) as canonical definitions, for commands that no service hands a definition to.

Types, ranges and the linter are the service's (`fewloop task lint`); here the defaults alone are filled in, from the
schema that it publishes. `test/contract/fewclue.spec.ts` holds both languages to the same definitions.
"""

import json
from pathlib import Path

import yaml

from fewloop_trainer.data import RunError

SCHEMA = Path(__file__).parents[2] / "docs/task-file.schema.json"


def read_definition(file: Path) -> dict:
    """The definition with every default. Raises RunError (BAD_INPUT) where the file is missing or is no mapping."""
    try:
        written = yaml.safe_load(file.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise RunError("BAD_INPUT", f"cannot read the task file {file}: {error}") from error
    if not isinstance(written, dict) or "name" not in written or "kind" not in written:
        raise RunError("BAD_INPUT", f"{file} is no task file: `fewloop task lint` says what is wrong")
    definition = with_defaults(json.loads(SCHEMA.read_text()), written)
    method = definition["method"]
    return definition | {"method": [method] if isinstance(method, str) else list(dict.fromkeys(method))}


def with_defaults(schema: dict, value: object) -> object:
    """`value` with what the JSON schema gives for each key that it lacks, all the way down."""
    if isinstance(value, dict) and "properties" in schema:
        lacking = {name: s["default"] for name, s in schema["properties"].items() if "default" in s}
        return {
            name: with_defaults(schema["properties"].get(name, {}), part) for name, part in (lacking | value).items()
        }
    if isinstance(value, list) and "items" in schema:
        return [with_defaults(schema["items"], part) for part in value]
    return value
