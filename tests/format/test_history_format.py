"""What the history holds is what docs/format.md §12 says, read from the page alone."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from independent_reader import Reader, open_envelope
from independent_records import Rate, read_history

import packstone

TINY = packstone.Argon2(time=1, memory=8 * 1024, lanes=1)


@pytest.mark.parametrize("passphrase", [None, "correct horse"], ids=["plain", "sealed"])
def test_history_is_what_the_page_says(
    tmp_path: Path, passphrase: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packstone.repository.rates._SMALL_NS", 1)
    monkeypatch.setattr("packstone.repository.rates._SMALL_BYTES", 1)
    monkeypatch.setenv("PACKSTONE_PASSPHRASE", passphrase or "")
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(tmp_path / "cache"))
    source, root = tmp_path / "source", tmp_path / "repository"
    source.mkdir()
    (source / "file").write_bytes(Random(1).randbytes(300_000))
    more = {"passphrase": passphrase, "argon2": TINY} if passphrase else {}
    with packstone.init(root, **more) as repository:  # type: ignore[arg-type]
        taken = repository.snapshot([source], tags=["job:" + "crm" * 60])
        repository.restore("latest", tmp_path / "a", estimated_seconds=7.0)
        repository.check(read_data=True)
        reader = Reader(str(root))
        rates: list[Rate] = []
        kinds: list[str] = []

        def read() -> None:
            rates.clear()
            kinds.clear()
            for path in (root / "history").iterdir():
                kind, rows = read_history(reader, f"history/{path.name}", path.read_bytes())
                kinds.append(kind)
                rates.extend(rows if kind == "rates" else [])

        read()
        assert sorted(kinds) == ["rates", "rates", "verified"]
        restore, check = sorted(rates)
        assert (restore.what, restore.bytes, restore.files) == ("restore", 300_000, 1)
        assert (restore.estimated, restore.storage) == (7 * 10**9, "directory")
        assert restore.job == ("crm" * 60)[:100] and restore.host
        assert (check.what, check.job, check.estimated) == ("check", "", 0)
        assert check.bytes >= 300_000
        for _ in range(20):  # the page: 23 objects, then one of all rates
            repository.restore("latest", tmp_path / "a", overwrite="always")
        read()
        assert len(kinds) == 23
        repository.restore("latest", tmp_path / "a", overwrite="always")
        read()
        assert sorted(kinds) == ["rates", "verified"]
        assert [rate.what for rate in sorted(rates)] == ["restore", "check", *["restore"] * 21]
    data = (root / "snapshots" / str(taken.snapshot_id)).read_bytes()
    summary = open_envelope(data, 3, reader.owner, reader.sealing)["summary"]
    page = (Path(__file__).parents[2] / "docs/format.md").read_text()
    assert [key for key in summary if f"`{key}`" not in page.partition("## 7.")[0]] == []
