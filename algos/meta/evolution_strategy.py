"""Meta-training of an update rule by evolution strategies, over whole lifetimes of agents.

Each slot holds a task: a level and a lifetime, which is a number of agent updates. Each update of
the curriculum is one generation. In a generation, two candidate rules are evaluated on each task.
Both rules train the same initial agent with the same random numbers for the whole lifetime. The
fitness of a rule is the return of the agent's final policy. The inner loop is not differentiated
and can span a lifetime, so the fitness includes effects that appear hundreds of updates later.
Meta-gradients, in contrast, have a horizon of a few updates and do not find schedules for a
lifetime.

Source: Jackson et al., 2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms"
(TA-LPG, TA-LPO). Differs from their code in four ways. In that code, the two agents of a task use
different random numbers; the second candidate wins a tie; all parameters of the initial rule are 0;
and all agents are trained for the longest lifetime, but updates beyond the lifetime of an agent are
discarded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.meta.evosax_strategy import Strategy
from rlgen.algos.rules.files import NO_POLICY, rule_files
from rlgen.nn.optimizers import global_norm
from rlgen.parallel.seeds import max_over_seeds, tree_where
from rlgen.protocols import Learner, LevelEnv, RuleLearner, Student, check_numbers
from rlgen.rollout import continue_rollout, evaluate_policy, reset_slots
from rlgen.types import Key, LifetimeResults, Metrics, Outcome, PyTree, Slots, Spent, Task


class ESState(NamedTuple):
    """Search distribution over rules."""

    strategy: PyTree
    num_updates: Int[Array, ""]  # number of generations so far


class CandidateFitness(NamedTuple):
    """Fitness of the two candidates of a task."""

    fitness: Float[Array, " 2"]  # expected return of the final policy
    steps_judged: Float[Array, ""]  # env steps of the evaluation; 0 if the return is exact


@dataclass(frozen=True)
class MetaES(Student):
    """Student that meta-trains an update rule by an evolution strategy.

    Attributes:
        learner: Learner whose agents are updated by the rule: `lpg` or `lpo`. The search starts
            from the learner's rule, which may be trained or untrained.
        strategy: Evolution strategy and fitness shaping.
        from_zeros: Whether the search starts from parameters that are all 0 instead of the
            learner's rule, as in the code of Jackson et al.
        rollout_steps: Number T of env steps of each worker (see `num_workers`) in one agent update.
        num_workers: Number W of an agent's workers: environments that all have the agent's level.
        pair_batch_size: Number of tasks processed in parallel. All tasks of a batch run for as many
            updates as the longest lifetime. Tasks are sorted by lifetime, so few of these updates
            are superfluous. A size of 1 avoids superfluous updates entirely and suits a CPU; a GPU
            needs larger batches.
        eval_episodes: Number of episodes in which a final policy is evaluated if its return cannot
            be computed exactly.

    Raises:
        ValueError: If a field is out of range, or `from_zeros` is set for a rule for which
            parameters p and -p define the same function.
    """

    env: LevelEnv
    learner: RuleLearner
    strategy: Strategy = field(default_factory=Strategy)
    from_zeros: bool = False
    rollout_steps: int = 20
    num_workers: int = 64
    pair_batch_size: int = 1
    eval_episodes: int = 64
    mesh: Mesh | tuple[()] = field(default=(), metadata={"config": False})

    max_levels_per_slot = 1
    full_lifetime = True
    gives = frozenset({"lifetimes", "episodes"})

    def __post_init__(self):
        check_numbers(
            self, "rollout_steps", "num_workers", "pair_batch_size", "eval_episodes", least=1
        )
        net = self.learner.rule_net
        if self.from_zeros and net.is_even:
            raise ValueError(
                f"from_zeros: parameters p and -p of a {type(net).__name__} define the same "
                "function, so mirrored candidates around 0 could not differ in fitness; set "
                "from_zeros to false"
            )

    @property
    def num_steps(self) -> int:
        """Env steps of each slot per agent update, summed over the slot's two agents."""
        return 2 * self.rollout_steps * self.num_workers

    def check(self, num_slots: int) -> None:
        """Check that the tasks of `num_slots` slots can be divided into batches.

        Raises:
            ValueError: If `num_slots` is not a multiple of devices × `pair_batch_size`.
        """
        devices = self.mesh.size if isinstance(self.mesh, Mesh) else 1
        if num_slots % (devices * self.pair_batch_size):
            per = f" on each of {devices} devices" if devices > 1 else ""
            raise ValueError(
                f"num_slots={num_slots} cannot be divided into batches of "
                f"pair_batch_size={self.pair_batch_size}{per}; choose a pair_batch_size that "
                "divides it, such as 1"
            )

    def spanning(self, num_updates: int) -> "MetaES":
        """Return a copy whose learner's schedules span `num_updates` updates."""
        return replace(self, learner=self.learner.spanning(num_updates))

    def split_over(self, mesh: Mesh) -> "MetaES":
        """Return a copy that divides the tasks among devices, each of which runs its own loop."""
        return replace(self, mesh=mesh)

    def init(self, key: Key, num_slots: int) -> ESState:
        """Return the search distribution around the initial rule."""
        key_rule, key_strategy = jax.random.split(key)
        # The lifetime of 1 is arbitrary, because only the rule of the resulting state is used.
        rule = self.learner.spanning(1).init(key_rule).rule
        if self.from_zeros:
            rule = jax.tree.map(jnp.zeros_like, rule)
        # The population is 2 N: one pair of candidates for each of N slots.
        return ESState(self.strategy.init(key_strategy, rule, 2 * num_slots), jnp.int32(0))

    def rule(self, state: ESState) -> PyTree:
        """Return the mean of the search distribution, which is the rule that a run produces."""
        return self.strategy.mean(state.strategy, self._like())

    def policy(self, states: ESState) -> tuple[Learner, PyTree]:
        """Raise an error, because a rule has no policy. To evaluate a rule, train agents with it.

        Raises:
            ValueError: Always.
        """
        raise ValueError(NO_POLICY)

    def learner_with_rule(self, states: ESState, env: LevelEnv) -> tuple[RuleLearner, PyTree]:
        """Return a learner for `env` that applies a rule, and the rules of S seeds, [S, ...]."""
        return self.learner.for_env(env), jax.vmap(self.rule)(states)

    def files(self, states: ESState, origin: Mapping[str, Any]) -> dict[str, bytes]:
        """Return each seed's rule as a file for `rlgen.algos.rules.files.load_rule`.

        Args:
            states: States of S seeds.
            origin: Metadata of the run; its entry `seed` is the first of the seeds.
        """
        rules = jax.vmap(self.rule)(states)
        return rule_files(self.learner.rule_net, rules, states.num_updates, origin)

    def run(
        self, key: Key, state: ESState, slots: Slots, fresh: Bool[Array, " N"]
    ) -> tuple[ESState, Outcome, Metrics]:
        """Run one generation, which completes the task of every slot."""
        del fresh
        key_ask, key_live, key_tell = jax.random.split(key, 3)
        # Each slot has one task (`max_levels_per_slot`): [N, 1, ...] -> [N, ...].
        task: Task = jax.tree.map(lambda x: x[:, 0], slots.level)
        num_pairs = task.lifetime.size
        candidates, asked = self.strategy.ask(key_ask, state.strategy, self._like(), 2 * num_pairs)
        # Candidates i and i + P/2 are a pair: [P, ...] -> [2, N, ...] -> [N, 2, ...].
        pairs = jax.tree.map(
            lambda x: x.reshape(2, num_pairs, *x.shape[1:]).swapaxes(0, 1), candidates
        )
        fitness_of_pairs, lived = self._try(jax.random.split(key_live, num_pairs), pairs, task)
        # Fitness [N, 2] -> [2, N] -> [P], back in the order of the candidates.
        strategy = self.strategy.tell(
            key_tell, asked, candidates, fitness_of_pairs.fitness.T.ravel()
        )
        new = ESState(strategy, state.num_updates + 1)
        unjudged = jnp.full(num_pairs, jnp.nan)  # no antagonist is trained
        # The two candidates are samples around the distribution's mean, so their mean fitness is an
        # estimate of the fitness of the run's rule.
        lifetimes = LifetimeResults(
            fitness_of_pairs.fitness.mean(1), unjudged, jnp.ones(num_pairs, bool)
        )
        done = jnp.ones(num_pairs, bool)
        metrics = self._metrics(state, new, fitness_of_pairs, task, lived)
        spent = self._spent(fitness_of_pairs, task, lived)
        outcome = Outcome(done, (), lifetimes, lifetimes.as_episodes(done), spent)
        return new, outcome, metrics

    def _like(self) -> PyTree:
        """Return the shapes of a rule's parameters, without computing the parameters."""
        return jax.eval_shape(self.learner.rule_net.init, jax.random.key(0))

    def _try(self, keys: Key, rules: PyTree, task: Task) -> tuple[CandidateFitness, Int[Array, ""]]:
        """Evaluate the candidates of all tasks, in batches of tasks with similar lifetimes.

        Returns:
            Fitness per task, [N, 2], and the number of updates executed. This number is summed over
            tasks and includes updates beyond the lifetime of a task.
        """
        num_pairs, size = task.lifetime.size, self.pair_batch_size
        devices = self.mesh.size if isinstance(self.mesh, Mesh) else 1
        order = jnp.argsort(task.lifetime)
        # Batches are assigned to devices in turn, so that each device gets short and long
        # lifetimes.
        order = order.reshape(-1, devices, size).swapaxes(0, 1).ravel()
        # Keys are permuted together with their tasks, so random numbers do not depend on the
        # batching.
        xs = jax.tree.map(lambda x: x[order], (keys, rules, task))
        live = self._run_groups
        if isinstance(self.mesh, Mesh):
            split = PartitionSpec(self.mesh.axis_names[0])
            live = jax.shard_map(
                live, mesh=self.mesh, in_specs=split, out_specs=split, check_vma=False
            )
        fitness_of_pairs, num_iterations = live(*xs)
        back = jnp.zeros_like(order).at[order].set(jnp.arange(num_pairs))  # inverse permutation
        return jax.tree.map(lambda x: x[back], fitness_of_pairs), num_iterations.sum() * size

    def _run_groups(
        self, keys: Key, rules: PyTree, task: Task
    ) -> tuple[CandidateFitness, Int[Array, " groups"]]:
        """Evaluate sorted tasks batch by batch, and return the number of updates of each batch."""

        def group(xs: tuple) -> tuple[CandidateFitness, Array]:
            # All seeds use one bound, so that the loop's length is a scalar when seeds are vmapped.
            num_iterations = max_over_seeds(xs[2].lifetime.max())
            live = jax.vmap(lambda *pair: self._run_pair(num_iterations, *pair))
            return live(*xs), num_iterations

        xs = jax.tree.map(
            lambda x: x.reshape(-1, self.pair_batch_size, *x.shape[1:]), (keys, rules, task)
        )
        # Batches run one after the other, so each batch stops at its own longest lifetime.
        fitness_of_pairs, num_iterations = jax.lax.map(group, xs)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), fitness_of_pairs), num_iterations

    def _run_pair(
        self, num_iterations: Int[Array, ""], key: Key, rules: PyTree, task: Task
    ) -> CandidateFitness:
        """Evaluate two rules [2, ...] on one task with the same random numbers."""

        # Both rules use the same `key`, so only the rules can cause differences in fitness.
        def one(rule: PyTree) -> tuple[Array, Array]:
            state = self._run_lifetime(num_iterations, key, rule, task)
            # `_run_lifetime` folds 0 into the key; 1 gives independent random numbers.
            key_end = jax.random.fold_in(key, 1)
            return evaluate_policy(
                key_end, self.env, self.learner, state, task.level, self.eval_episodes
            )

        fitness, steps = jax.vmap(one)(rules)
        return CandidateFitness(fitness, steps.sum())

    def _run_lifetime(
        self, num_iterations: Int[Array, ""], key: Key, rule: PyTree, task: Task
    ) -> PyTree:
        """Return the learner's state at the end of one lifetime.

        Args:
            num_iterations: Number of updates executed, at least the lifetime; the agent does not
                change in updates beyond its lifetime.
            key: Random key.
            rule: Parameters of one candidate.
            task: One task.
        """
        learner = self.learner
        key_birth, key_begin, key_life = jax.random.split(jax.random.fold_in(key, 0), 3)
        # Both candidates of the pair start with the same agent, because `key_birth` is the same.
        state = learner.init_with(key_birth, rule, task.lifetime)
        shape = (self.num_workers, 1)
        # [W, 1, ...]: every worker has a queue that contains only this level.
        queue = jax.tree.map(lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)), task.level)
        running = reset_slots(key_begin, self.env, learner, queue)
        everyone = jnp.ones(self.num_workers)

        def update(n: Array, carry: tuple) -> tuple:
            state, running = carry
            key_play, key_learn = jax.random.split(jax.random.fold_in(key_life, n))
            player = (learner, state)
            # Keys depend on n alone, so updates beyond the lifetime do not change earlier ones.
            played, running = continue_rollout(
                key_play, self.env, player, queue, running, self.rollout_steps
            )
            learned, _ = learner.update(key_learn, state, played, everyone)
            return tree_where(n < task.lifetime, learned, state), running

        # With a traced bound, `fori_loop` becomes a while loop, which has no reverse-mode
        # derivative. Evolution strategies need no derivative.
        return jax.lax.fori_loop(0, num_iterations, update, (state, running))[0]

    def _metrics(
        self,
        old: ESState,
        new: ESState,
        fitness_of_pairs: CandidateFitness,
        task: Task,
        executed: Int[Array, ""],
    ) -> Metrics:
        before, after = self.rule(old), self.rule(new)
        moved = jax.tree.map(jnp.subtract, after, before)
        fitness, useful = fitness_of_pairs.fitness, task.lifetime.sum()
        # If an agent's parameters diverged, its fitness is not finite and is excluded from means.
        there = jnp.isfinite(fitness)
        gap = jnp.abs(fitness[:, 0] - fitness[:, 1])
        return {
            "lifetime_return": fitness.mean(where=there),
            "lifetime_gap": gap.mean(where=there.all(1)),
            "ties": (fitness[:, 0] == fitness[:, 1]).mean(),
            "diverged_agents": (~there).mean(),
            "rule_norm": global_norm(after),
            "rule_step": global_norm(moved),
            "useful_updates": useful / executed,
        }

    def _spent(
        self, fitness_of_pairs: CandidateFitness, task: Task, executed: Int[Array, ""]
    ) -> Spent:
        """Return the cost: one rule update, and env steps by purpose.

        `train` counts steps within lifetimes, `surplus` counts steps in updates beyond a lifetime,
        and `evaluate` counts steps of the final evaluation.
        """
        steps, useful = jnp.float32(self.num_steps), task.lifetime.sum()
        env_steps = {
            "train": steps * useful,
            "surplus": steps * (executed - useful),
            "evaluate": fitness_of_pairs.steps_judged.sum(),
        }
        return Spent(1.0, env_steps)
