"""Sampling out of the contracts: what an agent config says, and what a request says instead."""

from chat_gateway.model.turn import Sampling
from parley.chat.v1 import chat_service_pb2
from parley.config.v1 import agent_config_pb2


def sampling_from_proto(
    said: agent_config_pb2.ModelConfig | agent_config_pb2.ModelFallback | chat_service_pb2.Sampling,
) -> Sampling:
    """Returns what is said; None for what is not."""
    return Sampling(
        temperature=said.temperature if said.HasField("temperature") else None,
        top_p=said.top_p if said.HasField("top_p") else None,
        max_output_tokens=said.max_output_tokens if said.HasField("max_output_tokens") else None,
        stop=tuple(said.stop),
        seed=said.seed if said.HasField("seed") else None,
        presence_penalty=said.presence_penalty if said.HasField("presence_penalty") else None,
        frequency_penalty=said.frequency_penalty if said.HasField("frequency_penalty") else None,
    )
