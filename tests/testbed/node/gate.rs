//! The gate through which everything goes that the node writes to the API server.
use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, RwLock, watch};

/// Held for as long as a call lasts.
pub type Pass = OwnedRwLockReadGuard<()>;

/// Open at first.
#[derive(Debug, Default)]
pub struct Gate {
    closed: watch::Sender<bool>,
    /// Shared by calls under way.
    writing: Arc<RwLock<()>>,
}

impl Gate {
    /// Waits until the gate is open.
    pub async fn pass(&self) -> Pass {
        let mut closed = self.closed.subscribe();
        loop {
            // The sender is ours: it cannot be gone.
            let _ = closed.wait_for(|closed| !closed).await;
            let pass = Arc::clone(&self.writing).read_owned().await;
            if !self.is_closed() {
                return pass;
            }
        }
    }

    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Lets nobody pass any more; returns when those who have are through.
    pub async fn close(&self) {
        self.closed.send_replace(true);
        drop(self.writing.write().await);
    }

    pub fn open(&self) {
        self.closed.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_gate_is_closed_when_the_last_call_is_over() {
        let gate = Gate::default();
        let calls = [gate.pass().await, gate.pass().await];
        let mut closing = Box::pin(gate.close());
        assert!((&mut closing).now_or_never().is_none());
        let mut next = Box::pin(gate.pass());
        assert!((&mut next).now_or_never().is_none(), "nobody passes a gate that is closing");
        drop(calls);
        closing.await;
        assert!(gate.is_closed() && (&mut next).now_or_never().is_none());
        gate.open();
        next.await;
    }
}
