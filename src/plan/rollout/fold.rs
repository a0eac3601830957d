//! Folds [`super::plan`] over the simulated effects of its changes: the whole rollout, step by step.
