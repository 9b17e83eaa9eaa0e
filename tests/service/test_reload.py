"""SIGHUP: all or nothing, and nothing stops meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tests.service.conftest import QUIET
from tests.support.processes import free_port
from tests.support.service import Service
from tests.support.waiting import eventually

Make = Callable[..., Service]


def reload(service: Service) -> None:
    done = len(service.events("reloaded")) + len(service.events("reload_failed"))
    service.send_signal(signal.SIGHUP)
    eventually(
        lambda: len(service.events("reloaded")) + len(service.events("reload_failed")) > done
    )


def test_a_good_configuration_is_taken_by_all_without_a_new_process(make: Make) -> None:
    service = make().start()
    before = service.children
    assert service.send(requiretls=False) == []
    service.configure(QUIET, milter='header_name = "X-Other"\nby = "new.example.net"')
    reload(service)
    assert service.events("reloaded")[0]["generation"] == 2
    assert service.children == before
    for tag in service.send(count=6):  # by whichever worker
        assert "by=new.example.net" in tag


def test_a_bad_configuration_changes_nothing_and_says_every_mistake(make: Make) -> None:
    service = make()
    service.configure(QUIET, milter='by = "old.example.net"')
    service.start()
    before = service.metric("config_last_reload_success_timestamp_seconds")
    service.config_path.write_text('[milter]\nsokcet = "unix:/x"\n[dns]\ntimeout = -1\n')
    reload(service)
    mistakes = [line["mistake"] for line in service.events("reload_mistake")]
    assert len(mistakes) == 2
    assert any("sokcet" in mistake for mistake in mistakes)
    assert "by=old.example.net" in service.send()[0]
    eventually(lambda: service.metric("config_last_reload_successful") == 0)
    assert service.metric("config_last_reload_success_timestamp_seconds") == before
    service.configure(QUIET)
    reload(service)
    eventually(lambda: service.metric("config_last_reload_successful") == 1)
    assert service.metric("config_last_reload_success_timestamp_seconds") > before


def test_what_needs_a_restart_keeps_its_value_and_says_so(make: Make) -> None:
    service = make(workers=1).start()
    port = service.metrics_port
    service.metrics_port = free_port()
    service.configure(QUIET, workers=4, milter='by = "new.example.net"')
    reload(service)
    told = {line["key"] for line in service.events("needs_restart")}
    assert told == {"milter.workers", "metrics.listen"}
    assert set(service.children) == {"engine", "worker-1"}
    assert "by=new.example.net" in service.send()[0]
    service.metrics_port = port
    assert service.metric("config_last_reload_successful") == 1


def test_a_process_that_dies_after_a_reload_comes_back_with_the_new_configuration(
    make: Make,
) -> None:
    service = make(workers=1).start()
    service.configure(QUIET, milter='by = "new.example.net"')
    reload(service)
    service.replaced("worker-1", service.kill("worker-1"))
    assert "by=new.example.net" in service.send()[0]


def test_a_reload_while_a_worker_is_being_replaced_waits_for_it(make: Make) -> None:
    service = make(workers=1).start()
    service.kill("worker-1")
    service.configure(QUIET, milter='by = "new.example.net"')
    reload(service)
    assert service.events("reloaded")
    assert "by=new.example.net" in service.send()[0]


def test_running_transactions_go_on_through_a_reload(make: Make) -> None:
    service = make(workers=1).start()
    with service.client() as client:
        client.mail("<alice@example.net>", "REQUIRETLS")
        client.rcpt("<bob@example.org>")
        service.configure(QUIET, milter='by = "new.example.net"')
        reload(service)
        client.data()
        client.header("Subject", " test")
        client.eoh()
        assert client.eom().passed
        assert "forecast=" in client.edits[0].value


def test_domains_of_new_rules_are_shown_once_something_happens_for_them(make: Make) -> None:
    service = make(workers=1).start()
    service.send()
    assert 'domain="example.org"' not in service.http()
    service.configure(QUIET + '[rules.recipient."example.org"]\nmode = "monitor"\n')
    reload(service)
    assert 'domain_forecasts_total{domain="example.org"' not in service.http()
    service.send()
    eventually(
        lambda: service.metric('domain_forecasts_total{domain="example.org",status="4.4.3"}') == 1
    )


def test_systemd_is_told_of_the_reload(make: Make) -> None:
    service = make(workers=1).start()
    said = len(service.manager.messages)
    reload(service)
    words = [
        line.partition("=")[0]
        for line in eventually(
            lambda: "READY=1" in service.manager.messages[said:] and service.manager.messages[said:]
        )
        if not line.startswith(("WATCHDOG", "STATUS"))
    ]
    assert words == ["RELOADING", "MONOTONIC_USEC", "READY"]


def test_a_worker_that_does_not_take_the_configuration_is_replaced_by_one_that_has_it(
    make: Make,
) -> None:
    service = make(workers=1, limits={"service.reload.RELOAD_TIMEOUT": 0.5}).start()
    pid = service.children["worker-1"]
    os.kill(pid, signal.SIGSTOP)
    service.configure(QUIET, milter='by = "new.example.net"')
    reload(service)
    assert service.events("reloaded")
    assert service.children["worker-1"] != pid
    assert "by=new.example.net" in service.send()[0]


def test_included_files_and_lists_of_domains_are_read_again(make: Make) -> None:
    service = make(workers=1)
    service.configure(QUIET)
    main = service.config_path
    main.write_text(f'include = ["conf.d/*.toml"]\n{main.read_text()}')
    service.start()
    assert "forecast=" in service.send()[0]

    (main.parent / "conf.d").mkdir()
    rules = main.parent / "conf.d" / "partners.toml"
    domains = main.parent / "conf.d" / "partners.txt"
    rules.write_text('[rules.list.partners]\ndomains_file = "partners.txt"\nmode = "off"\n')
    domains.write_text("*.example.org\n")
    reload(service)
    assert [line["mistake"] for line in service.events("reload_mistake")] == [
        f'{domains}:1:1: "*.example.org" is not a domain name: subdomains are written with a '
        'leading dot, no "*"; write .example.org'
    ]
    eventually(lambda: service.metric("config_file_differs") == 1)
    assert "forecast=" in service.send()[0]

    domains.write_text("example.org\n")
    reload(service)
    eventually(lambda: service.metric("config_file_differs") == 0)
    assert service.send() == []  # no tag: the rule of the list says "off"
    assert service.metric('rules{mode="off"}') == 1

    domains.write_text("example.org\nother.example\n")
    eventually(lambda: service.metric("config_file_differs") == 1)


def test_a_reload_with_a_hundred_thousand_domains_holds_up_no_loop(make: Make) -> None:
    service = make(workers=1).start()
    domains = service.directory / "partners.txt"
    domains.write_text("".join(f"partner-{number}.example\n" for number in range(100_000)))
    service.configure(
        QUIET
        + f"""
[mta]
relayhost = "[gateway.example.net]"
[rules.list.partners]
domains_file = "{domains}"
mode = "monitor"
"""
    )
    reload(service)
    assert service.events("reloaded")[0]["generation"] == 2
    assert service.metric('rules{mode="monitor"}') > 100_000
    # It takes seconds to find the next hops of so many; the loop has its turns meanwhile.
    assert service.metric("engine_longest_turn_seconds") < 1.0
