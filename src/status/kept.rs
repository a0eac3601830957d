//! What is told of failed Pods that are kept for a look (`spec.strategy.keepFailed`).
use super::{
    look::Look,
    text::{count, seconds},
};
use crate::api::names;

/// `; web-0-hrrgfvpllp is kept until 2026-01-01T10:00:00Z (kubectl logs web-0-hrrgfvpllp)`; empty where nothing is to be told.
pub(super) fn kept(look: &Look<'_>) -> String {
    let there = look.snapshot.specimens.iter().filter(|pod| pod.deletion.is_none());
    let mut there: Vec<_> = there.filter_map(|pod| Some((pod.specimen.as_ref()?.until, &pod.name))).collect();
    there.sort();
    let Some((until, newest)) = there.pop() else { return never(look) };
    let others = match there.len() {
        0 => String::new(),
        more => {
            let rollout = look.snapshot.rollout.metadata.name.as_deref().unwrap_or_default();
            format!(", and {} (kubectl get pods -l {}={rollout})", count(more, "other Pod"), names::LABEL_KEPT)
        }
    };
    format!("; {newest} is kept until {} (kubectl logs {newest}){others}", seconds(until).0)
}

/// That a version has failed of which no Pod is ever kept, although that is asked for.
fn never(look: &Look<'_>) -> String {
    let update = look.revision(look.memory().update.as_ref()).filter(|_| look.is_given_up());
    let annotations = update.and_then(|update| update.data.pointer("/template/metadata/annotations"));
    let has_agent = annotations.is_some_and(|annotations| annotations.get(names::ANNOTATION_HAS_AGENT).is_some());
    let is_told = has_agent && look.spec().strategy.keep_failed.is_some();
    if is_told { "; no Pod is kept: those with an agent never are".into() } else { String::new() }
}
