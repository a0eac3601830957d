//! What is asked of the applications in Pods: whether an instance is well, or drained. As [`super::applications`]: a look begins
//! a call and does not wait for its end.
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;

use super::{
    applications::{Applications, address},
    post::{POST_TIMEOUT, get, open, post_for},
};
use crate::{
    api::health::Check,
    plan::Applied,
    snapshot::{Pod, Purpose, Snapshot, call::Refused, index::ObjectKey},
};

/// One question to an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// GET of this path: 200 to 299.
    Get(String),
    /// A connection.
    Connect,
    /// POST of this path: 200.
    Post(String),
}

/// How an application is asked: address, question, longest time. A simulation puts its own here.
pub type Ask = Arc<dyn Fn(SocketAddr, Question, Duration) -> BoxFuture<'static, Result<(), Refused>> + Send + Sync>;

/// Over the network, as in a cluster.
pub fn over_network() -> Ask {
    Arc::new(|to, question, most| {
        Box::pin(async move {
            match question {
                Question::Get(path) => get(to, path, most).await,
                Question::Connect => open(to, most).await,
                Question::Post(path) => post_for(to, path, String::new(), most).await,
            }
        })
    })
}

/// What one round of a purpose comes to.
struct Round {
    /// Before anything is asked.
    pause: Duration,
    /// Of each question.
    most: Duration,
    /// Name, port, question; in this order, until one is not answered well.
    questions: Vec<(String, u16, Question)>,
}

impl Applications {
    /// Begins a round of questions to the application of this Pod.
    pub(super) fn ask(&self, snapshot: &Snapshot, uid: &str, purpose: Purpose, of: Timestamp) -> Applied {
        let pods = snapshot.pods.iter().chain(&snapshot.specimens);
        let Some((pod, round)) = pods
            .map(|pod| &**pod)
            .find(|pod| pod.uid == uid)
            .and_then(|pod| Some((pod, round(snapshot, pod, purpose, of)?)))
        else {
            return Applied::Stale;
        };
        let key = ObjectKey::of(&snapshot.rollout);
        let place = (uid.to_owned(), purpose);
        self.begin_ask(&key, &place, of, snapshot.now);
        let to = address(pod);
        let applications = self.clone();
        tokio::spawn(async move {
            let asking = applications.clone();
            let answer = match to {
                // In a task of its own: a panic is an answer, too.
                Ok(to) => tokio::spawn(async move { asking.go(to, round).await }).await,
                Err(why) => Ok(Some(Err(Refused { said: why, is_unreachable: true }))),
            };
            let answer =
                answer.unwrap_or_else(|panic| Some(Err(Refused { said: panic.to_string(), is_unreachable: false })));
            applications.end_ask(&key, &place, of, answer);
            applications.tell_end(key);
        });
        Applied::Done { resource_version: String::new() }
    }

    /// None: it was not asked.
    async fn go(&self, to: IpAddr, round: Round) -> Option<Result<(), Refused>> {
        tokio::time::sleep(round.pause).await;
        for (name, port, question) in round.questions {
            let _permit = self.permit(round.most).await?;
            let answer = self.by_network(SocketAddr::new(to, port), question, round.most).await;
            if let Err(Refused { said, is_unreachable }) = answer {
                let said = if name.is_empty() { said } else { format!("{name}: {said}") };
                return Some(Err(Refused { said, is_unreachable }));
            }
        }
        Some(Ok(()))
    }
}

fn of_check(check: &Check) -> Option<(String, u16, Question)> {
    let name = check.name.clone();
    let get = check.http_get.as_ref().map(|get| (get.port, Question::Get(get.path.clone())));
    let (port, question) = get.or_else(|| Some((check.tcp_socket.as_ref()?.port, Question::Connect)))?;
    Some((name, port, question))
}

/// None: the spec asks for none any more.
fn round(snapshot: &Snapshot, pod: &Pod, purpose: Purpose, of: Timestamp) -> Option<Round> {
    let spec = &snapshot.rollout.spec;
    let seconds = |seconds: i32| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Some(match purpose {
        Purpose::Health | Purpose::Reference => {
            let health = spec.health.as_ref()?;
            let questions = health.checks.iter().filter_map(of_check).collect();
            Round { pause: Duration::ZERO, most: seconds(health.timeout_seconds), questions }
        }
        Purpose::Drain => {
            let drain = spec.drain.as_ref()?;
            let known = snapshot.calls.get(&(pod.uid.clone(), purpose));
            let is_first = known.is_none_or(|known| known.of != of);
            // One that somebody else deletes has no time to lose.
            let settles = is_first && pod.deletion.is_none();
            let post = drain.http_post.as_ref().map(|to| (String::new(), to.port, Question::Post(to.path.clone())));
            Round {
                pause: if settles { seconds(drain.settle_seconds) } else { Duration::ZERO },
                most: POST_TIMEOUT,
                questions: post.into_iter().collect(),
            }
        }
        Purpose::Soak => {
            let soak = spec.soak.as_ref()?;
            let questions = soak.checks.iter().filter_map(of_check).collect();
            Round { pause: Duration::ZERO, most: seconds(5), questions }
        }
    })
}
