"""``cumulet bench``: the names and targets of figures, the page of them, and what is refused at once."""

import pytest

from benchmarks import page
from benchmarks.__main__ import main
from benchmarks.figures import LIMITS, Figure, figure, names

NAMES = """
start_healthy_s database_setup_s idle_pss_mb idle_cpu_percent token_issue_ms token_validate_ms projects_list_ms
flavors_list_ms networks_list_ms images_list_ms servers_list_empty_ms servers_list_100_ms servers_list_1000_ms
ports_list_1000_ms port_create_ms port_delete_ms network_create_delete_ms boot_sim_s boot_sim_cpu_s
boots_sim_100_per_s deletes_sim_100_per_s placements_1000_hosts_per_s placement_10000_hosts_ms
boot_real_overhead_s launch_to_ssh_s cli_start_s
scale_idle_cores scale_boot_100_s scale_list_1000_ms scale_controller_mb
"""


def test_the_names_are_those_that_others_compare_by() -> None:
    assert sorted(names()) == sorted(NAMES.split())
    assert set(LIMITS) <= set(names())


def test_a_figure_knows_whether_it_meets_its_target() -> None:
    assert figure("start_healthy_s", [2.0, 9.0, 1.0]) == Figure("start_healthy_s", 2.0, "s", 3, "≤ 3")
    assert figure("start_healthy_s", [2.0]).met is True
    assert figure("boots_sim_100_per_s", [49.0]).met is False
    assert figure("token_issue_ms", [5.0], "≤ 4.4 (1.1 × bcrypt_ms)").met is False
    assert figure("bcrypt_ms", [4.0]).met is None


def test_the_page_says_what_misses_and_why() -> None:
    text = page.text([figure("idle_pss_mb", [300.0]), figure("cli_start_s", [0.1])], "2026-01-01", "a machine")
    assert "2026-01-01 by `./cumulet bench --write` on a machine." in text
    assert "| idle_pss_mb | **300** | MB | 1 | ≤ 120 |" in text
    assert "| cli_start_s | 0.1 | s | 1 | ≤ 0.15 |" in text
    assert f"- **idle_pss_mb**: {LIMITS['idle_pss_mb']}" in text
    assert "cli_start_s**" not in text


def test_every_figure_is_on_the_page() -> None:
    text = page.PAGE.read_text()
    assert [name for name in page.names() if f"| {name} |" not in text] == []


@pytest.mark.parametrize("words", [["no_such_figure"], ["--write", "cli_start_s"]])
def test_what_cannot_be_is_refused_at_once(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(words)
    assert refused.value.code == 2
    assert capsys.readouterr().out == ""
