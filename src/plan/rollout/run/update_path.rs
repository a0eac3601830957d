//! How a Pod comes to another revision: by another Pod, or in place.
use crate::{
    api::rollout::{Strategy, StrategyType, UpdateMethod},
    plan::{in_place::permitted, rollout::policy},
    snapshot::{ChangeRefusal, Revision, Snapshot},
};

/// See [`policy::is_in_place`].
const NONE_MAY_MISS: &str = "spec.strategy.maxUnavailable is 0, and no instance may be missing while its containers start anew: set it to 1 or more";

/// How the Pod of a slot comes to another revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Another Pod takes its place; why, where `spec.strategy.update` asks for another way.
    Replace(Option<String>),
    /// It stays, and is changed; whether a container is started anew by that, and whether one gets other resources.
    InPlace { restarts: bool, resizes: bool },
    /// By none that `spec.strategy.update` permits: a sentence that names the field.
    None(String),
}

/// How Pods of `from` come to `to`.
pub(crate) fn way(snapshot: &Snapshot, from: &str, to: &Revision) -> Way {
    let strategy = &snapshot.rollout.spec.strategy;
    if !policy::is_in_place(strategy) {
        let is_asked = strategy.type_ == StrategyType::Batched && strategy.update != UpdateMethod::Replace;
        return Way::Replace(is_asked.then(|| NONE_MAY_MISS.to_owned()));
    }
    if let Some(refusal) = snapshot.change_refusals.get(&to.name).filter(|refusal| refusal.retry_at > snapshot.now) {
        return refused(strategy, refusal);
    }
    let known = snapshot.revisions.iter().rev().find(|revision| revision.name == from);
    let found = known.ok_or_else(|| format!("ControllerRevision {from} is gone, what differs is not known"));
    match found.and_then(|from| permitted(strategy.update, &from.data, &to.data)) {
        Ok(difference) => Way::InPlace { restarts: difference.restarts(), resizes: difference.resizes() },
        Err(why) if strategy.update != UpdateMethod::InPlaceOnly => Way::Replace(Some(why)),
        Err(why) => Way::None(format!(
            "{why}; spec.strategy.update is InPlaceOnly: change it to InPlaceIfPossible, or that field back"
        )),
    }
}

/// How Pods come to what the API server has just refused to give them.
pub(crate) fn refused(strategy: &Strategy, refusal: &ChangeRefusal) -> Way {
    let why = format!("the API server refuses the change of Pods in place: {}", refusal.message);
    if strategy.update == UpdateMethod::InPlaceOnly { Way::None(why) } else { Way::Replace(Some(why)) }
}
