"""Raw episodes of a zero-shot evaluation, before any statistics."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt32

Json = dict | list | str | float | int | bool | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Complete episodes of one run on one suite: S seeds, M levels, A attempts."""

    run: str  # label of the run in tables and figures
    suite: str
    suite_version: str
    level_names: tuple[str, ...]  # [M], all different
    # The arrays are not annotated with jaxtyping, whose checks run only in tests. Evaluations are
    # also read from files, so `_check` verifies shapes and values whenever one is constructed.
    level_hashes: np.ndarray  # uint32 [M, 2]
    optimal_steps: np.ndarray  # integers [M]; -1 if unknown or unsolvable
    optimal_return: np.ndarray  # [M]; NaN where unknown
    episode_return: np.ndarray  # [S, M, A], extrinsic, undiscounted
    length: np.ndarray  # [S, M, A], in steps
    success: np.ndarray | tuple[()] = ()  # bool [S, M, A]; () if the family does not define it
    meta: dict = field(default_factory=dict)  # JSON: update, env steps, seed, versions, …

    def __post_init__(self):
        """Convert dtypes, and reject inconsistent shapes and returns that are not finite."""
        dtypes = {
            "level_hashes": np.uint32,
            "optimal_steps": np.int64,
            "optimal_return": np.float64,
            "episode_return": np.float64,
            "length": np.int64,
        }
        if not isinstance(self.success, tuple):
            dtypes["success"] = np.bool_
        for name, dtype in dtypes.items():  # object.__setattr__, because the class is frozen
            object.__setattr__(self, name, np.asarray(getattr(self, name)).astype(dtype))
        object.__setattr__(self, "level_names", tuple(self.level_names))
        object.__setattr__(self, "meta", plain(self.meta))
        _check(self)

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


def _check(e: Evaluation) -> None:
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
    if not np.isfinite(e.episode_return).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(e.episode_return))[0])
        raise ValueError(
            f"episode_return is not finite at [seed, level, attempt] {where} of run {e.run!r}; "
            "check whether the policy has diverged or the reward is not finite"
        )
