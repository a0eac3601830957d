//! Whom a Service sends clients to, as far as that bounds what may be ended.
use std::collections::BTreeMap;

use baton::{api::Rollout, snapshot::Pod};

use super::story::pod;
use crate::fake_apiserver::object::Object;

/// Clients of a Service that a Rollout names get its Pods of this revision, or of any; those of one that it has named, and that
/// selects a revision alone, only these.
pub(super) fn is_in_use(pod: &Pod, rollout: &Rollout, selected: &BTreeMap<String, String>) -> bool {
    let named = rollout.spec.strategy.blue_green.as_ref().map(|settings| &settings.active_service);
    let of_named = named.map(|named| selected.get(named));
    of_named.is_none_or(|selected| selected.is_none_or(|selected| *selected == pod.revision))
        || selected.values().any(|selected| *selected == pod.revision)
}

/// B3: no Pod is ended that serves clients of a Service which the Rollout names no more, and which selects no others.
pub(super) fn left_behind(
    object: &Object,
    rollout: &Rollout,
    selected: &[&BTreeMap<String, String>],
) -> Option<String> {
    let pod = pod(object).filter(Pod::is_ready)?;
    let named = rollout.spec.strategy.blue_green.as_ref().map(|settings| &settings.active_service);
    let known = rollout.status.as_ref().map(|status| &status.services[..]).unwrap_or_default();
    let (now, rest) = selected.split_first()?;
    let is_left = |(name, revision): &(&String, &String)| {
        let is_former = Some(*name) != named && known.contains(name);
        is_former && **revision == pod.revision && rest.iter().all(|then| then.get(*name) == Some(revision))
    };
    let (service, _) = now.iter().find(is_left)?;
    Some(format!(
        "{} is ended, while Service {service}, which spec.strategy names no more, selects its version alone",
        pod.name
    ))
}
