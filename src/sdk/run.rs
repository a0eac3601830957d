//! One listener: from its start to the moment at which the agent knows that nothing of it is left.
use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use hyper::StatusCode;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Stop,
    client::Client,
    listener::{About, Error, Fence, Listener, Resume, Said, Unit},
    watchdog::Watch,
    wire::{Answer, Name, Start, Word, path, presentable},
};

/// Between two things said while it runs.
const PAUSE: Duration = Duration::from_millis(100);
/// The same after the agent could not take it in.
const PAUSE_OF_BUSY: Duration = Duration::from_secs(1);
/// Between two tries to say that it has ended.
const RETRIES: [Duration; 4] =
    [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1)];

/// Runs one listener once all of `before` is over, and says how it goes. It is watched from the call on, polled or not.
pub async fn run<L: Listener>(listener: Arc<L>, client: Client, watch: Watch, before: Vec<Stop>, start: Start) {
    let name = Name { set: start.set, listener: start.listener };
    let said = watch::Sender::new(Said::default());
    let about = About {
        name: name.clone(),
        config: start.config,
        connect_timeout: Duration::from_secs(start.connect_timeout_seconds.into()),
        use_proxy: start.use_proxy,
    };
    let unit = Unit { about: Arc::new(about), said: Some(said.clone()) };
    let fence = Fence { token: start.token.as_str().into(), until: watch.until.clone() };
    let works = async {
        tokio::select! {
            biased;
            outcome = work(&*listener, unit, Resume(start.resume), fence, &watch, before) => outcome,
            never = report(&client, &name, &start.token, said.subscribe()) => match never {},
        }
    };
    // Around all of it: what is dropped may panic too, and its end has to be told all the same.
    let outcome = AssertUnwindSafe(works).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|_| Err(Error::new("Panicked", "it has panicked; see the log")));
    // Nothing of it is left, so it need not be watched.
    drop(watch);
    let mut answer = Answer { token: Some(start.token), ..Answer::default() };
    let last = std::mem::take(&mut said.send_replace(Said::default()).resume);
    match outcome {
        Ok(resume) => answer.resume = resume.0.or(last.0),
        Err(error) => {
            tracing::warn!(listener = %name, %error, "a listener has ended");
            (answer.resume, answer.reason) = (last.0, Some(presentable(&error.to_string())));
        }
    }
    confess(&client, &name, &answer).await;
}

async fn work<L: Listener>(
    listener: &L,
    unit: Unit,
    resume: Resume,
    fence: Fence,
    watch: &Watch,
    before: Vec<Stop>,
) -> Result<Resume, Error> {
    let runs = async {
        for earlier in before {
            tokio::select! {
                () = earlier.cancelled() => {}
                () = watch.stop.cancelled() => return Ok(Resume::none()), // nothing has begun
            }
        }
        listener.run(unit, resume, fence, watch.stop.clone()).await
    };
    tokio::select! {
        biased;
        () = watch.drop.cancelled() => Err(Error::new("Dropped", "it had not ended when its time was over")),
        outcome = runs => outcome,
    }
}

/// Says that it works and where it is, for as long as it does.
async fn report(client: &Client, name: &Name, token: &str, mut said: watch::Receiver<Said>) -> Infallible {
    let mut is_first = true;
    while said.changed().await.is_ok() {
        let mut due = Instant::now() + PAUSE;
        let now = said.borrow_and_update().clone();
        let word = match &now.resume.0 {
            Some(_) => Word::Resume,
            None if is_first => Word::Started,
            None => Word::Tick,
        };
        let answer = Answer { token: Some(token.to_owned()), resume: now.resume.0, reason: None };
        let body = serde_json::to_string(&answer).unwrap_or_default(); // JSON cannot fail
        match client.say(&path(name, word), body).await {
            Ok(told) if told.status.is_success() => is_first = false,
            Ok(told) => {
                tracing::warn!(listener = %name, status = %told.status, told.text, "the agent refuses");
                // Not for what it says: it may be the last that is said for long.
                if told.status == StatusCode::TOO_MANY_REQUESTS || told.status.is_server_error() {
                    due += PAUSE_OF_BUSY;
                    said.mark_changed();
                }
            }
            // Again, with the last one by then.
            Err(_) => said.mark_changed(),
        }
        sleep_until(due).await;
    }
    std::future::pending().await
}

/// Says that nothing of it is left, until that is heard.
pub async fn confess(client: &Client, name: &Name, answer: &Answer) {
    let bare = Answer { token: answer.token.clone(), ..Answer::default() };
    let bare = serde_json::to_string(&bare).unwrap_or_default();
    let mut body = serde_json::to_string(answer).unwrap_or_default();
    for wait in RETRIES.into_iter().chain(std::iter::repeat(RETRIES[RETRIES.len() - 1])) {
        match client.say(&path(name, Word::Stopped), body.clone()).await {
            // Not found: the agent knows of no such start any more.
            Ok(told) if told.status.is_success() || told.status == StatusCode::NOT_FOUND => return,
            // If the rest of it cannot be taken, the end can be.
            Ok(told) if told.status.is_client_error() && body != bare => {
                tracing::warn!(listener = %name, status = %told.status, told.text, "the agent refuses how it has ended");
                body.clone_from(&bare);
            }
            _ => {}
        }
        sleep(wait).await;
    }
}
