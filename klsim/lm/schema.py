"""The JSON schema of the TOML files of ``klsim train``, for editors; generated from the models that check them."""

from __future__ import annotations

from typing import Any

from klsim.lm.config import Config

__all__ = ["schema"]


def schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of a configuration; ``[data]`` and ``[task]`` stand for tables of ``tasks``.

    What it cannot say (names of stages that exist, options of the trainer) ``klsim train --check`` says.
    """
    found = Config.model_json_schema()
    domain = found["properties"]["tasks"].pop("additionalProperties")
    kinds = {kind["title"]: kind for kind in domain["oneOf"]}
    short = kinds["data"] | {"required": [name for name in kinds["data"]["required"] if name != "kind"]}
    found["$defs"] |= {"task": domain, "data": short}
    found["properties"]["tasks"]["additionalProperties"] = {"$ref": "#/$defs/task"}
    found["properties"] |= {"task": {"$ref": "#/$defs/task"}, "data": {"$ref": "#/$defs/data"}}
    found["required"] = [name for name in found["required"] if name != "tasks"]
    found["anyOf"] = [{"required": [name]} for name in ("tasks", "task", "data")]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | found | {"title": "klsim train"}
