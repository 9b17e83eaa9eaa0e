"""For each alert a story in which it fires, and one in which it stays silent.

Values are written as in promtool's own test files: ``1x30`` is 1 and then thirty times 1,
``0+5x30`` rises by 5 at each of thirty steps; a step is a minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

JOB = "requiretls-milter"
INSTANCE = "mail.example.net:9894"

DAY = 86_400

OUR_SERVER = '{domain="our.example",host="mx.our.example"}'

Story = Mapping[str, str]
"""Values by series; names without the prefix, and without job and instance."""


@dataclass(frozen=True)
class Case:
    """One alert.

    Attributes:
        fires: a story at the end of which it fires.
        silent: a story in which it does not, at the same moment.
        at: seconds from the beginning of the story.
        labels: of the alert that fires, beside those that all have.
        says: what its text makes of its value.
        of_instance: whether it is about one milter.
    """

    fires: Story
    silent: Story
    at: int = 3600
    labels: Mapping[str, str] = field(default_factory=dict)
    says: str = ""
    of_instance: bool = True


def rises(series: str, labels: Mapping[str, str] | None = None, says: str = "") -> Case:
    """A counter that must not rise: once is enough."""
    return Case({series: "0x50 1x20"}, {series: "7x70"}, 3120, labels or {}, says)


CASES: Mapping[str, Case] = {
    "RequiretlsMilterDown": Case({"up": "1x20 0x60"}, {"up": "1x20 0x2 1x60"}),
    "RequiretlsMilterAbsent": Case({}, {"up": "0x60"}, of_instance=False),
    "RequiretlsMilterServesNobody": Case({"workers_ready": "4x20 0x60"}, {"workers_ready": "1x80"}),
    "RequiretlsMilterRestarts": Case(
        {
            'process_restarts_total{process="worker"}': "0x20 2x60",
            'process_restarts_total{process="engine"}': "0x30 2x60",
        },
        {
            'process_restarts_total{process="worker"}': "0x20 1x60",
            'process_start_time_seconds{process="supervisor"}': "100x20 200x20 300x20",
        },
        says="4",
    ),
    "RequiretlsMilterCallbackErrors": rises('callback_errors_total{stage="eom"}'),
    "RequiretlsMilterReloadFailed": Case(
        {"config_last_reload_successful": "1x20 0x60"}, {"config_last_reload_successful": "1x80"}
    ),
    "RequiretlsMilterConfigNotLoaded": Case(
        {"config_file_differs": "0x20 1x120"}, {"config_file_differs": "0x20 1x30 0x70"}, 2 * 3600
    ),
    "RequiretlsMilterRulesSuspended": Case(
        {"rules_suspended": "0x60 1x1900"}, {"rules_suspended": "0x60 1x900 0x900"}, 30 * 3600
    ),
    "RequiretlsMilterSocketLost": rises('sockets_lost_total{socket="milter"}'),
    "RequiretlsMilterStoreDown": Case({"store_up": "1x20 0x60"}, {"store_up": "1x80"}),
    "RequiretlsMilterStoreDamaged": rises("store_damaged_total"),
    "RequiretlsMilterLogLinesDropped": rises("log_lines_dropped_total"),
    "RequiretlsMilterFewDescriptorsLeft": Case(
        {
            'process_open_fds{process="worker-1"}': "900x70",
            'process_max_fds{process="worker-1"}': "1000x70",
        },
        {
            'process_open_fds{process="worker-1"}': "700x70",
            'process_max_fds{process="worker-1"}': "1000x70",
        },
        labels={"process": "worker-1"},
        says="90%",
    ),
    "RequiretlsMilterLimitReached": Case(
        {'limit_reached_total{limit="probes"}': "0+1x120"},
        {
            'limit_reached_total{limit="probes"}': "0x50 9x70",
            'limit_reached_total{limit="slow_after"}': "0+9x120",
            'limit_reached_total{limit="domain_series"}': "0+9x120",
        },
        2 * 3600,
        {"limit": "probes"},
    ),
    "RequiretlsMilterSeriesLeftOut": Case(
        {'limit_reached_total{limit="domain_series"}': "0+4x180"},
        {'limit_reached_total{limit="domain_series"}': "4x180"},
        3 * 3600,
        {"limit": "domain_series"},
    ),
    "RequiretlsMilterResolverNotValidating": Case(
        {"resolver_validates": "1x20 0x60"}, {"resolver_validates": "1x20 0x2 1x60"}
    ),
    "RequiretlsMilterResolverNotTested": Case(
        {
            "resolver_validates": "1x500",
            "resolver_selftest_last_success_timestamp_seconds": "0x500",
        },
        {
            "resolver_validates": "1x500",
            "resolver_selftest_last_success_timestamp_seconds": "0+60x500",
        },
        7 * 3600,
        says="7h 0m 0s",
    ),
    "RequiretlsMilterOutboundUnreachable": Case(
        {'outbound_reachable{service="smtp"}': "1x20 0x60"},
        {'outbound_reachable{service="smtp"}': "1x20 0x3 1x60"},
        labels={"service": "smtp"},
    ),
    "RequiretlsMilterPolicyRenewalsFail": Case(
        {'mta_sts_refreshes_total{result="failed"}': "0x10 1x200"},
        {
            'mta_sts_refreshes_total{result="failed"}': "1x210",
            'mta_sts_refreshes_total{result="vanished"}': "0x10 1x200",
            'mta_sts_refreshes_total{result="renewed"}': "0+1x210",
        },
        2 * 3600,
        {"result": "failed"},
    ),
    "RequiretlsMilterPolicyVanished": Case(
        {'mta_sts_refreshes_total{result="vanished"}': "0x10 1x200"},
        {
            'mta_sts_refreshes_total{result="vanished"}': "1x210",
            'mta_sts_refreshes_total{result="failed"}': "0x10 1x200",
        },
        labels={"result": "vanished"},
    ),
    "RequiretlsMilterDomainNotReady": Case(
        {
            'domain_ready{domain="a.example"}': "1x20 0x60",
            'domain_ready{domain="b.example"}': "1x80",
        },
        {'domain_ready{domain="a.example"}': "1x20 0x10 1x60"},
        labels={"domain": "a.example"},
    ),
    "RequiretlsMilterDomainUnknown": Case(
        {'domain_state{domain="a.example",outcome="unknown"}': "0x20 1x500"},
        {'domain_state{domain="a.example",outcome="unknown"}': "0x20 1x100 0x400"},
        8 * 3600,
        {"domain": "a.example", "outcome": "unknown"},
    ),
    "RequiretlsMilterDowngrade": rises('downgrades_total{kind="starttls"}', {"kind": "starttls"}),
    "RequiretlsMilterDomainCertificateEnds": Case(
        {'domain_certificate_expiry_timestamp_seconds{domain="a.example"}': f"{2 * DAY}x120"},
        {'domain_certificate_expiry_timestamp_seconds{domain="a.example"}': f"{30 * DAY}x120"},
        2 * 3600,
        {"domain": "a.example"},
        "1d 22h 0m 0s",
    ),
    "RequiretlsMilterDomainPolicyEnds": Case(
        {'domain_policy_expiry_timestamp_seconds{domain="a.example"}': f"{5 * 3600}x120"},
        {'domain_policy_expiry_timestamp_seconds{domain="a.example"}': f"{7 * DAY}x120"},
        2 * 3600,
        {"domain": "a.example"},
        "3h 0m 0s",
    ),
    "RequiretlsMilterOwnServerBreaks": Case(
        {'watched_problem{domain="our.example",problem="tlsa_does_not_match"}': "0x20 1x60"},
        {'watched_problem{domain="our.example",problem="tlsa_does_not_match"}': "0x20 1x5 0x60"},
        labels={"domain": "our.example", "problem": "tlsa_does_not_match"},
    ),
    "RequiretlsMilterOwnServerNotReady": Case(
        {'watched_server_ready{domain="our.example",host="mx.our.example"}': "1x20 0x60"},
        {'watched_server_ready{domain="our.example",host="mx.our.example"}': "1x20 0x5 1x60"},
        labels={"domain": "our.example", "host": "mx.our.example"},
    ),
    "RequiretlsMilterOwnCertificateEnds": Case(
        {f"watched_certificate_expiry_timestamp_seconds{OUR_SERVER}": f"{9 * DAY}x120"},
        {f"watched_certificate_expiry_timestamp_seconds{OUR_SERVER}": f"{60 * DAY}x120"},
        2 * 3600,
        {"domain": "our.example", "host": "mx.our.example"},
        "8d 22h 0m 0s",
    ),
    "RequiretlsMilterOwnPolicyEnds": Case(
        {'watched_policy_expiry_timestamp_seconds{domain="our.example"}': f"{DAY}x120"},
        {'watched_policy_expiry_timestamp_seconds{domain="our.example"}': f"{30 * DAY}x120"},
        2 * 3600,
        {"domain": "our.example"},
        "22h 0m 0s",
    ),
    "RequiretlsMilterRefusesMoreThanUsual": Case(
        {
            'recipients_total{requirement="requiretls",action="reject"}': "0+1x1500 2000+60x200",
            'recipients_total{requirement="requiretls",action="defer"}': "0+1x1500 2000+60x200",
        },
        {
            'recipients_total{requirement="requiretls",action="reject"}': "0+60x1700",
            'recipients_total{requirement="requiretls",action="accept"}': "0+1x1500 2000+600x200",
        },
        1650 * 60,
    ),
    "RequiretlsMilterForecastsUnknown": Case(
        {
            'forecasts_total{requirement="requiretls",status="unknown",reason="unknown"}': "0+1x80",
            'forecasts_total{requirement="requiretls",status="2.0.0",reason="ok"}': "0+3x80",
        },
        {
            'forecasts_total{requirement="requiretls",status="unknown",reason="unknown"}': "0x80",
            'forecasts_total{requirement="none",status="unknown",reason="unknown"}': "0+9x80",
            'forecasts_total{requirement="requiretls",status="2.0.0",reason="ok"}': "0+3x80",
        },
        says="25%",
    ),
    "RequiretlsMilterNoncompliantDeliveries": rises(
        'noncompliant_deliveries_total{reason="noncompliant_unverified"}'
    ),
    "RequiretlsMilterRequirementLost": rises("requirement_lost_total"),
    "RequiretlsMilterSlow": Case(
        {
            'forecast_wait_seconds_bucket{le="0.1"}': "0+90x80",
            'forecast_wait_seconds_bucket{le="6.0"}': "0+90x80",
            'forecast_wait_seconds_bucket{le="8.0"}': "0+100x80",
            'forecast_wait_seconds_bucket{le="+Inf"}': "0+100x80",
            "forecast_wait_seconds_count": "0+100x80",
        },
        {
            'forecast_wait_seconds_bucket{le="0.1"}': "0+99.5x80",
            'forecast_wait_seconds_bucket{le="6.0"}': "0+99.5x80",
            'forecast_wait_seconds_bucket{le="8.0"}': "0+100x80",
            'forecast_wait_seconds_bucket{le="+Inf"}': "0+100x80",
            "forecast_wait_seconds_count": "0+100x80",
        },
        says="7.8s",
    ),
    "RequiretlsMilterWaitsNearTimeout": Case(
        {
            'forecast_wait_seconds_bucket{le="20.0"}': "0+10x80",
            "forecast_wait_seconds_count": "0+11x80",
        },
        {
            'forecast_wait_seconds_bucket{le="20.0"}': "5+10x80",
            "forecast_wait_seconds_count": "6+10x80",
        },
    ),
    "RequiretlsMilterForecastsWrong": Case(
        {
            'audit_deliveries_total{result="equal"}': "0+9x2000",
            'audit_deliveries_total{result="different"}': "0+1x2000",
            'audit_deliveries_total{result="waiting"}': "0+5x2000",
        },
        {
            'audit_deliveries_total{result="equal"}': "0+999x2000",
            'audit_deliveries_total{result="different"}': "0+1x2000",
            'audit_deliveries_total{result="later"}': "0+500x2000",
            'audit_deliveries_total{result="unknown"}': "0+500x2000",
        },
        30 * 3600,
        says="90%",
    ),
    "RequiretlsMilterAuditBlind": Case(
        {"audit_logs_unreadable": "1x80"},
        {"audit_logs_unreadable": "0x80"},
        says="1",
    ),
}

RECORDED: Mapping[str, tuple[Story, float, Mapping[str, str]]] = {
    "instance:requiretls_milter_recipients_refused:rate30m": (
        {
            'recipients_total{requirement="requiretls",action="reject"}': "0+60x70",
            'recipients_total{requirement="requiretls",action="defer"}': "0+30x70",
            'recipients_total{requirement="none",action="accept"}': "0+600x70",
        },
        1.5,
        {},
    ),
    "instance:requiretls_milter_recipients_refused:rate1d_before": (
        {'recipients_total{requirement="requiretls",action="reject"}': "0+60x2000"},
        1.0,
        {},
    ),
    "instance:requiretls_milter_forecasts_unknown:ratio_rate30m": (
        CASES["RequiretlsMilterForecastsUnknown"].fires,
        0.25,
        {},
    ),
    "instance:requiretls_milter_forecasts_deliver:ratio_rate1h": (
        {
            'forecasts_total{requirement="requiretls",status="2.0.0",reason="ok"}': "0+3x80",
            'forecasts_total{requirement="requiretls",status="5.1.0",reason="null_mx"}': "0+1x80",
            'forecasts_total{requirement="none",status="2.0.0",reason="ok"}': "0+9x80",
        },
        0.75,
        {},
    ),
    "instance:requiretls_milter_forecast_wait_seconds:p50_rate5m": (
        {
            'forecast_wait_seconds_bucket{le="0.1"}': "0+50x80",
            'forecast_wait_seconds_bucket{le="+Inf"}': "0+50x80",
        },
        0.05,
        {},
    ),
    "instance:requiretls_milter_forecast_wait_seconds:p99_rate5m": (
        {
            'forecast_wait_seconds_bucket{le="1.0"}': "0+98x80",
            'forecast_wait_seconds_bucket{le="2.0"}': "0+100x80",
            'forecast_wait_seconds_bucket{le="+Inf"}': "0+100x80",
        },
        1.5,
        {},
    ),
    "instance:requiretls_milter_assessment_seconds:p99_rate5m": (
        {
            'assessment_seconds_bucket{le="1.0"}': "0+98x80",
            'assessment_seconds_bucket{le="2.0"}': "0+100x80",
            'assessment_seconds_bucket{le="+Inf"}': "0+100x80",
        },
        1.5,
        {},
    ),
    "instance_layer:requiretls_milter_cache_requests_hit:ratio_rate5m": (
        {
            'cache_requests_total{layer="forecast",result="hit"}': "0+2x80",
            'cache_requests_total{layer="forecast",result="miss"}': "0+2x80",
            'cache_requests_total{layer="forecast",result="stale"}': "0+1x80",
        },
        0.75,
        {"layer": "forecast"},
    ),
    "instance:requiretls_milter_domains_not_ready:count": (
        {
            'domain_ready{domain="a.example"}': "1x80",
            'domain_ready{domain="b.example"}': "0x80",
            'domain_ready{domain="c.example"}': "0x80",
        },
        2.0,
        {},
    ),
    "instance:requiretls_milter_deliveries_as_forecast:ratio_rate1d": (
        CASES["RequiretlsMilterForecastsWrong"].fires,
        0.9,
        {},
    ),
}
"""For each recorded series: a story of an hour, the value at its end, labels beside the usual."""
