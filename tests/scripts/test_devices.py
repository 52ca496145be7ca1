"""After scripts are imported, the number of CPU devices can still be set."""

import subprocess
import sys

import pytest

from tests.paths import ROOT


@pytest.mark.parametrize(
    ("script", "ask"),
    [
        ("demo", "jax.config.update('jax_num_cpu_devices', 2)"),  # an error once JAX has started
        ("sweep", "sweep._choose_devices({'devices': '2'}, by_ray=False)"),
    ],
)
def test_devices_can_be_chosen_after_a_script_is_imported(script, ask):
    code = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        f"import {script}, jax\n"
        f"{ask}\n"
        "assert len(jax.devices('cpu')) == 2"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
