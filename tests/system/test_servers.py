"""The fixtures that other tests of the system stand on, against the real services."""

import psutil

from tests.servers.system import StartSystem, System


def test_two_gateways_share_a_session(parley_system: System) -> None:
    parley_system.create_agent("shared")
    parley_system.model.reset()
    first = parley_system.chat("shared", "one", session_id="s", gateway=0)
    second = parley_system.chat("shared", "two", session_id="s", gateway=1)
    assert first.json()["choices"][0]["message"]["content"] == "echo:2:one"
    assert second.json()["choices"][0]["message"]["content"] == "echo:4:two"
    assert [message["role"] for message in parley_system.model.prompts[1]] == ["system", "user", "assistant", "user"]


def test_everything_can_be_killed_and_started_again(start_system: StartSystem) -> None:
    system = start_system()
    system.create_agent("kept")
    assert system.chat("kept", "one", session_id="s").status_code == 200
    ports = [service.grpc_target for service in system.services]
    for service in system.services:
        service.kill()
    system.redis.kill()
    system.postgres.kill()
    system.postgres.start()
    system.redis.start()
    for service in system.services:
        service.launch()
    for service in system.services:
        service.wait()
    assert [service.grpc_target for service in system.services] == ports
    assert system.chat("kept", "two", session_id="s").json()["choices"][0]["message"]["content"] == "echo:4:two"


def test_services_stop_cleanly_and_pause(start_system: StartSystem) -> None:
    system = start_system()
    system.session.pause()
    assert psutil.Process(system.session.pid).status() == psutil.STATUS_STOPPED
    assert not system.session.serves()
    system.session.resume()
    system.session.wait()
    for service in reversed(system.services):
        service.stop()
        assert not service.running
