"""What the documents promise is there, and what is there is in the documents."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from requiretls_milter import config
from requiretls_milter.config import Config
from requiretls_milter.forecast.inboundserver import Urgency
from requiretls_milter.milter.tag import Route, Tag
from requiretls_milter.model import InboundProblem, Reason, Requirement, Source
from requiretls_milter.reports.check import (
    AddressReport,
    ForecastReport,
    HostReport,
    MtaStsReport,
    NextHopReport,
)
from requiretls_milter.telemetry.catalogue import AUDIT_METRICS, METRICS
from tests.support.paths import REPOSITORY

PAGES = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]
ALL_METRICS = {**METRICS, **AUDIT_METRICS}
"""Of the service, and of ``audit --follow``."""

EXAMPLES = sorted(REPOSITORY.glob("examples/*.toml"))


def page(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_each_example_is_a_good_configuration(path: Path) -> None:
    loaded = config.load(path)
    assert loaded != Config()
    assert config.warnings(loaded) == ()


def test_the_configurations_in_the_readme_are_good() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", page("README.md"), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert config.warnings(config.parse(block.encode(), "README.md")) == ()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name) if name else path
        assert linked.exists(), target
        if linked.suffix == ".py":
            assert int(anchor.removeprefix("L")) <= len(linked.read_text("utf-8").splitlines())
        elif anchor:
            heads = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in set(map(_anchor, heads)), target


def _anchor(heading: str) -> str:
    """What GitHub makes of a heading: no punctuation, hyphens for spaces."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_each_page_is_in_the_index(path: Path) -> None:
    docs = REPOSITORY / "docs"
    linked = re.findall(r"\]\(([^)#\s]+)", page("docs/README.md"))
    assert path.name == "README.md" or path in {(docs / name).resolve() for name in linked}


@pytest.mark.parametrize("name", ALL_METRICS)
def test_each_metric_is_documented_with_its_labels(name: str) -> None:
    row = re.search(rf"^\| `{name}` \|([^|]*)\|", page("docs/metrics.md"), re.MULTILINE)
    assert row is not None
    assert tuple(re.findall(r"`(\w+)`", row[1])) == ALL_METRICS[name].label_names


def test_no_metric_is_documented_that_is_not_there() -> None:
    text = page("docs/metrics.md") + page("README.md") + page("docs/attach.md")
    documented = set(re.findall(r"requiretls_milter_(\w+)", text))
    documented |= set(re.findall(r"^\| `(\w+)` \|", page("docs/metrics.md"), re.MULTILINE))
    assert documented <= set(ALL_METRICS)


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_is_explained(reason: Reason) -> None:
    assert f"| `{reason.value}` |" in page("docs/tag.md")


@pytest.mark.parametrize("problem", InboundProblem)
def test_each_problem_of_our_own_servers_is_explained(problem: InboundProblem) -> None:
    assert f"| `{problem.value}` |" in page("docs/watch.md")


@pytest.mark.parametrize("severity", Urgency)
def test_each_severity_of_a_problem_is_explained(severity: Urgency) -> None:
    assert f"`{severity.value}` (" in page("docs/watch.md")


@pytest.mark.parametrize("word", [*Route, *Source, *Requirement])
def test_each_word_of_the_tag_is_explained(word: str) -> None:
    assert f"`{word}`" in page("docs/tag.md")


def test_the_tag_in_the_documents_is_what_is_written() -> None:
    tag = Tag(
        Requirement.REQUIRETLS,
        Source.ESMTP,
        "5.7.30",
        Reason.REQUIRETLS_NOT_OFFERED,
        Route.REQUIRETLS,
    )
    line = f"    {Config().milter.header_name}: {tag.value('mail.example.net')}\n"
    for name in ("README.md", "docs/tag.md"):
        assert line in page(name)


def test_the_recipe_for_routes_matches_only_its_route() -> None:
    (pattern,) = re.findall(r"^    /(.*)/ FILTER ", page("docs/tag.md"), re.MULTILINE)
    for route in Route:
        tag = Tag(Requirement.REQUIRETLS, Source.RULE, "2.0.0", Reason.OK, route)
        field = f"X-RequireTLS: {tag.value('route=requiretls')}"
        assert bool(re.search(pattern, field, re.IGNORECASE)) is (route is Route.REQUIRETLS)


@pytest.mark.parametrize(
    "report", [NextHopReport, ForecastReport, HostReport, AddressReport, MtaStsReport]
)
def test_each_key_of_the_json_is_documented(report: type) -> None:
    for key in report.__annotations__:
        assert f"`{key}`" in page("docs/check.md")


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", page("Makefile"), re.MULTILINE))
    for path in PAGES:
        named = re.findall(r"`make ([a-z-]+)`|^    make ([a-z-]+)", path.read_text(), re.MULTILINE)
        assert {name for pair in named for name in pair if name} <= targets, path


def test_the_licence_is_the_one_that_the_package_declares() -> None:
    project = tomllib.loads(page("pyproject.toml"))["project"]
    assert project["license"] == "GPL-3.0-or-later"
    assert page("LICENSE").lstrip().startswith("GNU GENERAL PUBLIC LICENSE\n")
    assert "Version 3, 29 June 2007" in page("LICENSE")
