//! The garbage collector: what loses its last owner goes. A step of its own, so that a simulation decides when.
use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::{
    ApiServer, State,
    delete::{DeleteOptions, FOREGROUND, ORPHAN, Propagation},
    kinds::{ALL, Kind},
    object::{Object, finalizers, set_meta},
    write::{Caller, Edit, Target},
};

/// Who it says it is.
const WHO: &str = "garbage-collector";

/// What becomes of a dependent.
enum Verdict {
    Keep,
    /// No owner is left.
    Delete(Option<Propagation>),
    /// Some are left: those that are not are struck off.
    Strike(Vec<String>),
}

impl ApiServer {
    /// One look at every object; how many writes it led to. Done when that is 0.
    pub fn collect_garbage(&self) -> usize {
        self.act((&WHO.into(), 0), false, State::collect_garbage)
    }
}

impl State {
    fn collect_garbage(&mut self, caller: &Caller) -> usize {
        let before = self.store.revision();
        let owned = self.everything().filter(|(_, object)| !owners(object).is_empty());
        for (kind, object) in owned.map(|(kind, object)| (kind, object.clone())).collect::<Vec<_>>() {
            let target = Target { kind, namespace: object.namespace(), name: object.name(), subresource: "" };
            match self.verdict(&object) {
                Verdict::Keep => {}
                Verdict::Delete(propagation) => {
                    let (uid, version) = (object.uid().to_owned(), object.revision().to_string());
                    let options = DeleteOptions {
                        grace_seconds: None,
                        uid: Some(uid),
                        resource_version: Some(version),
                        propagation,
                    };
                    let _ = self.delete(caller, target, &options);
                }
                Verdict::Strike(uids) => self.strike(caller, target, &uids),
            }
        }
        self.finish_owners(caller);
        (self.store.revision() - before) as usize
    }

    fn everything(&self) -> impl Iterator<Item = (&'static Kind, &Arc<Object>)> {
        ALL.into_iter().flat_map(|kind| self.store.table(kind).values().map(move |object| (kind, object)))
    }

    /// An owner is there, is going and waits for its dependents, or is gone.
    fn verdict(&self, dependent: &Object) -> Verdict {
        let (mut is_owned, mut waiting, mut gone) = (false, Vec::new(), Vec::new());
        for owner in owners(dependent) {
            let uid = || owner["uid"].as_str().unwrap_or_default().to_owned();
            match self.find_owner(dependent, owner) {
                Some(found) if found.is_terminating() && finalizers(&found).contains(&FOREGROUND) => {
                    waiting.push(uid());
                }
                Some(_) => is_owned = true,
                None => gone.push(uid()),
            }
        }
        let uid = [dependent.uid().to_owned()];
        let has_dependents = || self.everything().any(|(_, object)| owners(object).iter().any(|o| names(o, &uid)));
        match (is_owned, waiting.is_empty()) {
            (true, _) if waiting.is_empty() && gone.is_empty() => Verdict::Keep,
            (true, _) => Verdict::Strike(waiting.into_iter().chain(gone).collect()),
            (false, _) if dependent.is_terminating() => Verdict::Keep,
            (false, false) if has_dependents() => Verdict::Delete(Some(Propagation::Foreground)),
            // As its own finalizers say.
            (false, _) => Verdict::Delete(None),
        }
    }

    /// By kind, name and uid, in the dependent's namespace. Of a kind that is not served nothing is known: it counts as
    /// there.
    fn find_owner(&self, dependent: &Object, owner: &Value) -> Option<Arc<Object>> {
        let text = |field: &str| owner[field].as_str().unwrap_or_default();
        let Some(kind) = Kind::of_object(text("apiVersion"), text("kind")) else {
            return Some(Arc::new(Object::unstored(json!({"metadata": {}}))));
        };
        let namespace = if kind.is_namespaced { dependent.namespace() } else { "" };
        self.store.get(kind, namespace, text("name")).filter(|found| found.uid() == text("uid")).cloned()
    }

    fn strike(&mut self, caller: &Caller, target: Target<'_>, uids: &[String]) {
        let mut strike = |value: &mut Value| {
            let kept: Vec<Value> = owners(value).into_iter().filter(|owner| !names(owner, uids)).cloned().collect();
            set_meta(value, "ownerReferences", (!kept.is_empty()).then(|| json!(kept)));
        };
        let _ = self.update(caller, target, Edit::With(&mut strike));
    }

    /// Owners that wait for their dependents, or to be forgotten by them.
    fn finish_owners(&mut self, caller: &Caller) {
        let waiting = self.everything().filter(|(_, object)| object.is_terminating());
        let waiting: Vec<_> = waiting.map(|(kind, object)| (kind, object.clone())).collect();
        for (kind, owner) in waiting {
            let mine = finalizers(&owner);
            let uid = [owner.uid().to_owned()];
            let dependents = self.everything().filter(|(_, object)| owners(object).iter().any(|o| names(o, &uid)));
            let dependents: Vec<_> = dependents.map(|(kind, object)| (kind, object.clone())).collect();
            let mut done = BTreeSet::new();
            if mine.contains(&ORPHAN) {
                for (kind, object) in &dependents {
                    let (namespace, name) = (object.namespace(), object.name());
                    self.strike(caller, Target { kind, namespace, name, subresource: "" }, &uid);
                }
                done.insert(ORPHAN);
            }
            let blocks = |object: &Object| {
                owners(object).iter().any(|owner| names(owner, &uid) && owner["blockOwnerDeletion"] == true)
            };
            if mine.contains(&FOREGROUND) && !dependents.iter().any(|(_, object)| blocks(object)) {
                done.insert(FOREGROUND);
            }
            if done.is_empty() {
                continue;
            }
            let target = Target { kind, namespace: owner.namespace(), name: owner.name(), subresource: "" };
            let mut release = |value: &mut Value| {
                let kept: Vec<Value> =
                    finalizers(value).iter().filter(|f| !done.contains(*f)).map(|f| json!(f)).collect();
                set_meta(value, "finalizers", (!kept.is_empty()).then(|| json!(kept)));
            };
            let _ = self.update(caller, target, Edit::With(&mut release));
        }
    }
}

fn owners(value: &Value) -> Vec<&Value> {
    value["metadata"]["ownerReferences"].as_array().into_iter().flatten().collect()
}

fn names(owner: &Value, uids: &[String]) -> bool {
    uids.iter().any(|uid| owner["uid"] == uid.as_str())
}
