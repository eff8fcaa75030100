"""What every description of an operation refers to."""

from typing import Any, Final

SCHEMA_REF: Final = "#/components/schemas/{name}"


def error_response(description: str) -> dict[str, Any]:
    """Returns the response object of an error."""
    schema = {"$ref": SCHEMA_REF.format(name="ErrorBody")}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
