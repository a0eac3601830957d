//! Events are published beside the looks: an API server that keeps Events elsewhere, and has lost that place, must not hold
//! up what they tell of.
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::apply::{Calls, event::Event};

/// Events that wait; further ones are dropped, as nothing depends on them.
const WAITING_MAX: usize = 256;

/// Takes Events to be published.
#[derive(Clone, Debug)]
pub struct Notifier(mpsc::Sender<Event>);

/// Publishes them, one after the other.
#[derive(Debug)]
pub struct Publisher(mpsc::Receiver<Event>);

/// Both ends.
pub fn channel() -> (Notifier, Publisher) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Notifier(sender), Publisher(receiver))
}

impl Notifier {
    /// To be published soon.
    pub fn notify(&self, event: Event) {
        if self.0.try_send(event).is_err() {
            tracing::debug!("events come faster than they can be published; one was dropped");
        }
    }
}

impl Publisher {
    /// Runs until `stop`, then until those that wait are published. Dropping it cuts it off.
    pub async fn run(mut self, calls: Calls, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                Some(event) = self.0.recv() => event.publish(&calls).await,
                () = stop.cancelled() => return,
            }
        }
    }
}
