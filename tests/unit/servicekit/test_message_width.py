"""Messages that hold more values than a request may are refused before they are made."""

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from parley.chat.v1 import chat_service_pb2 as pb
from parley.session.v1 import message_pb2
from servicekit.errors import InvalidArgument
from servicekit.message_width import SMALL_BYTES, check_width

COMPLETE = pb.CompleteRequest.DESCRIPTOR


def wide(messages: int) -> bytes:
    turn = pb.TurnInput(messages=[message_pb2.Message()] * messages).SerializeToString()
    return pb.CompleteRequest(input=pb.TurnInput.FromString(turn)).SerializeToString()


def test_empty_messages_without_number_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="more values"):
        check_width(wide(300_000), COMPLETE)


def test_what_is_long_but_narrow_passes() -> None:
    text = pb.TurnInput(messages=[message_pb2.Message(content="\x12" * 2_000_000)], metadata={"a": "b"})
    check_width(pb.CompleteRequest(input=text).SerializeToString(), COMPLETE)
    many = pb.TurnInput(messages=[message_pb2.Message(content="Hello there!", name="n")] * 10_000)
    check_width(pb.CompleteRequest(input=many).SerializeToString(), COMPLETE)
    check_width(wide(1000), COMPLETE)
    check_width(StringValue(value="\x0a\x00" * 1_000_000).SerializeToString(), StringValue.DESCRIPTOR)


@pytest.mark.parametrize("piece", [b"\xff", b"\x0a\xff\xff\xff\x7f", b"\x0b"])
def test_what_is_no_message_is_left_to_the_parser(piece: bytes) -> None:
    data = piece * 2 * SMALL_BYTES
    check_width(data, COMPLETE)
    check_width(data[: SMALL_BYTES // 2], COMPLETE)


def test_unknown_fields_count_and_nesting_ends() -> None:
    with pytest.raises(InvalidArgument):
        check_width(b"\xf8\x7f\x01" * 300_000, COMPLETE)
