"""The dashboard for Grafana, made of the rows of :mod:`.panels`.

``python -m tests.monitoring.dashboard`` prints it; ``make docs`` writes it into monitoring/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from tests.monitoring.panels import EVENTS, ROWS, Kind, Panel
from tests.support.paths import REPOSITORY

FILE = REPOSITORY / "monitoring" / "grafana" / "requiretls-milter.json"

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

STAT_HEIGHT, HEIGHT = 4, 8
"""Of panels, in units of the grid."""

COLOURS: Mapping[str, str] = {
    "Configuration loaded": "blue",
    "Process died": "red",
    "Downgrade": "orange",
}

Builder: TypeAlias = (
    stat.Panel | timeseries.Panel | table.Panel | statetimeline.Panel | heatmap.Panel
)


def page() -> str:
    """The file's content."""
    return JSONEncoder(sort_keys=True, indent=2).encode(build().build()) + "\n"


def build() -> dashboard.Dashboard:
    """The whole dashboard."""
    made = (
        dashboard.Dashboard("REQUIRETLS milter")
        .uid("requiretls-milter")
        .description("What becomes of mail that asks for REQUIRETLS (RFC 8689), and of the milter.")
        .tags(["mail", "requiretls"])
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .timezone("browser")
        .refresh("1m")
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .with_variable(_choice("instance", "Milter", "build_info", "instance"))
        .with_variable(_choice("domain", "Domain", 'domain_ready{instance=~"$instance"}', "domain"))
    )
    for name, expression in EVENTS.items():
        made.annotation(
            dashboard.AnnotationQuery()
            .name(name)
            .datasource(SOURCE)
            .enable(True)
            .icon_color(COLOURS[name])
            .expr(expression)
        )
    number = 0
    for row, panels in ROWS.items():
        number += 1
        made.with_row(dashboard.Row(row).id(number))
        for panel in panels:
            number += 1
            made.with_panel(_panel(panel).id(number))
    return made


def _choice(name: str, label: str, series: str, of: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(f"label_values(requiretls_milter_{series}, {of})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(panel: Panel) -> Builder:
    made = _MAKERS[panel.kind](panel)
    made.title(panel.title).description(panel.asks).datasource(SOURCE)
    made.span(panel.width).height(STAT_HEIGHT if panel.kind is Kind.STAT else HEIGHT)
    made.unit(panel.unit)
    for letter, (legend, expression) in zip("ABCDEFGH", panel.queries.items(), strict=False):
        query = prometheus.Dataquery().expr(expression).ref_id(letter).datasource(SOURCE)
        if legend:
            query.legend_format(legend)
        if panel.kind is Kind.TABLE:
            query.instant().format(PromQueryFormat.TABLE)
        elif panel.kind is Kind.STAT:
            query.instant()
        elif panel.kind is Kind.HEATMAP:
            query.range().format(PromQueryFormat.HEATMAP)
        else:
            query.range()
        made.with_target(query)
    if panel.words:
        words = {str(value): ValueMappingResult(text=text) for value, text in panel.words.items()}
        made.mappings([ValueMap(options=words)])
    if panel.good is not None:
        made.thresholds(_thresholds(panel.good, panel.bad))
        made.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    return made


def _thresholds(good: float, bad: float | None) -> dashboard.ThresholdsConfig:
    """Green from *good* on, and red below it, or from *bad* on."""
    if bad is None:
        steps = [Threshold(None, "red"), Threshold(good, "green")]
    else:
        steps = [Threshold(None, "green"), Threshold(bad, "red")]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _stat(panel: Panel) -> stat.Panel:
    return (
        stat.Panel()
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.VALUE if panel.good is None else BigValueColorMode.BACKGROUND)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _graph(_: Panel) -> timeseries.Panel:
    return timeseries.Panel().min(0).legend(_LEGEND)


def _stacked(panel: Panel) -> timeseries.Panel:
    stacking = common.StackingConfig().mode(StackingMode.NORMAL).group("A")
    return _graph(panel).fill_opacity(30).stacking(stacking)


def _table(_: Panel) -> table.Panel:
    hidden = {"Time": True, "job": True, "__name__": True}
    return table.Panel().with_transformation(
        DataTransformerConfig(id_val="organize", options={"excludeByName": hidden})
    )


def _timeline(_: Panel) -> statetimeline.Panel:
    return statetimeline.Panel().show_value(VisibilityMode.NEVER).merge_values(True).row_height(0.8)


def _heatmap(_: Panel) -> heatmap.Panel:
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64)
    return heatmap.Panel().color(colours).y_axis(heatmap.YAxisConfig().unit("s"))


_LEGEND = (
    common.VizLegendOptions()
    .show_legend(True)
    .display_mode(LegendDisplayMode.LIST)
    .placement(LegendPlacement.BOTTOM)
)

_MAKERS: Mapping[Kind, Callable[[Panel], Builder]] = {
    Kind.STAT: _stat,
    Kind.GRAPH: _graph,
    Kind.STACKED: _stacked,
    Kind.TABLE: _table,
    Kind.TIMELINE: _timeline,
    Kind.HEATMAP: _heatmap,
}


if __name__ == "__main__":
    print(page(), end="")
