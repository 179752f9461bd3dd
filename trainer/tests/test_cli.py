"""What the commands refuse, and how they say so."""

from pathlib import Path

import pytest

from fewloop_trainer.cli import main


@pytest.mark.parametrize("option", ["--limit-test", "--threads"])
@pytest.mark.parametrize("value", ["0", "-3"])
def test_a_benchmark_refuses_a_number_below_one(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["benchmark", "no-such-folder", f"{option}={value}"])
    assert refused.value.code == 2
    assert f"{value!r} is no whole number over 0" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "export-base"])
def test_a_folder_that_is_not_there_is_named(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tmp_path / "missing")]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"fewloop_trainer {command}: ") and str(tmp_path / "missing") in said
