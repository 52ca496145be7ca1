"""Evolution of a learned update rule, over whole lives of the agents that it trains.

Each slot holds a task, a level and the length of a life. In every update of the curriculum, a
generation, two rules are tried on each task; both train the same newborn agent with the same random
numbers, from birth to the end of its life, and the better final policy wins. Nothing is
differentiated, so a rule can be rewarded for what comes of its updates hundreds of updates later:
meta-gradients, whose horizon is a few updates, do not find schedules.

Source: Jackson et al., 2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms"
(TA-LPG, TA-LPO). Differs from the released code: there the two agents of a task play with different
random numbers, ties go to the second, the first rule has all parameters 0, and all agents are
trained for as long as the longest life, whose surplus is dropped.
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
    """A distribution over rules."""

    strategy: PyTree
    num_updates: Int[Array, ""]  # generations


class CandidateFitness(NamedTuple):
    """What became of the two agents of a task."""

    fitness: Float[Array, " 2"]  # expected return of the final policy
    steps_judged: Float[Array, ""]  # env steps played to find out; 0 if that is exact


@dataclass(frozen=True)
class MetaES(Student):
    """The student whose learning is a learning rule, by an evolution strategy.

    Attributes:
        learner: who lives by the rule: `lpg`, `lpo`. Its own rule is where the search begins,
            another trained rule or an untrained one.
        strategy: how rules are proposed and what is learned of their fitness.
        from_zeros: begin with all parameters 0, as released code does, instead of with the
            network's initial ones; of an untrained rule.
        rollout_steps: T, env steps of each worker in one of an agent's updates.
        num_workers: W, environments of each agent, all on its level.
        pair_batch_size: tasks that are lived through side by side; all of them take as long as the
            longest. They are sorted by length before, so that little is waited for. 1 wastes
            nothing and suits a CPU; a GPU needs many.
        eval_episodes: played to judge an agent at its end, where there is no exact way.

    Raises:
        ValueError: a field outside its range.
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
                f"from_zeros: two mirrored {type(net).__name__}s around 0 are one and the same, so "
                "that a search from there would learn from noise alone; leave it false"
            )

    @property
    def num_steps(self) -> int:
        """Env steps of each slot in one update of its two agents."""
        return 2 * self.rollout_steps * self.num_workers

    def check(self, num_slots: int) -> None:
        """Refuse pairs that do not divide into groups, before anything is compiled."""
        devices = self.mesh.size if isinstance(self.mesh, Mesh) else 1
        if num_slots % (devices * self.pair_batch_size):
            per = f" on each of {devices} devices" if devices > 1 else ""
            raise ValueError(
                f"num_slots={num_slots} pairs do not divide into groups of "
                f"pair_batch_size={self.pair_batch_size}{per}; choose a divisor, such as 1"
            )

    def spanning(self, num_updates: int) -> "MetaES":
        """The same, with the learner's schedules."""
        return replace(self, learner=self.learner.spanning(num_updates))

    def split_over(self, mesh: Mesh) -> "MetaES":
        """The same student with its tasks divided among devices, each with its own loops."""
        return replace(self, mesh=mesh)

    def init(self, key: Key, num_slots: int) -> ESState:
        """A distribution around the learner's rule."""
        key_rule, key_strategy = jax.random.split(key)
        # Born for any number of updates: the agent itself is not kept.
        rule = self.learner.spanning(1).init(key_rule).rule
        if self.from_zeros:
            rule = jax.tree.map(jnp.zeros_like, rule)
        return ESState(self.strategy.init(key_strategy, rule, 2 * num_slots), jnp.int32(0))

    def rule(self, state: ESState) -> PyTree:
        """The rule in the middle of the distribution: what a run is for."""
        return self.strategy.mean(state.strategy, self._like())

    def policy(self, states: ESState) -> tuple[Learner, PyTree]:
        """There is none: a rule is evaluated by what agents learn from it.

        Raises:
            ValueError: always.
        """
        raise ValueError(NO_POLICY)

    def learner_with_rule(self, states: ESState, env: LevelEnv) -> tuple[RuleLearner, PyTree]:
        """A learner for any environment that learns by the rules, and the rules [S, ...]."""
        return self.learner.for_env(env), jax.vmap(self.rule)(states)

    def files(self, states: ESState, origin: Mapping[str, Any]) -> dict[str, bytes]:
        """Each seed's rule as a file that `rlgen.algos.rules.files.load_rule` reads.

        Args:
            states: of S seeds.
            origin: the run that they are of; `seed` is the first seed's.
        """
        rules = jax.vmap(self.rule)(states)
        return rule_files(self.learner.rule_net, rules, states.num_updates, origin)

    def run(
        self, key: Key, state: ESState, slots: Slots, fresh: Bool[Array, " N"]
    ) -> tuple[ESState, Outcome, Metrics]:
        """One generation; every slot's task is done with."""
        del fresh
        key_ask, key_live, key_tell = jax.random.split(key, 3)
        task: Task = jax.tree.map(lambda x: x[:, 0], slots.level)
        num_pairs = task.lifetime.size
        candidates, asked = self.strategy.ask(key_ask, state.strategy, self._like(), 2 * num_pairs)
        pairs = jax.tree.map(
            lambda x: x.reshape(2, num_pairs, *x.shape[1:]).swapaxes(0, 1), candidates
        )
        fitness_of_pairs, lived = self._try(jax.random.split(key_live, num_pairs), pairs, task)
        strategy = self.strategy.tell(
            key_tell, asked, candidates, fitness_of_pairs.fitness.T.ravel()
        )
        new = ESState(strategy, state.num_updates + 1)
        unjudged = jnp.full(num_pairs, jnp.nan)
        lifetimes = LifetimeResults(
            fitness_of_pairs.fitness.mean(1), unjudged, jnp.ones(num_pairs, bool)
        )
        done = jnp.ones(num_pairs, bool)
        metrics = self._metrics(state, new, fitness_of_pairs, task, lived)
        spent = self._spent(fitness_of_pairs, task, lived)
        outcome = Outcome(done, (), lifetimes, lifetimes.as_episodes(done), spent)
        return new, outcome, metrics

    def _like(self) -> PyTree:
        """Shapes of a rule's parameters."""
        return jax.eval_shape(self.learner.rule_net.init, jax.random.key(0))

    def _try(self, keys: Key, rules: PyTree, task: Task) -> tuple[CandidateFitness, Int[Array, ""]]:
        """Live all tasks, those of like length together; also the updates executed, [N, ...]."""
        num_pairs, size = task.lifetime.size, self.pair_batch_size
        devices = self.mesh.size if isinstance(self.mesh, Mesh) else 1
        order = jnp.argsort(task.lifetime)
        # Groups are dealt out to the devices, so that all of them get short and long lives.
        order = order.reshape(-1, devices, size).swapaxes(0, 1).ravel()
        xs = jax.tree.map(lambda x: x[order], (keys, rules, task))
        live = self._run_groups
        if isinstance(self.mesh, Mesh):
            split = PartitionSpec(self.mesh.axis_names[0])
            live = jax.shard_map(
                live, mesh=self.mesh, in_specs=split, out_specs=split, check_vma=False
            )
        fitness_of_pairs, num_iterations = live(*xs)
        back = jnp.zeros_like(order).at[order].set(jnp.arange(num_pairs))
        return jax.tree.map(lambda x: x[back], fitness_of_pairs), num_iterations.sum() * size

    def _run_groups(
        self, keys: Key, rules: PyTree, task: Task
    ) -> tuple[CandidateFitness, Int[Array, " groups"]]:
        """Live sorted tasks, group by group; how many updates each group took."""

        def group(xs: tuple) -> tuple[CandidateFitness, Array]:
            num_iterations = max_over_seeds(xs[2].lifetime.max())
            live = jax.vmap(lambda *pair: self._run_pair(num_iterations, *pair))
            return live(*xs), num_iterations

        xs = jax.tree.map(
            lambda x: x.reshape(-1, self.pair_batch_size, *x.shape[1:]), (keys, rules, task)
        )
        fitness_of_pairs, num_iterations = jax.lax.map(group, xs)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), fitness_of_pairs), num_iterations

    def _run_pair(
        self, num_iterations: Int[Array, ""], key: Key, rules: PyTree, task: Task
    ) -> CandidateFitness:
        """Two lives of one task, by two rules [2, ...], with the same random numbers."""

        def one(rule: PyTree) -> tuple[Array, Array]:
            state = self._run_lifetime(num_iterations, key, rule, task)
            key_end = jax.random.fold_in(key, 1)
            return evaluate_policy(
                key_end, self.env, self.learner, state, task.level, self.eval_episodes
            )

        fitness, steps = jax.vmap(one)(rules)
        return CandidateFitness(fitness, steps.sum())

    def _run_lifetime(
        self, num_iterations: Int[Array, ""], key: Key, rule: PyTree, task: Task
    ) -> PyTree:
        """The learner's state at the end of one life.

        Args:
            trips: updates executed, at least the lifetime; the surplus changes nothing.
            key: consumed.
            rule: of one candidate.
            task: one task.
        """
        learner = self.learner
        key_birth, key_begin, key_life = jax.random.split(jax.random.fold_in(key, 0), 3)
        state = learner.init_with(key_birth, rule, task.lifetime)
        shape = (self.num_workers, 1)
        queue = jax.tree.map(lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)), task.level)
        running = reset_slots(key_begin, self.env, learner, queue)
        everyone = jnp.ones(self.num_workers)

        def update(n: Array, carry: tuple) -> tuple:
            state, running = carry
            key_play, key_learn = jax.random.split(jax.random.fold_in(key_life, n))
            player = (learner, state)
            played, running = continue_rollout(
                key_play, self.env, player, queue, running, self.rollout_steps
            )
            learned, _ = learner.update(key_learn, state, played, everyone)
            return tree_where(n < task.lifetime, learned, state), running

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
        there = jnp.isfinite(fitness)
        mean = jnp.where(there, fitness, 0.0).sum() / jnp.maximum(there.sum(), 1)
        gap = jnp.abs(fitness[:, 0] - fitness[:, 1])
        return {
            "lifetime_return": mean,
            "lifetime_gap": jnp.where(jnp.isfinite(gap), gap, 0.0).mean(),
            "ties": (fitness[:, 0] == fitness[:, 1]).mean(),
            "diverged_agents": (~there).mean(),
            "rule_norm": global_norm(after),
            "rule_step": global_norm(moved),
            "useful_updates": useful / executed,
        }

    def _spent(
        self, fitness_of_pairs: CandidateFitness, task: Task, executed: Int[Array, ""]
    ) -> Spent:
        """One step of the rule; the env steps of agents until their ends, beyond, and after."""
        steps, useful = jnp.float32(self.num_steps), task.lifetime.sum()
        env_steps = {
            "train": steps * useful,
            "surplus": steps * (executed - useful),
            "evaluate": fitness_of_pairs.steps_judged.sum(),
        }
        return Spent(1.0, env_steps)
