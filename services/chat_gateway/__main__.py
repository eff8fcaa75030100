"""Runs chat_gateway: `python -m chat_gateway`."""

from chat_gateway.settings import GatewaySettings
from chat_gateway.wiring import build
from servicekit.lifecycle import run


def main() -> None:
    """Runs until SIGTERM or SIGINT."""
    run(build, GatewaySettings)


if __name__ == "__main__":
    main()
