"""Settings of an agent that compiles and trains in seconds, for runs in tests."""

SMALL_AGENT = {
    "student.learner.network.hidden_size": 8,
    "student.learner.network.head_size": 4,
    "student.learner.network.conv_features": 2,
    "student.learner.num_epochs": 1,
    "student.learner.num_minibatches": 1,
    "student.learner.bptt_steps": 0,
}
