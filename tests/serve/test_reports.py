"""Reports on the page: listed with the token, opened by an address that cannot be guessed, in a sandbox."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.browser import browse
from tests.serve.reader import Page
from tests.serve.running import call, running
from vislang.cli import main
from vislang.serve.reports import POLICY

TOKEN = "s3cret"
SCRIPT = "<!doctype html><title>A report</title><p>Figures</p><script>document.title = 'ran'</script>"


@pytest.fixture
def runs(tmp_path) -> Path:
    folder = tmp_path / "runs"
    for number, name in enumerate(("old", "new/eval é")):
        (folder / name).mkdir(parents=True)
        (folder / name / "report.html").write_text(SCRIPT, encoding="utf-8")
        os.utime(folder / name / "report.html", (number, number))
    (tmp_path / "secret.html").write_text("no report")
    return folder


def test_reports_need_the_token_or_their_address(runs):
    with running({}, token=TOKEN, reports=[runs]) as address:
        assert call(address, "/v1/reports").status == 401
        cards = call(address, "/v1/reports", Authorization=f"Bearer {TOKEN}").json["data"]
        assert [(card["id"], card["modified"]) for card in cards] == [("runs/new/eval é", 1), ("runs/old", 0)]
        for card in cards:
            reply = call(address, card["url"])
            assert (reply.status, reply.content) == (200, SCRIPT.encode())
            assert reply.headers["content-security-policy"] == POLICY
        secret = cards[0]["url"].split("/")[2]
        for path in (
            "/reports/", f"/reports/{secret}/", "/reports/guess/runs/old", f"/reports/{secret}/runs",
            f"/reports/{secret}/runs/../secret.html", f"/reports/{secret}/%2e%2e/secret.html", "/reports/é/runs/old",
        ):  # fmt: skip
            assert call(address, path.replace("é", "%C3%A9")).status == 404, path
    with running({}, token=TOKEN, reports=[runs]) as address:
        assert call(address, cards[0]["url"]).status == 404


def test_the_page_links_them(runs, tmp_path):
    with running({}, reports=[runs]) as address, browse(f"{address}/", tmp_path) as browser:
        page = Page(browser, address)
        page.until("the reports are listed", lambda: len(page.all("#report-list a")) == 2)
        assert [link.text for link in page.all("#report-list a")] == ["runs/new/eval é", "runs/old"]
        browser.get(page.one("#report-list a").get_attribute("href"))
        assert browser.find_element("css selector", "p").text == "Figures"
        assert browser.title == "A report"
        # The blocked script is in the log.
        assert len(browser.get_log("browser")) == 1


def test_no_such_folder(tmp_path, capsys):
    assert main(["serve", "--reports", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"vislang: --reports {tmp_path / 'none'}: no such folder.\n"
