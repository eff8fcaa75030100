"""Free-form JSON out of the contracts."""

from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct, Value

from contract.json_numbers import normalized, parsed


def exact_json_of(message: Struct | Value, text: str = "") -> Any:
    """Returns the JSON that a peer sent, whole numbers as int: what `text` says, where the message is not exact.

    Raises `SerializeToJsonError` or `ValueError` for values that JSON does not have.
    """
    return parsed(text) if text else normalized(MessageToDict(message))
