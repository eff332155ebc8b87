"""One HTML page that needs nothing else: readable on a phone, printed or offline."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from byzopt.files import write_atomically
from byzopt.reports.study.chart import Chart
from byzopt.reports.study.report import StudyReport

TABLES = 8  # tables that are shown at once
OPEN = 12  # charts of a kind that are shown at once; the rest unfold


def save_study(report: StudyReport, out: Path, html: bool) -> list[Path]:
    """Write every chart as PNG, SVG, PDF, CSV and LaTeX and every table as CSV and LaTeX; with `html`
    one page of all. Returns the paths of what was written."""
    made = [path for chart in (*report.maps, *report.curves) for path in chart.save(out)]
    made += [path for sheet in report.sheets for path in sheet.save(out)]
    if html:
        write_atomically(out / "index.html", render_page(report).encode())
        made.append(out / "index.html")
    return made


def environment() -> Any:
    """How pages are made of templates: what comes from users is escaped and made visible."""
    from jinja2 import Environment, PackageLoader

    from byzopt.escaping import visible

    return Environment(
        loader=PackageLoader("byzopt.reports.study", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda said: visible(said) if type(said) is str else said,  # markup is of another type
    )


def render_page(report: StudyReport) -> str:
    """The page's text."""
    from byzopt import __version__

    study = report.study
    reasons = [
        (case.labels, case.seed, str(case.outcome.status), case.outcome.message)
        for case in study.cases
        if case.outcome.status.failed
    ]
    groups: dict[str, list[Chart]] = {}
    for chart in report.curves:
        kind = chart.name.partition("-")[0]
        groups.setdefault(kind if kind in ("loss", "workers") else "main", []).append(chart)
    main_curves, losses = groups.get("main", []), groups.get("loss", [])
    text: str = (
        environment()
        .get_template("page.html.j2")
        .render(
            study=study,
            counts=Counter(case.outcome.ending for case in study.cases),
            maps=report.maps,
            curves=main_curves or losses,
            losses=losses if main_curves else [],
            workers=groups.get("workers", []),
            sheets=report.sheets,
            reasons=reasons,
            varied=study.varied,
            open=OPEN,
            tables=TABLES,
            version=__version__,
        )
    )
    return text
