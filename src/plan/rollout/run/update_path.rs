//! How a Pod comes to another revision: by another Pod, or in place.
use crate::{
    plan::{in_place::permitted, rollout::policy::Update},
    snapshot::{ChangeRefusal, Revision, Snapshot},
};

/// How the Pod of a slot comes to another revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UpdatePath {
    /// Another Pod takes its place; why, where `spec.strategy.update` asks for another way.
    Replace(Option<String>),
    /// It stays, and is changed; whether a container is started anew by that, and whether one gets other resources.
    InPlace { restarts: bool, resizes: bool },
    /// By no way that `spec.strategy.update` permits: a sentence that names the field.
    Impossible(String),
}

/// How Pods of `from` come to `to`.
pub(crate) fn update_path(update: &Update<'_>, snapshot: &Snapshot, from: &str, to: &Revision) -> UpdatePath {
    let (only, reloads) = match update {
        Update::Replace { not_in_place } => return UpdatePath::Replace(not_in_place.map(str::to_owned)),
        Update::InPlace { only, reloads, .. } => (*only, *reloads),
    };
    if let Some(refusal) = snapshot.change_refusals.get(&to.name).filter(|refusal| refusal.retry_at > snapshot.now) {
        return refused(update, refusal);
    }
    let known = snapshot.revisions.iter().rev().find(|revision| revision.name == from);
    let found = known.ok_or_else(|| format!("ControllerRevision {from} is gone, what differs is not known"));
    match found.and_then(|from| permitted(reloads, &from.data, &to.data)) {
        Ok(difference) => UpdatePath::InPlace { restarts: difference.restarts(), resizes: difference.resizes() },
        Err(why) if !only => UpdatePath::Replace(Some(why)),
        Err(why) => UpdatePath::Impossible(format!(
            "{why}; spec.strategy.update is InPlaceOnly: change it to InPlaceIfPossible, or that field back"
        )),
    }
}

/// How Pods come to what the API server has just refused to give them.
pub(crate) fn refused(update: &Update<'_>, refusal: &ChangeRefusal) -> UpdatePath {
    let why = format!("the API server refuses the change of Pods in place: {}", refusal.message);
    if update.is_in_place_only() { UpdatePath::Impossible(why) } else { UpdatePath::Replace(Some(why)) }
}
