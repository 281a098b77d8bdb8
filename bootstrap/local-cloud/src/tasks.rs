//! Tasks that end with their owner.

use std::future::Future;
use std::sync::{Mutex, PoisonError, Weak};

use hyper::rt::Executor;
use tokio::task::JoinSet;

/// Tasks on the current runtime; dropping this ends them.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    /// Runs a task until it is done or this is dropped.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

/// Spawns among the owner's tasks while there is an owner, and keeps none of them alive.
#[derive(Clone, Debug)]
pub(crate) struct WeakTasks(pub(crate) Weak<Tasks>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for WeakTasks {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.spawn(task);
        }
    }
}
