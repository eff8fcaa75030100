"""`python -m session_svc`: serves until SIGTERM or SIGINT."""

from servicekit.lifecycle import run
from session_svc.settings import SessionSettings
from session_svc.wiring import build

if __name__ == "__main__":
    run(build, SessionSettings)
