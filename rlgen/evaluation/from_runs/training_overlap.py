"""Count a suite's levels among the levels that a run is known to have trained on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.generalisation.level_facts import open_log
from rlgen.evaluation.report.training_overlap import KEY, Overlap
from rlgen.evaluation.zero_shot import Loaded
from rlgen.held_out import digest, shapes_of
from rlgen.levels import OPEN_SPLITS, Suite, hash_levels, words
from rlgen.runs import folder
from rlgen.runs.curriculum_log import has_log
from rlgen.runs.records import find_buffer


def find_overlap(run: Path, loaded: Loaded, suite: Suite, allow_imports: bool = False) -> Overlap:
    """Count the levels of a suite among the run's training set, level buffer and curriculum log.

    In the log, only levels with positive weight count. A damaged log does not raise an error, since
    the finished evaluation would be lost; the result states that the log could not be read.

    Args:
        run: Run folder.
        loaded: Contents of the folder.
        suite: Suite to look for.
        allow_imports: Whether to import modules outside rlgen that the run's record names.
    """
    logged, unread = _logged(run, loaded.env, allow_imports)
    known = _known(loaded) | logged
    own = set().union(*known.values())
    tested = set(words(suite.levels.hash))
    protection = _protection(folder.read(run), loaded.env, suite)
    return Overlap(len(own & tested), len(tested), len(own), tuple(known), protection, unread)


def with_overlap(
    found: Evaluation, run: Path, loaded: Loaded, suite: Suite, allow_imports: bool = False
) -> Evaluation:
    """Return an evaluation whose metadata has the overlap of the suite with the run's levels."""
    overlap = find_overlap(run, loaded, suite, allow_imports)
    return replace(found, meta=found.meta | {KEY: overlap._asdict()})


def _known(loaded: Loaded) -> dict[str, set[int]]:
    """Return the hashes of the levels in the run's training set and in its buffer, by place."""
    found, sampler = {}, loaded.curriculum.sampler
    if sampler.level_set is not None:
        found["training set"] = set(words(sampler.level_set.hash))
    buffer = find_buffer(sampler, loaded.sampler)
    if buffer is not None and buffer.score.size:
        # The stored hashes of a meta-learner's tasks also cover the lifetime, so the levels are
        # hashed again.
        found["level buffer"] = set(words(hash_levels(loaded.env, buffer.level)))
    return found


def _logged(run: Path, env: Any, allow_imports: bool) -> tuple[dict[str, set[int]], str]:
    """Return the hashes of the logged levels that the run trained on, by place.

    The second result is the reason why the log cannot be read, or "".
    """
    if not has_log(run):
        return {}, ""
    try:
        _, log = open_log(run, allow_imports)
    except ValueError as error:
        return {}, str(error)
    trained = np.flatnonzero((log.weight > 0).ravel())
    if not trained.size:
        return {}, ""
    # [U, S, n, ...] (update, seed, slot) flattened to one axis.
    shape = log.weight.size
    level = jax.tree.map(lambda x: x.reshape(shape, *x.shape[3:])[trained], log.level)
    return {"curriculum log": set(words(hash_levels(env, level)))}, ""


def _protection(record: dict[str, Any], env: Any, suite: Suite) -> str:
    if suite.levels.split in OPEN_SPLITS:
        return "seen"
    single = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), suite.levels.level)
    if shapes_of(single) != shapes_of(jax.eval_shape(env.sample_level, jax.random.key(0))):
        return "other shape"
    rejected = record.get("held_out", {}).get(suite.name.rpartition("/")[2])
    return "rejected" if rejected == digest(np.asarray(suite.levels.hash)) else "not recorded"
