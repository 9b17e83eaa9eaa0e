"""What a recipient becomes by tables that are asked: a command has it from whom it concerns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from requiretls_milter.config import load
from requiretls_milter.reports.expanding import CommandExpansion, expand
from requiretls_milter.syntax.expansion import ExpansionError
from tests.support.service import Service

Make = Callable[..., Service]


def asking(*tables: str) -> str:
    return f'[mta]\naliases = "ask"\nvirtual_alias_maps = {json.dumps(tables)}\n'


LEADS_TO_B = asking("inline:{ { a@x.test = b@x.test } }")
LEADS_TO_C = asking("inline:{ { a@x.test = c@x.test } }")


def expanded(service: Service) -> CommandExpansion:
    return expand("<a@x.test>", load(service.config_path))


def test_a_running_service_with_the_same_tables_is_asked(make: Make) -> None:
    service = make(LEADS_TO_B).start()
    found = expanded(service)
    assert not isinstance(found.result, ExpansionError)
    assert found.result.addresses == ("b@x.test",)
    assert found.why_not_service == ""


def test_without_a_service_the_command_asks_the_tables_and_says_why(make: Make) -> None:
    found = expanded(make(LEADS_TO_B))
    assert not isinstance(found.result, ExpansionError)
    assert found.result.addresses == ("b@x.test",)
    assert "No such file" in found.why_not_service


def test_a_service_with_other_tables_is_not_asked_about_these(make: Make) -> None:
    service = make(LEADS_TO_B).start()
    service.configure(LEADS_TO_C)
    found = expanded(service)
    assert not isinstance(found.result, ExpansionError)
    assert found.result.addresses == ("c@x.test",)
    assert found.why_not_service == "the running service has another [mta]"
    checks = json.loads(service.command("doctor", "--format", "json").stdout)
    (told,) = [one["found"] for one in checks if one["check"] == "aliases"]
    assert "not by a service: the running service has another [mta]" in told


def test_a_table_that_does_not_answer_the_service_is_not_asked_again(
    make: Make, tmp_path: Path
) -> None:
    """What the user of the command may read says nothing of what the service's user may."""
    postmap = tmp_path / "postmap"
    postmap.write_text("#!/bin/sh\necho gone >&2\nexit 1\n")
    postmap.chmod(0o755)
    service = make(f'{asking("ldap:/etc/x.cf")}postmap = "{postmap}"\n').start()
    postmap.write_text("#!/bin/sh\nexit 0\n")
    found = expanded(service)
    assert found.why_not_service == ""


def test_simulate_with_tables_in_text_prints_json_and_nothing_else(
    make: Make, tmp_path: Path
) -> None:
    table = tmp_path / "virtual"
    table.write_text("a@x.test b@x.test\n")
    tables = f'virtual_alias_maps = ["texthash:{table}"]\nlocal_domains = ["x.test"]\n'
    service = make(f'[mta]\naliases = "static"\n{tables}')
    done = service.command("simulate", "c@x.test", "a@x.test", "--format", "json")
    assert json.loads(done.stdout)["action"] == "accept"
