import pytest


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Every test has a store of its own, no committed tables, and nobody's data folder."""
    monkeypatch.setenv("LOTTERY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LOTTERY_RESULTS", "")
    monkeypatch.delenv("LOTTERY_DATA", raising=False)
    monkeypatch.delenv("LOTTERY_MISSING", raising=False)
    return tmp_path
