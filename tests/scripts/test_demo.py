"""The demo leaves it to `rlgen train` how many devices the CPU is."""

import subprocess
import sys

from tests.paths import ROOT


def test_the_demo_does_not_start_jax_before_it_trains():
    code = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "import demo, jax\n"
        "jax.config.update('jax_num_cpu_devices', 2)\n"  # refused once JAX has started
        "assert len(jax.devices('cpu')) == 2"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
