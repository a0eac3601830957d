//! The world's side of the server: no HTTP, no text, no faults, no delay.
use std::sync::Arc;

use serde_json::Value;

use super::{
    ApiServer, Audit, State,
    audit::Entry,
    delete::{DeleteOptions, Deleted},
    faults::{Request, Verb},
    kinds::{Kind, PODS},
    object::Object,
    refusal::Refusal,
    write::{Caller, Edit, Target},
};

/// Somebody who reads and writes, at once.
#[derive(Clone)]
pub struct Actor {
    server: ApiServer,
    who: Arc<str>,
}

/// An object, or why not.
pub type Answer<T = Arc<Object>> = Result<T, Refusal>;

impl Actor {
    pub(super) fn new(server: ApiServer, who: &str) -> Self {
        Self { server, who: who.into() }
    }

    /// One object.
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.server.look(|store| store.get(kind, namespace, name).cloned())
    }

    /// All objects of a kind, in all namespaces where `namespace` is empty.
    pub fn list(&self, kind: &Kind, namespace: &str) -> Vec<Arc<Object>> {
        self.server.look(|store| {
            let of_namespace = |object: &&Arc<Object>| namespace.is_empty() || object.namespace() == namespace;
            store.table(kind).values().filter(of_namespace).cloned().collect()
        })
    }

    /// POST.
    pub fn create(&self, kind: &'static Kind, namespace: &str, value: Value) -> Answer {
        let target = Target { kind, namespace, name: "", subresource: "" };
        self.write(Verb::Create, target, |state, caller| state.create(caller, kind, namespace, value))
    }

    /// Changes everything but the status, at one moment.
    pub fn edit(&self, kind: &'static Kind, namespace: &str, name: &str, mut edit: impl FnMut(&mut Value)) -> Answer {
        let target = Target { kind, namespace, name, subresource: "" };
        self.write(Verb::Patch, target, |state, caller| Ok(state.update(caller, target, Edit::With(&mut edit))?.0))
    }

    /// Changes the status, at one moment. `edit` gets the whole object.
    pub fn edit_status(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        mut edit: impl FnMut(&mut Value),
    ) -> Answer {
        let target = Target { kind, namespace, name, subresource: "status" };
        self.write(Verb::Patch, target, |state, caller| Ok(state.update(caller, target, Edit::With(&mut edit))?.0))
    }

    /// Binds a Pod to a node, as a scheduler does.
    pub fn bind(&self, namespace: &str, name: &str, node: &str) -> Answer {
        self.edit(&PODS, namespace, name, |pod| pod["spec"]["nodeName"] = node.into())
    }

    /// DELETE.
    pub fn delete(&self, kind: &'static Kind, namespace: &str, name: &str, options: &DeleteOptions) -> Answer<Deleted> {
        let target = Target { kind, namespace, name, subresource: "" };
        self.write(Verb::Delete, target, |state, caller| state.delete(caller, target, options))
    }

    /// Removes a Pod that has ended, as a kubelet does: without grace, and only this very Pod.
    pub fn finish_pod(&self, namespace: &str, name: &str, uid: &str) -> Answer<Deleted> {
        let options = DeleteOptions { grace_seconds: Some(0), uid: Some(uid.to_owned()), ..DeleteOptions::default() };
        self.delete(&PODS, namespace, name, &options)
    }

    fn write<T>(
        &self,
        verb: Verb,
        target: Target<'_>,
        write: impl FnOnce(&mut State, &Caller) -> Answer<T>,
    ) -> Answer<T> {
        self.server.act((&self.who, 0), false, |state, caller| {
            let done = write(state, caller);
            let request = Request {
                id: state.next_request(),
                who: caller.who.clone(),
                verb,
                kind: target.kind,
                namespace: target.namespace.to_owned(),
                name: target.name.to_owned(),
                subresource: if target.subresource == "status" { "status" } else { "" },
                is_dry_run: false,
                delete: None,
            };
            let code = done.as_ref().err().map_or(200, |refusal| refusal.code);
            Audit::note(&mut state.audit, Entry { request, code, is_done: true });
            done
        })
    }
}
