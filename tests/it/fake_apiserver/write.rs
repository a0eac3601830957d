//! Create, update, patch: what the API server does between a request's body and the store.
//!
//! The order of the checks is the real one's: it decides which of two faults a client is told.
use std::sync::Arc;

use jiff::Timestamp;
use json_patch::{AddOperation, PatchOperation};
use serde_json::{Value, json};

use super::{
    State,
    faults::Verb,
    kinds::{Kind, NAMESPACES, StatusRule},
    object::{Object, finalizers, is_terminating, meta_text, set_meta, whole_seconds},
    refusal::Refusal,
    resize,
    store::key,
    upkeep::{
        check_body, check_name, check_version, grace_is_over, keep_all_but_status, keep_what_is_not_the_writers,
        settle_namespace,
    },
    validate,
};

/// Who writes, and when.
#[derive(Clone, Debug)]
pub struct Caller {
    pub who: Arc<str>,
    /// Id of the request; 0 of what asks without one.
    pub request: u64,
    /// The server's time.
    pub now: Timestamp,
    /// Everything but the store.
    pub is_dry_run: bool,
}

/// Where an object is.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub kind: &'static Kind,
    /// Empty for what is in none.
    pub namespace: &'a str,
    pub name: &'a str,
    /// `status`, `resize` or empty.
    pub subresource: &'a str,
}

/// What a write does to an object.
pub enum Edit<'a> {
    /// PUT.
    Replace(Value),
    /// PATCH with merge semantics.
    Merge(Value),
    /// PATCH with merge semantics, in which conditions are merged by their types, containers by their names and owner references
    /// by their uids; other lists are replaced.
    Strategic(Value),
    /// PATCH with operations.
    Json(json_patch::Patch),
    /// Read, changed and written at one moment: for the simulated world, which has no conflicts with itself.
    With(&'a mut dyn FnMut(&mut Value)),
}

/// Letters and digits of generated names.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// How often a generated name is drawn.
const NAME_DRAWS_MAX: usize = 8;

impl State {
    /// POST.
    ///
    /// # Errors
    /// As the real one.
    pub fn create(
        &mut self,
        caller: &Caller,
        kind: &'static Kind,
        namespace: &str,
        mut value: Value,
    ) -> Result<Arc<Object>, Refusal> {
        check_body(kind, &value)?;
        settle_namespace(kind, namespace, &mut value)?;
        let has_version = !meta_text(&value, "resourceVersion").is_empty();
        let has_name = !meta_text(&value, "name").is_empty();
        self.check_namespace(kind, namespace, meta_text(&value, "name"))?;
        if kind.status != StatusRule::ApartOnceCreated {
            drop(value.as_object_mut().and_then(|value| value.remove("status")));
        }
        (kind.default)(&mut value);
        self.stamp_new(caller, kind, &mut value);
        for _ in 0..NAME_DRAWS_MAX {
            if !has_name {
                self.draw_name(&mut value);
            }
            let name = meta_text(&value, "name");
            refuse_if_wrong(kind, &value, None)?;
            self.admission.check(kind, Verb::Create, &value, &self.store)?;
            if has_version {
                return Err(Refusal::new(500, "", "resourceVersion should not be set on objects to be created"));
            }
            if self.store.get(kind, namespace, name).is_none() {
                return Ok(self.save(caller, Verb::Create, kind, None, value));
            }
            if has_name {
                break;
            }
        }
        Err(Refusal::already_exists(kind, meta_text(&value, "name")))
    }

    /// PUT, PATCH. True with the object: it was created.
    ///
    /// # Errors
    /// As the real one.
    pub fn update(
        &mut self,
        caller: &Caller,
        target: Target<'_>,
        edit: Edit<'_>,
    ) -> Result<(Arc<Object>, bool), Refusal> {
        let Target { kind, namespace, name, subresource } = target;
        if let Edit::Replace(value) = &edit {
            check_body(kind, value)?;
            check_name(name, value)?;
        }
        let Some(existing) = self.store.get(kind, namespace, name).cloned() else {
            return match edit {
                Edit::Replace(value) if kind.creates_on_update && subresource.is_empty() => {
                    self.create_by_update(caller, target, value).map(|object| (object, true))
                }
                _ => Err(Refusal::not_found(kind, name)),
            };
        };
        let verb = if matches!(edit, Edit::Replace(_)) { Verb::Update } else { Verb::Patch };
        let mut value = edited(&target, &existing, edit)?;
        settle_namespace(kind, namespace, &mut value)?;
        check_name(name, &value)?;
        check_version(&target, &existing, &value)?;
        if subresource == "status" {
            keep_all_but_status(kind, &existing, &mut value);
        }
        if subresource == "resize" {
            resize::keep_all_but_resources(&existing, &mut value);
        }
        (kind.default)(&mut value);
        keep_what_is_not_the_writers(kind, subresource, &existing, &mut value);
        refuse_if_wrong(kind, &value, Some(&existing))?;
        if subresource == "resize" {
            refuse_for(kind, &value, &resize::refusals(&existing, &value))?;
        }
        self.admission.check(kind, verb, &value, &self.store)?;
        if is_terminating(&existing) && finalizers(&value).is_empty() && grace_is_over(&existing) {
            return Ok((self.end(caller, verb, kind, &existing, value), false));
        }
        Ok((self.save(caller, verb, kind, Some(&existing), value), false))
    }

    /// A PUT of what does not exist: a uid in it is a precondition that cannot hold, its resourceVersion is not looked at.
    fn create_by_update(
        &mut self,
        caller: &Caller,
        target: Target<'_>,
        mut value: Value,
    ) -> Result<Arc<Object>, Refusal> {
        let uid = meta_text(&value, "uid");
        if !uid.is_empty() {
            return Err(Refusal::precondition(target.kind, target.name, "UID", uid, ""));
        }
        let version = meta_text(&value, "resourceVersion").parse();
        set_meta(&mut value, "resourceVersion", None);
        let created = self.create(caller, target.kind, target.namespace, value)?;
        match version {
            // Nothing was stored that would have another.
            Ok(version) if caller.is_dry_run => Ok(Arc::new(Object::new(created.value().clone(), version))),
            _ => Ok(created),
        }
    }

    /// Writes what differs from what is there; what does not is not written.
    pub(super) fn save(
        &mut self,
        caller: &Caller,
        verb: Verb,
        kind: &'static Kind,
        existing: Option<&Arc<Object>>,
        mut value: Value,
    ) -> Arc<Object> {
        if let Some(existing) = existing {
            set_meta(&mut value, "resourceVersion", Some(json!(existing.revision().to_string())));
            if value == *existing.value() && !existing.is_filled() {
                return existing.clone();
            }
            if caller.is_dry_run {
                return Arc::new(Object::new(value, existing.revision()));
            }
        } else if caller.is_dry_run {
            return Arc::new(Object::unstored(value));
        }
        let change = self.store.put(kind, value);
        let object = change.object.clone();
        self.committed(caller, verb, change);
        object
    }

    /// Takes an object away whose last finalizer went with this write; its last state is `value`.
    fn end(
        &mut self,
        caller: &Caller,
        verb: Verb,
        kind: &'static Kind,
        existing: &Arc<Object>,
        value: Value,
    ) -> Arc<Object> {
        if !caller.is_dry_run {
            let key = key(kind, existing.namespace(), existing.name());
            if let Some(change) = self.store.remove_as(kind, &key, value.clone()) {
                let object = change.object.clone();
                self.committed(caller, verb, change);
                return object;
            }
        }
        Arc::new(Object::new(value, existing.revision()))
    }

    /// Nothing is created in a namespace that ends, nor, where namespaces are looked at, in one that does not exist.
    fn check_namespace(&self, kind: &'static Kind, namespace: &str, name: &str) -> Result<(), Refusal> {
        if !kind.is_namespaced {
            return Ok(());
        }
        match self.store.get(&NAMESPACES, "", namespace) {
            Some(found) if found.is_terminating() => {
                let why =
                    format!("unable to create new content in namespace {namespace} because it is being terminated");
                let mut refusal = Refusal::forbidden(kind, name, &why);
                let message = format!("namespace {namespace} is being terminated");
                let cause =
                    json!({"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"});
                refusal.details["causes"] = json!([cause]);
                Err(refusal)
            }
            None if self.needs_namespaces => Err(Refusal::not_found(&NAMESPACES, namespace)),
            _ => Ok(()),
        }
    }

    fn stamp_new(&mut self, caller: &Caller, kind: &Kind, value: &mut Value) {
        for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"]
        {
            set_meta(value, field, None);
        }
        set_meta(value, "uid", Some(json!(self.draw_uid())));
        set_meta(value, "creationTimestamp", Some(json!(whole_seconds(caller.now))));
        if kind.has_generation {
            set_meta(value, "generation", Some(json!(1)));
        }
    }

    fn draw_uid(&mut self) -> String {
        let (high, low) = (self.rng.u64(..), self.rng.u64(..));
        let (a, b, c) = (high >> 32, high >> 16 & 0xffff, high & 0xfff);
        format!("{a:08x}-{b:04x}-4{c:03x}-{:04x}-{:012x}", low >> 48 & 0x3fff | 0x8000, low & 0xffff_ffff_ffff)
    }

    fn draw_name(&mut self, value: &mut Value) {
        let prefix: String = meta_text(value, "generateName").chars().take(58).collect();
        if prefix.is_empty() {
            return;
        }
        let draw = |_| char::from(NAME_ALPHABET[self.rng.usize(..NAME_ALPHABET.len())]);
        let suffix: String = (0..5).map(draw).collect();
        set_meta(value, "name", Some(json!(prefix + &suffix)));
    }
}

/// The object as the writer wants it.
fn edited(target: &Target<'_>, existing: &Arc<Object>, edit: Edit<'_>) -> Result<Value, Refusal> {
    if let Edit::Replace(value) = edit {
        let uid = meta_text(&value, "uid");
        if !uid.is_empty() && uid != existing.uid() {
            return Err(Refusal::precondition(target.kind, target.name, "UID", uid, existing.uid()));
        }
        return Ok(value);
    }
    let mut value = existing.value().clone();
    match edit {
        Edit::Replace(_) => {}
        Edit::Merge(patch) => json_patch::merge(&mut value, &patch),
        Edit::Strategic(patch) => merge_strategically(&mut value, &patch),
        Edit::Json(patch) => apply(patch, &mut value)?,
        Edit::With(edit) => edit(&mut value),
    }
    Ok(value)
}

/// Strategic merge, as far as it is asked for: see [`Edit::Strategic`].
fn merge_strategically(value: &mut Value, patch: &Value) {
    const KEYS: [(&str, &str); 3] =
        [("/status/conditions", "type"), ("/spec/containers", "name"), ("/metadata/ownerReferences", "uid")];
    let entries = |value: &Value, list: &str| value.pointer(list).and_then(Value::as_array).cloned();
    let known = KEYS.map(|(list, _)| entries(value, list).unwrap_or_default());
    json_patch::merge(value, patch);
    for ((list, key), mut merged) in KEYS.into_iter().zip(known) {
        let said = patch.pointer(list).is_some();
        let Some(said) = value.pointer_mut(list).filter(|_| said).and_then(Value::as_array_mut) else { continue };
        for entry in said.drain(..) {
            match merged.iter_mut().find(|known| known[key] == entry[key]) {
                Some(known) => json_patch::merge(known, &entry),
                None => merged.push(entry),
            }
        }
        *said = merged;
    }
}

/// A JSON patch, as the real one's library understands it: to replace a field that is not there adds it.
pub(super) fn apply(patch: json_patch::Patch, value: &mut Value) -> Result<(), Refusal> {
    for operation in patch.0 {
        let operation = match operation {
            PatchOperation::Replace(replace)
                if replace
                    .path
                    .parent()
                    .and_then(|parent| parent.resolve(value).ok())
                    .is_some_and(Value::is_object) =>
            {
                PatchOperation::Add(AddOperation { path: replace.path, value: replace.value })
            }
            other => other,
        };
        json_patch::patch(value, &[operation])
            .map_err(|error| Refusal::new(422, "Invalid", format!("the server rejected our request: {error}")))?;
    }
    Ok(())
}

fn refuse_if_wrong(kind: &Kind, value: &Value, old: Option<&Value>) -> Result<(), Refusal> {
    let mut causes = validate::metadata(value, old);
    causes.extend((kind.validate)(value, old));
    refuse_for(kind, value, &causes)
}

fn refuse_for(kind: &Kind, value: &Value, causes: &[validate::Cause]) -> Result<(), Refusal> {
    if causes.is_empty() { Ok(()) } else { Err(Refusal::invalid(kind, meta_text(value, "name"), causes)) }
}
