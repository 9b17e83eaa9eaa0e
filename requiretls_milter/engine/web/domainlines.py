"""The lines of the metrics of configured domains, as the text formats have them, within a bound.

With thousands of domains not all of their series have room. They are written in this order, until
there is none left:

1. ``domain_ready`` of all, and all about watched domains;
2. everything about the domains in trouble: those to which REQUIRETLS mail would not be delivered,
   or of which nothing is known;
3. everything about the others, one metric after the other (:data:`ORDER`);
4. the outcomes of ``domain_state`` that are 0.

Within each step domains go in the order of the configuration.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from requiretls_milter.model import OTHER_DOMAIN, Outcome
from requiretls_milter.telemetry.catalogue import METRICS, PREFIX, Metric

READY = METRICS["domain_ready"]
FIRST = (
    READY,
    METRICS["watched_problem"],
    METRICS["watched_server_ready"],
    METRICS["watched_certificate_expiry_timestamp_seconds"],
    METRICS["watched_policy_expiry_timestamp_seconds"],
)
"""What is written of all domains before anything else: watched ones are few."""

STATE = METRICS["domain_state"]

ORDER = (
    READY,
    METRICS["domain_forecasts_total"],
    STATE,
    METRICS["domain_reason"],
    METRICS["domain_last_assessed_timestamp_seconds"],
    METRICS["domain_certificate_expiry_timestamp_seconds"],
    METRICS["domain_policy_expiry_timestamp_seconds"],
)
"""The metrics of configured domains, those first on which most depends."""

Series = Sequence[tuple[tuple[str, ...], float]]
"""(label values, value) of one metric and domain."""

ByDomain = Mapping[str, Series]


def take(metric: Metric, values: dict[tuple[str, ...], float]) -> ByDomain:
    """Take the series of domains out of *values*; what is left is that of ``other``."""
    place = metric.domain_index or 0
    taken: defaultdict[str, list[tuple[tuple[str, ...], float]]] = defaultdict(list)
    left = {}
    for one in values.items():
        domain = one[0][place]
        if domain == OTHER_DOMAIN:
            left[one[0]] = one[1]
        else:
            taken[domain].append(one)
    values.clear()
    values.update(left)
    return taken


def write(
    configured: Mapping[Metric, ByDomain], domains: Sequence[str], room: int
) -> tuple[dict[Metric, bytes], bool]:
    """Write the series of configured domains; those of other domains are left out.

    Args:
        configured: what :func:`take` found, for each metric.
        domains: in the order of the configuration.
        room: octets for all lines together.

    Returns:
        The lines of each metric, and whether all that is known is there.
    """
    troubled = _in_trouble(configured, domains)
    others = [domain for domain in domains if domain not in troubled]
    metrics = [*(metric for metric in ORDER if metric in configured)]
    metrics += [metric for metric in configured if metric not in ORDER]
    later = [metric for metric in metrics if metric not in FIRST]
    steps = [(metric, domains) for metric in FIRST if metric in configured]
    steps += [(metric, list(troubled)) for metric in later]
    steps += [(metric, others) for metric in later]
    written = {metric: bytearray() for metric in metrics}
    is_whole = True
    for metric, some in steps:
        lines = _lines(metric, configured.get(metric, {}), some)
        room, fits = _append(written[metric], lines, room)
        is_whole = is_whole and fits
    if is_whole:  # otherwise there is no room
        _append(written[STATE], _zeros(configured.get(STATE, {}), domains), room)
    return {metric: bytes(lines) for metric, lines in written.items() if lines}, is_whole


def _in_trouble(
    configured: Mapping[Metric, ByDomain], domains: Iterable[str]
) -> Mapping[str, None]:
    """The domains, in their order, that are not ready or whose state is not good."""
    not_ready = {domain for domain, series in configured.get(READY, {}).items() if not series[0][1]}
    not_well = {
        domain
        for domain, series in configured.get(STATE, {}).items()
        if series[0][0][1] != Outcome.DELIVER
    }
    found = not_ready | not_well
    return {domain: None for domain in domains if domain in found}


def _lines(metric: Metric, series: ByDomain, domains: Iterable[str]) -> Iterator[bytes]:
    """Write series as the text formats of Prometheus and OpenMetrics have them alike."""
    form = ",".join(f'{name}="%s"' for name in metric.label_names)
    form = f"{PREFIX}{metric.name}{{{form}}} %s\n"
    for domain in domains:
        for labels, value in series.get(domain, ()):
            yield (form % (*map(_escaped, labels), float(value))).encode()


def _zeros(series: ByDomain, domains: Iterable[str]) -> Iterator[bytes]:
    """The outcomes that are not the state of a domain that has one."""
    for domain in domains:
        if states := series.get(domain):
            now = {labels[1] for labels, _ in states}
            zeros = [((domain, word.value), 0.0) for word in Outcome if word.value not in now]
            yield b"".join(_lines(STATE, {domain: zeros}, (domain,)))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _append(written: bytearray, lines: Iterable[bytes], room: int) -> tuple[int, bool]:
    """Append lines as far as they fit; return the room that is left, and whether all did."""
    for line in lines:
        if len(line) > room:
            return room, False
        written += line
        room -= len(line)
    return room, True
