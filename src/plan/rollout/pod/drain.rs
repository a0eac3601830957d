//! Where a Pod stands on its way out of service: its Services first, then its own word.
use jiff::Timestamp;

use crate::{
    api::drain::Drain,
    plan::rollout::time::{Alarm, after},
    snapshot::{Endpoints, Pod, Purpose, Snapshot},
};

/// How far a Pod is drained. It is told by the Pod alone, so that the next operator goes on where this one has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Clients are sent to it, as far as its gate says.
    InService,
    /// Its gate is closed, and it is still in an EndpointSlice.
    Leaving,
    /// It is left alone for a moment, and then asked.
    Asking,
    /// It is drained.
    Done,
    /// Its time is over.
    TimedOut,
}

pub(crate) fn settings(snapshot: &Snapshot) -> Option<&Drain> {
    snapshot.rollout.spec.drain.as_ref()
}

/// Where a Pod with a gate stands. None: it need not be drained, because it has no gate or has never been in service.
pub(crate) fn stage(snapshot: &Snapshot, pod: &Pod, alarm: &mut Alarm) -> Option<Stage> {
    let settings = settings(snapshot)?;
    if pod.in_service? {
        return (pod.ready_since.is_some() && pod.is_live()).then_some(Stage::InService);
    }
    // A gate that has never been open says nothing.
    let since = since(pod)?;
    let answer = || snapshot.calls.get(&(pod.uid.clone(), Purpose::Drain)).filter(|call| call.of == since);
    if answer().is_some_and(|call| call.answer == Some(Ok(()))) {
        return Some(Stage::Done);
    }
    if alarm.passed(after(since, i64::from(settings.timeout_seconds))) {
        return Some(Stage::TimedOut);
    }
    let is_sent_to = match &snapshot.endpoints {
        Endpoints::Serving(uids) => uids.contains(&pod.uid),
        Endpoints::Unknown => false,
    };
    // While it is Ready, the kubelet has yet to say that its gate is closed.
    Some(if is_sent_to || pod.ready_since.is_some() { Stage::Leaving } else { Stage::Asking })
}

/// Since when it is on its way out, by an operator's clock. None: its gate has never been open.
pub(crate) fn since(pod: &Pod) -> Option<Timestamp> {
    pod.in_service_since.filter(|_| pod.in_service == Some(false))
}
