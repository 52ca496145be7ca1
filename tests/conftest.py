"""Settings of every test: CPU, two simulated devices, strict shapes, a compilation cache."""

import os
from importlib.metadata import version
from pathlib import Path

# Also for the processes that tests start; JAX reads them when it is first imported.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["MPLBACKEND"] = "Agg"
# Most of the suite's time is compiling, for programs that run for an instant: most of that would go
# into optimisations that they do not need, the emitters of fused loops above all.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true"
)
if [int(x) for x in version("jaxlib").split(".")[:2]] < [0, 11]:  # where the flag is known to be
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import hypothesis
import jax

CACHE = Path(__file__).parent.parent / ".jax_cache"

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)  # sharding is tested in this process
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiling is most of the suite's time, and both workers and later runs share the results.
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# The same examples each time: a failure seen once is seen again, by everyone.
hypothesis.settings.register_profile("rlgen", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("rlgen")
