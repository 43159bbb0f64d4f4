"""What `ledger publish` puts on the Hub, seen on the verify page as somebody sees it who scans the QR."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.main import main
from ledger import qr
from ledger.keys import ECDSA_P256
from tests.cli.conftest import settle
from tests.hub import LoopbackHub
from tests.page.chromium import Page
from tests.page.conftest import Site
from tests.page.look import check, rows, text, verdict
from tests.shop import Shop

REPO = "acme/little"


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: LoopbackHub, capsys: pytest.CaptureFixture[str]) -> str:
    """A published model, and the policy that its publisher gives to his readers."""
    settle(tmp_path, monkeypatch)
    monkeypatch.delenv("LEDGER_VERIFY_PAGE", raising=False)
    Shop(tmp_path).keys.new("alice-model", None, ECDSA_P256)
    assert main(["publish", "little-3e", "--to", f"hf:{REPO}"]) == 0
    capsys.readouterr()
    assert main(["key", "export", "alice", "--as", "policy"]) == 0
    hub.log.clear()
    return capsys.readouterr().out


def listed(hub: LoopbackHub) -> int:
    """How many files the published alloy lists: the model's, and the records of its evaluations."""
    alloy = json.loads(hub.files(REPO)["little-3e.alloy.json"])
    return len(alloy["results"]["integrity"]["fileHashes"])


def test_the_printed_codes_open_a_green_page(tab: Callable[..., Page], site: Site, hub: LoopbackHub, policy: str, tmp_path: Path) -> None:
    """Both QR codes, as the files hold them: the place with its hash, and the whole proof; every file of the listing is attested."""
    codes = {}
    for name in ("verify-qr.png", "proof-qr.png"):
        (tmp_path / name).write_bytes(hub.files(REPO)[name])
        (codes[name],) = qr.read(tmp_path / name)
    page = tab(f"{site.page(hub.endpoint)}#{codes['verify-qr.png'].partition('#')[2]}", width=390, height=844)
    assert verdict(page) == "grey"
    page.call("policy => { byId('policy').value = policy; byId('policy').dispatchEvent(new Event('input')); }", policy)
    page.wait("document.querySelector('#verdict')?.dataset.verdict !== 'grey'")
    assert (verdict(page), rows(page, "failed")) == ("good", "")
    assert hub.weight_bytes() == 0
    proven = rows(page, "proven")
    assert "alice released exactly this alloy file as little-3e 1.0.0, for hf:acme/little" in proven
    assert f"{listed(hub)} files in the Hub's listing" in proven
    assert "attested" in text(page, ".facts")
    assert check(page, policy=policy, where=codes["proof-qr.png"]) == "good"


def test_a_downloaded_copy_is_green_and_a_changed_one_is_not(page: Page, hub: LoopbackHub, policy: str, tmp_path: Path) -> None:
    """Everything of the repository dropped on the page; then with one byte changed."""
    copy = tmp_path / "copy"
    for name, content in hub.files(REPO).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    page.call("policy => { byId('policy').value = policy; }", policy)
    page.drop([copy])
    assert (verdict(page), rows(page, "failed")) == ("good", "")
    assert f"{listed(hub)} files that you dropped" in rows(page, "proven")
    assert "model.sig: not checked by this page" in rows(page, "unverified")
    weights = copy / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    page.evaluate("byId('report').replaceChildren()")
    page.drop([copy])
    assert verdict(page) == "bad"
