"""The page of all routes, made from the OpenAPI description; it loads nothing from other hosts."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2

TEMPLATE = Path(__file__).parent / "templates" / "service.html"


def render_reference(schema: Mapping[str, Any], base: str, token: bool) -> str:
    """Make an HTML page of an OpenAPI description.

    Args:
        schema: the description, as FastAPI makes it; a route's ``x-curl`` has the options of curl
            in its example.
        base: address of the service, without a slash at its end.
        token: whether the examples send a token.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        info=schema["info"], routes=list(_routes(schema)), base=base, token=token
    )


def _routes(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            body = route.get("requestBody", {}).get("content", {})
            yield {
                "method": method.upper(),
                "path": path,
                "summary": route["summary"],
                "text": route.get("description", ""),
                "curl": route.get("x-curl", ""),
                "fields": [
                    *({**p, **_field(schema, p["schema"])} for p in route.get("parameters", ())),
                    *(f for kind in body for f in _fields(schema, body[kind]["schema"], kind)),
                ],
                "responses": [
                    (status, answer["description"], _body(schema, answer.get("content", {})))
                    for status, answer in route["responses"].items()
                ],
            }


def _fields(schema: Mapping[str, Any], node: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The fields of a body, or the body itself where it has no fields."""
    node = _resolved(schema, node)
    if "properties" not in node:
        return [{"name": "the body", "in": where, "required": True, **_field(schema, node)}]
    return [
        {
            "name": name, "in": where, "required": name in node.get("required", ()),
            **_field(schema, part),
        }
        for name, part in node["properties"].items()
    ]  # fmt: skip


def _field(schema: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": _type(schema, node),
        "default": node.get("default"),
        "text": node.get("description", ""),
    }


def _body(schema: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """The media types of an answer, with the fields of those that have some."""
    kinds = []
    for kind, answer in content.items():
        node = _resolved(schema, answer.get("schema", {}))
        inside = [f"{n}: {_type(schema, part)}" for n, part in node.get("properties", {}).items()]
        kinds.append(f"{kind} {{{', '.join(inside)}}}" if inside else kind)
    return "; ".join(kinds)


def _type(schema: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    node = _resolved(schema, node)
    if "anyOf" in node:
        return " or ".join(_type(schema, each) for each in node["anyOf"])
    if "enum" in node:
        return " | ".join(map(str, node["enum"]))
    if node.get("type") == "array":
        return f"list of {_type(schema, node['items'])}"
    if isinstance(node.get("additionalProperties"), Mapping):
        return f"object of {_type(schema, node['additionalProperties'])}"
    if node.get("format") == "binary" or "contentMediaType" in node:
        return "file"
    return str(node.get("type", "any"))


def _resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in node:
        target: Mapping[str, Any] = schema
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node
