//! Strategy BlueGreen: what the Services select.
use std::collections::BTreeMap;

use crate::{
    plan::{
        change::{Change, Hold, Selection},
        rollout::{
            run::{View, released_services, sets::Sets},
            time::Alarm,
            verdict::sets::{held, own_labels, serves, trouble_of_active, trouble_of_preview, untried},
        },
    },
    snapshot::{Service, Snapshot, Switched},
};

/// What to do with the Services, and what holds the switch.
#[derive(Default)]
pub(crate) struct Switch {
    pub changes: Vec<Change>,
    pub hold: Option<Hold>,
}

/// Has the Services select what they should.
pub(crate) fn switch(view: &View<'_>, alarm: &mut Alarm) -> Switch {
    let Some(sets) = view.slots.sets() else { return Switch::default() };
    if let Some((_, until)) = sets.before {
        alarm.passed(until);
    }
    if let Some(hold) = trouble_of_active(view) {
        return Switch { changes: Vec::new(), hold: Some(hold) };
    }
    // A version that clients have not used needs its preview Service; the way back does not.
    let unseen = trouble_of_preview(view);
    let is_new = || untried(view).is_some();
    // Between two versions, before the batch of the later one is opened, there is nothing to switch to; nor is there forward where
    // no instance is asked for.
    let is_opened = view.slots.opened() >= view.replicas() && (view.replicas() > 0 || view.lineage.is_back());
    let is_ready = is_opened && view.slots.wanted().all(|slot| view.slots.is_in_place(slot));
    let is_due = is_ready || (is_opened && !is_new() && is_rescue(view, sets));
    let hold =
        if is_due && !sets.is_switched() { unseen.clone().filter(|_| is_new()).or_else(|| held(view)) } else { None };
    let to = match sets.target.filter(|_| is_due && hold.is_none()) {
        // Without the key clients would get Pods of any set.
        None if sets.selected.is_none() && sets.active.is_some_and(|active| serves(view, active)) => sets.active,
        to => to,
    };
    let services = &view.snapshot.services;
    let active = services.active.seen().zip(to).and_then(|(service, to)| {
        let from = service.revision().or(sets.active).filter(|from| *from != to);
        point(view, service, to, from.map(|from| Switched { from: from.to_owned(), at: view.now() }))
    });
    let preview = services.preview.seen().zip(sets.target.filter(|_| is_ready && unseen.is_none()));
    let preview = preview.and_then(|(service, to)| point(view, service, to, None));
    Switch { changes: active.into_iter().chain(preview).collect(), hold: hold.or(unseen) }
}

/// The set that clients use has no Ready Pod, and the assigned set has an available one.
fn is_rescue(view: &View<'_>, sets: &Sets<'_>) -> bool {
    let answers = |revision: &str| view.snapshot.pods.iter().any(|pod| pod.revision == revision && pod.is_ready());
    sets.selected.is_some_and(|selected| !answers(selected)) && sets.target.is_some_and(|target| serves(view, target))
}

/// Has this Service select Pods of this revision, and notes on it that clients have been `switched`.
fn point(view: &View<'_>, service: &Service, to: &str, switched: Option<Switched>) -> Option<Change> {
    let labels = if own_labels(service).next().is_none() { Some(&view.spec().selector.match_labels) } else { None };
    let is_due = service.revision() != Some(to) || labels.is_some();
    is_due.then(|| select(service, Some(to.to_owned()), labels.cloned().unwrap_or_default(), switched))
}

/// Has this Service select Pods of this revision, or of any.
pub(crate) fn select(
    service: &Service,
    revision: Option<String>,
    labels: BTreeMap<String, String>,
    switched: Option<Switched>,
) -> Change {
    Change::Service { seen: service.into(), select: Selection { revision, labels, switched } }
}

/// Has them select Pods of any revision.
pub(crate) fn let_go(snapshot: &Snapshot) -> Vec<Change> {
    released_services::kept(snapshot)
        .filter_map(|(_, seen)| seen.seen())
        .map(|service| select(service, None, [].into(), None))
        .collect()
}
