"""Numbers that the commands refuse before they start."""

import pytest

from fewloop_trainer.cli import main


@pytest.mark.parametrize("option", ["--limit-test", "--threads"])
@pytest.mark.parametrize("value", ["0", "-3"])
def test_a_benchmark_refuses_a_number_below_one(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["benchmark", "no-such-folder", f"{option}={value}"])
    assert refused.value.code == 2
    assert f"{value!r} is no whole number over 0" in capsys.readouterr().err
