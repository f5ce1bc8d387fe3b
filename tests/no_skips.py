"""A pytest plugin: a session with a skipped test or an expected failure fails.

A skipped test looks like a passed one in a green run. Tests that need torch are left out by `-m 'not torch'`
on Pythons without it, which pytest counts as deselected, and run on the one that has it.
"""

from __future__ import annotations

import pytest

_not_run: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped or hasattr(report, "wasxfail"):
        _not_run.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:  # a whole module, by pytest.skip or importorskip
        _not_run.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _not_run:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _not_run:
        terminalreporter.write_line(
            f"failed: {len(_not_run)} tests were skipped or expected to fail: {', '.join(_not_run)}", red=True
        )
