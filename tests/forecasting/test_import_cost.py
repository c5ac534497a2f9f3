import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["forecasting.api", "forecasting.registry", "forecasting.command", "forecasting.simulate"]
)
def test_nothing_but_a_fit_of_ets_imports_statsmodels(module: str) -> None:
    code = f"import sys, {module}; sys.exit('statsmodels' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_listing_the_models_imports_none_of_them() -> None:
    code = (
        "import sys; from forecasting.registry import MODELS; names = MODELS.names();"
        "sys.exit('ets' not in names or any(m.startswith('forecasting.models') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
