"""Logs are in order of time, whoever wrote them, and can be read."""

import heapq
from pathlib import Path

import pytest

from cumulet.cli import logs
from cumulet.core.config import Config, Node


def line(time: str, message: str, level: str = "INFO", **more: str) -> str:
    fields = {"time": f"2026-11-22T{time}Z", "service": "keystone", "level": level, "message": message, **more}
    return "{" + ",".join(f'"{key}":"{value}"' for key, value in fields.items()) + "}"


def test_json_and_parts_are_merged_by_time() -> None:
    ours = [line("13:08:40.100000", "one"), line("13:08:42.000000", "four")]
    libvirtd = ["2026-11-22 13:08:41.000+0000: 12: info : two", "more of two"]
    switch = ["2026-11-22T13:08:41.500Z|00001|vlog|INFO|three"]
    merged = heapq.merge(
        logs.stamped("keystone", ours),
        logs.stamped("libvirtd", libvirtd),
        logs.stamped("ovs-vswitchd", switch),
        key=lambda one: one[0],
    )
    texts = [text for _, text in merged]
    wanted = ("one", "two", "more of two", "three", "four")
    assert all(word in text for word, text in zip(wanted, texts, strict=True)), texts
    assert texts[1].startswith("libvirtd: ")


def test_a_record_is_one_readable_line(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = logs.readable(line("13:08:40.123456", "hello", request_id="req-1", traceback=""))
    assert shown.endswith("keystone                  INFO    hello  [req-1]")
    assert ":40.123 " in shown
    for other in ("libvirtd: plain\n", "{not json}", '{"a": 1}', "[1]", ""):
        assert logs.readable(other) == other.rstrip("\n")


@pytest.mark.parametrize(
    ("message", "routine"),
    [
        ("GET /hosts/node1/ports 304 0.6 ms node1", True),
        ("POST /hosts/node1/heartbeat/neutron-l3-agent 204 0.8 ms node1", True),
        ("POST /hosts/node1/ports 500 0.8 ms node1", False),
        ("GET /v2.0/ports 200 2.5 ms", False),
    ],
)
def test_what_agents_ask_all_the_time_is_routine(message: str, routine: bool) -> None:
    assert bool(logs.ROUTINE.search(line("13:08:40.100000", message))) is routine


def test_the_tail_of_a_large_file_begins_with_a_whole_line(tmp_path: Path) -> None:
    file = tmp_path / "x.log"
    file.write_text("".join(f"line {number}\n" for number in range(1000)))
    assert logs.tail(file, 100)[-1] == "line 999"
    assert all(text.startswith("line ") for text in logs.tail(file, 100))
    assert len(logs.tail(file)) == 1000
    assert logs.tail(tmp_path / "none.log") == []


def test_the_last_error_is_the_newest_since_then(tmp_path: Path) -> None:
    config = Config(node=Node(log_dir=str(tmp_path)))
    lines = [line("13:00:00.0", "old", "ERROR"), line("13:00:02.0", "new", "ERROR"), line("13:00:03.0", "fine")]
    (tmp_path / "keystone.log").write_text("\n".join(lines) + "\n")
    assert logs.last_error(config, "keystone", "2026-11-22T13:00:01Z") == "new"
    assert logs.last_error(config, "keystone", "2026-11-22T13:00:02.5Z") == ""
    assert logs.last_error(config, "nova-api", "") == ""
