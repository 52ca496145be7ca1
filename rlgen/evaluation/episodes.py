"""Raw episodes of a zero-shot evaluation, before any statistics."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt32

Json = dict | list | str | float | int | bool | None

BOUND = "optimum_is_bound"
"""Key of `Evaluation.meta`: True if no episode can beat the optimum, see `LevelEnv`."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Complete episodes of one run on one suite: S seeds, M levels, A attempts."""

    run: str  # label of the run in tables and figures
    suite: str
    suite_version: str
    level_names: tuple[str, ...]  # [M], all different
    # The arrays are not annotated with jaxtyping, whose checks run only in tests. Evaluations are
    # also read from files, so shapes and values are checked whenever one is constructed.
    level_hashes: np.ndarray  # uint32 [M, 2]
    optimal_steps: np.ndarray  # integers [M]; -1 if unknown or unsolvable
    optimal_return: np.ndarray  # [M]; NaN where unknown
    episode_return: np.ndarray  # [S, M, A], extrinsic, undiscounted
    length: np.ndarray  # [S, M, A], in steps; in a meta-test, env steps that trained the agent
    success: np.ndarray | tuple[()] = ()  # bool [S, M, A]; () if the family does not define it
    meta: dict = field(default_factory=dict)  # JSON: update, env steps, seed, versions, …

    def __post_init__(self):
        """Convert dtypes, and reject inconsistent shapes and impossible values."""
        dtypes = {
            "level_hashes": np.uint32,
            "optimal_steps": np.int64,
            "optimal_return": np.float64,
            "episode_return": np.float64,
            "length": np.int64,
        }
        if not isinstance(self.success, tuple):
            dtypes["success"] = np.bool_
        for name in dtypes:  # object.__setattr__, because the class is frozen
            object.__setattr__(self, name, np.asarray(getattr(self, name)))
        object.__setattr__(self, "level_names", tuple(self.level_names))
        object.__setattr__(self, "meta", plain(self.meta))
        _check_shapes(self)
        # Before the conversion, which would turn a success of 0.5 into True.
        _check_values(self)
        for name, dtype in dtypes.items():
            object.__setattr__(self, name, getattr(self, name).astype(dtype))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of seeds, levels and attempts."""
        return self.episode_return.shape

    @property
    def is_untrained(self) -> bool:
        """True if these are agents before their first update, which serve as a baseline."""
        return self.meta.get("update") == 0 and self.meta.get("env_steps") == 0

    @property
    def relative_return(self) -> Float[np.ndarray, "S M A"]:
        """Return divided by the optimal return; NaN if the optimum is unknown or not positive."""
        optimum = np.where(self.optimal_return > 0, self.optimal_return, np.nan)
        return self.episode_return / optimum[:, None]

    @property
    def solved_length(self) -> Float[np.ndarray, "S M"]:
        """Mean length of solved episodes; NaN if no episode was solved or `success` is ()."""
        if isinstance(self.success, tuple):
            return np.full(self.shape[:2], np.nan)
        count = self.success.sum(axis=-1)
        steps = (self.length * self.success).sum(axis=-1)
        # `where` with a NaN-filled `out` leaves unsolved entries NaN without dividing by zero.
        return np.divide(steps, count, out=np.full(count.shape, np.nan), where=count > 0)

    @property
    def score(self) -> tuple[str, Float[np.ndarray, "S M A"]]:
        """Name and values of the score that aggregates use.

        If the family defines `success`, the score is the solve rate. Otherwise, if the relative
        return is known on every level, the score is the relative return. In all other cases it is
        the return.
        """
        if not isinstance(self.success, tuple):
            return "solve rate", self.success.astype(np.float64)
        relative = self.relative_return
        # If the optimum is unknown on one level, all levels use the return, because scores of
        # different kinds cannot be aggregated.
        known = bool(np.isfinite(relative).all())
        return ("relative return", relative) if known else ("return", self.episode_return)


def hex_hash(bits: UInt32[np.ndarray, "2"]) -> str:
    """Format a level hash as sixteen hexadecimal digits."""
    return f"{int(bits[0]):08x}{int(bits[1]):08x}"


def printable(text: str) -> str:
    """Replace non-printable characters, which could control a terminal, by `?`."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def plain(x) -> Json:
    """Convert arrays and scalars of any library to JSON values; NaN and infinity become null."""
    if isinstance(x, dict):
        return {str(name): plain(value) for name, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [plain(value) for value in x]
    if hasattr(x, "tolist"):
        return plain(x.tolist())
    if isinstance(x, float):
        return x if np.isfinite(x) else None
    return x if isinstance(x, (str, bool, int)) or x is None else str(x)


def _check_shapes(e: Evaluation) -> None:
    if e.episode_return.ndim != 3 or 0 in e.episode_return.shape:
        raise ValueError(
            f"episode_return has shape {e.episode_return.shape}; it must be "
            "[seeds, levels, attempts] with at least one of each"
        )
    num_levels = e.shape[1]
    expected = {
        "length": e.shape,
        "level_hashes": (num_levels, 2),
        "optimal_steps": (num_levels,),
        "optimal_return": (num_levels,),
    }
    if not isinstance(e.success, tuple):
        expected["success"] = e.shape
    for name, shape in expected.items():
        if getattr(e, name).shape != shape:
            raise ValueError(f"{name} has shape {getattr(e, name).shape}; it must be {shape}")
    if len(e.level_names) != num_levels or len(set(e.level_names)) != num_levels:
        raise ValueError(f"level_names must be {num_levels} different names; got {e.level_names}")


def _check_values(e: Evaluation) -> None:
    """Reject values that no evaluation can have; called before dtypes are converted."""
    _check_levels(e)
    whole = np.isfinite(e.length) & (e.length == np.floor(e.length))
    refused = {
        "episode_return": (
            ~np.isfinite(e.episode_return),
            "is not finite; check whether the policy has diverged or the reward is not finite",
        ),
        "length": (~whole | (e.length < 1), "is not a whole number of steps of at least 1"),
    }
    if not isinstance(e.success, tuple):
        refused["success"] = ~np.isin(e.success, (0, 1)), "is neither 0 nor 1"
    for name, (wrong, why) in refused.items():
        _refuse(e, name, wrong, why)
    if e.meta.get(BOUND) is True:
        _check_optimum(e)
    for name, least in (("update", 0), ("env_steps", 0), ("look", 0), ("attempts", 1)):
        low = min(_numbers(e.meta.get(name)), default=least)
        if low < least:
            raise ValueError(f"run {e.run!r}: {name} must be at least {least}, got {low}")


def _check_levels(e: Evaluation) -> None:
    steps, bits = e.optimal_steps, e.level_hashes
    is_word = (bits >= 0) & (bits < 2**32) & (bits == np.floor(bits))
    refused = {
        "optimal_steps": (
            ~np.isfinite(steps) | (steps != np.floor(steps)) | (steps < -1),
            "must be a whole number of at least 0, or -1 if unknown or unsolvable",
        ),
        "optimal_return": (np.isinf(e.optimal_return), "must be finite, or NaN if unknown"),
        "level_hashes": (~is_word.all(axis=1), "must be two whole numbers from 0 to 2**32 - 1"),
    }
    for name, (wrong, why) in refused.items():
        if wrong.any():
            m = int(np.argmax(wrong))
            value = getattr(e, name)[m].tolist()
            raise ValueError(f"{name} of level {e.level_names[m]!r} is {value}; it {why}")


def _check_optimum(e: Evaluation) -> None:
    """Reject episodes that beat the optimum of an environment with `optimum_is_bound`."""
    best, steps = e.optimal_return[:, None], e.optimal_steps[:, None]
    # A comparison with NaN, an unknown optimum, is False. The tolerance covers rounding of float32.
    too_high = e.episode_return > best + 1e-3 * np.maximum(1, np.abs(best))
    why = "is above the optimal return of the level; the solver or the reward is wrong"
    _refuse(e, "episode_return", too_high, why)
    if isinstance(e.success, tuple):
        return
    solved = e.success == 1
    why = "is shorter than the shortest solution, although the level was solved"
    _refuse(e, "length", solved & (e.length < steps), why)
    _refuse(e, "success", solved & (steps == -1) & (best == 0), "is 1 on an unsolvable level")


def _refuse(e: Evaluation, name: str, wrong: np.ndarray, why: str) -> None:
    """Raise an error that names the first attempt where `wrong`, [S, M, A], is True."""
    if wrong.any():
        s, m, a = (int(i) for i in np.argwhere(wrong)[0])
        value = getattr(e, name)[s, m, a].item()
        raise ValueError(
            f"run {e.run!r}, seed {s}, level {e.level_names[m]!r}, attempt {a}: "
            f"{name} {value} {why}"
        )


def _numbers(x: Json) -> list[int | float]:
    """Return all numbers in a value of `meta`, also in lists and dicts."""
    if isinstance(x, dict):
        x = list(x.values())
    if isinstance(x, list):
        return [number for value in x for number in _numbers(value)]
    return [x] if isinstance(x, int | float) else []
