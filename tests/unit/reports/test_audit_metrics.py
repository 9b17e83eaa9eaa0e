"""What ``audit --follow`` exports is what is declared, and is written as a whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as families_of

from requiretls_milter.reports.audit import Auditor
from requiretls_milter.reports.audit_metrics import AuditFigures, values_of
from requiretls_milter.telemetry.catalogue import AUDIT_METRICS, PREFIX
from tests.support.milterlogs import delivery_line, events, forecast_line


def shown(path: Path) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name without the prefix, and by label values."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in families_of(path.read_text()):
        for sample in family.samples:
            name = sample.name.removeprefix(PREFIX)
            found.setdefault(name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_each_declared_metric_is_there_from_the_start_with_each_of_its_labels(
    tmp_path: Path,
) -> None:
    file = tmp_path / "audit.prom"
    figures = AuditFigures()
    figures.write(file)
    at_first = shown(file)
    assert at_first == {
        name: dict.fromkeys(metric.combinations(), 0.0) for name, metric in AUDIT_METRICS.items()
    }
    figures.show(values_of(Auditor(), lines=0, unreadable=0))
    figures.write(file)
    assert shown(file) == at_first


def test_what_was_compared_is_shown(tmp_path: Path) -> None:
    auditor = Auditor()
    lines = [
        forecast_line("2.0.0", to="<a@example.org>"),
        delivery_line("2.0.0", to="a@example.org"),
        forecast_line("5.7.30", "requiretls_not_offered", to="<b@example.org>"),
        delivery_line("2.0.0", to="b@example.org"),
        forecast_line("2.0.0", "a reason from nowhere", to="<c@example.org>"),
        delivery_line("4.4.1", to="c@example.org"),
        forecast_line("2.0.0", to="<d@example.org>"),
    ]
    for event in events(lines):
        auditor.take(event)
    auditor.following.advance(0.0)
    auditor.following.advance(60.0)
    file = tmp_path / "audit.prom"
    figures = AuditFigures()
    figures.show(values_of(auditor, lines=7, unreadable=2))
    figures.write(file)
    found = {
        (name, *labels): value
        for name, values in shown(file).items()
        for labels, value in values.items()
        if value
    }
    assert found == {
        ("audit_deliveries_total", "equal"): 1,
        ("audit_deliveries_total", "different"): 2,
        ("audit_differences_total", "requiretls_not_offered"): 1,
        ("audit_differences_total", "other"): 1,
        ("audit_recipients_in_flight",): 1,
        ("audit_lines_total",): 7,
        ("audit_logs_unreadable",): 2,
    }


def test_the_file_is_readable_for_all_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        AuditFigures().write(tmp_path / "audit.prom")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "audit.prom").stat().st_mode) == 0o644


def test_the_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "audit.prom"
    AuditFigures().write(file)
    with file.open() as reader:
        before = file.stat().st_ino
        AuditFigures().write(file)
        assert file.stat().st_ino != before, "another file has its name"
        assert reader.read() == file.read_text(), "and who reads the former one reads all of it"
    assert list(tmp_path.iterdir()) == [file]


def test_if_it_cannot_be_written_the_former_one_stays_and_nothing_else(tmp_path: Path) -> None:
    directory = tmp_path / "audit.prom"
    directory.mkdir()
    (directory / "in the way").touch()
    with pytest.raises(OSError, match="directory"):
        AuditFigures().write(directory)
    assert list(tmp_path.iterdir()) == [directory]
