"""The scripted upstream itself: what tests rest on is tested too."""

from __future__ import annotations

import pytest
import requests

from tests.scripted_upstream import World, reply, serving


@pytest.mark.server
def test_the_script_answers_in_turn_and_keeps_what_it_saw() -> None:
    with serving(reply(200, {"a": 1}), reply(404)) as server, requests.Session() as session:
        assert session.get(server.url + "/x?y=1", timeout=5).json() == {"a": 1}
        assert session.post(server.url + "/z", data=b"body", timeout=5).status_code == 404
        assert [(seen.method, seen.path, seen.raw_query, seen.body) for seen in server.seen] == [
            ("GET", "/x", "y=1", b""),
            ("POST", "/z", "", b"body"),
        ]


def test_the_world_only_moves_by_sleeping() -> None:
    world = World()
    world.sleep(2.5)
    assert (world.now, world.slept) == (2.5, [2.5])
