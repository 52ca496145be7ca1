"""Settings for all tests: CPU, two simulated devices, strict shapes, a compilation cache."""

import ctypes
import gc
import os
from importlib.metadata import version
from pathlib import Path

# JAX reads these on its first import, also in the processes that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["MPLBACKEND"] = "Agg"
# Compiling takes most of the suite's time, and the programs run only briefly. Without these flags
# most of it would go into optimisations, above all into the emitters of fused loops.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true"
)
if [int(x) for x in version("jaxlib").split(".")[:2]] < [0, 11]:  # versions known to have the flag
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
    # One part per program, since the workers use all cores already.
    os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"

import hypothesis
import jax
import pytest

CACHE = Path(__file__).parent.parent / ".jax_cache"

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)  # sharding is tested in this process
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiling takes most of the suite's time; workers and later runs share the results.
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# Derandomised, so that every failure is reproducible everywhere.
hypothesis.settings.register_profile("rlgen", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("rlgen")

# Tracing makes millions of temporary objects; collecting them less often saves 10 % of its time.
gc.set_threshold(200_000, 20, 100)

LONG_FILES = (
    "test_notebooks.py", "test_held_out_file.py", "test_coverage.py", "test_suites.py",
    "test_snippets.py", "test_site.py", "test_recipes.py", "test_reproduce.py", "test_files.py",
    "test_environments.py", "test_learners.py", "test_samplers.py", "test_bonuses.py",
    "test_learner_fields.py",
)  # fmt: skip
"""Files whose tests take minutes. A worker runs whole files, so these are begun first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of long files first, so that no worker begins one when the others are done."""
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


LARGE, ENOUGH = 2**30, 3 * 2**29
"""Memory of a worker, in bytes, above which programs are dropped after a module or a test."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Drop compiled programs if a worker's memory has grown; modules share few programs."""
    result = yield
    module_ends = nextitem is None or nextitem.path != item.path
    forget_programs(LARGE if module_ends else ENOUGH)
    return result


def forget_programs(limit: int) -> None:
    """Drop compiled programs if this process holds more than `limit` bytes."""
    if resident() > limit:
        jax.clear_caches()
        gc.collect()
        if hasattr(LIBC, "malloc_trim"):  # glibc keeps freed memory
            LIBC.malloc_trim(0)


LIBC = ctypes.CDLL(None)


def resident() -> int:
    """Return the bytes of memory that this process holds, 0 if unknown."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") if statm.exists() else 0
