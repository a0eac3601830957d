//! What is not compared between the two servers, and why. Everything else is.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::step::Step;
use crate::fake_apiserver::object::meta_text;

/// How a field is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Look {
    /// Not at all.
    Never,
    /// Only whether it is there.
    Presence,
}

/// Kind (`*`: any), path (`[]`: every entry), how it is looked at, and the reason.
const RULES: &[(&str, &str, Look, &str)] = &[
    ("*", "apiVersion", Look::Never, "the items of a list of built-in kinds have none, and no client of ours reads it"),
    ("*", "kind", Look::Never, "as apiVersion; a Status is known by its other fields"),
    ("*", "metadata.managedFields", Look::Never, "nothing of ours applies or reads them; they are dropped on arrival"),
    ("*", "metadata.creationTimestamp", Look::Presence, "two clocks"),
    ("*", "metadata.deletionTimestamp", Look::Presence, "two clocks; its distance is deletionGracePeriodSeconds"),
    ("*", "metadata.selfLink", Look::Never, "gone from the API"),
    ("List", "metadata.resourceVersion", Look::Never, "counts the writes of everybody, which differ"),
    ("List", "metadata.continue", Look::Presence, "opaque by contract"),
    ("List", "metadata.remainingItemCount", Look::Never, "\"intended for estimating\", and absent where a selector is"),
    ("Status", "message", Look::Never, "words for people; the parts we read are asked for one by one in the matrix"),
    ("Status", "metadata.continue", Look::Presence, "opaque by contract"),
    ("Status", "details.retryAfterSeconds", Look::Never, "how loaded each is"),
    ("Status", "details.causes[].message", Look::Never, "words for people"),
    ("Status", "details.causes[].reason", Look::Never, "nobody reads it (see `fields_of_causes`)"),
    ("Pod", "spec", Look::Never, "some thirty defaults; no decision of ours reads what we did not write (see `kept`)"),
    ("Pod", "status", Look::Never, "qosClass; what the kubelet writes comes from the simulated one (see `kept`)"),
    ("Pod", "metadata.annotations", Look::Never, "admission plugins may add some"),
    ("Node", "spec", Look::Never, "taints that an admission plugin and controllers set and take away"),
    ("Node", "metadata.annotations", Look::Never, "controllers add some"),
    ("Event", "metadata.labels", Look::Never, "nobody selects Events"),
];

/// Of what is not compared, what is nevertheless read by somebody: path below the object.
const KEPT: &[(&str, &str)] = &[
    ("Pod", "/spec/nodeName"),
    ("Pod", "/spec/schedulerName"),
    ("Pod", "/spec/restartPolicy"),
    ("Pod", "/spec/terminationGracePeriodSeconds"),
    ("Pod", "/status/phase"),
    ("Pod", "/status/message"),
];

/// What is not asked at all, and why. Stands below the matrix.
pub const NOT_ASKED: &[(&str, &str)] = &[
    ("deletecollection", "nobody uses it: neither the operator nor the plugin, and kubectl deletes one by one"),
    ("server-side apply", "nothing of ours sends it: the fake answers 415"),
    ("strategic merge patch", "ours are of conditions only, which the fake merges by type as the real one does"),
    ("watch with sendInitialEvents", "nothing of ours asks for it: a list comes first"),
    ("410 in the middle of a watch, or instead of one", "the real one says it as the first event; only faults do else"),
    ("a Scale as it is already", "once a status was cleared the real one writes all the same; nothing of ours scales"),
    ("a generated name that is taken", "they are drawn from fourteen million: it cannot be brought about"),
];

/// Letters of generated names.
const DRAWN_FROM: &str = "bcdfghjklmnpqrstvwxz2456789";
/// How many of them a generated name ends with.
const DRAWN: usize = 5;

/// Looks at what one server answers: uids and resourceVersions become the order in which they were first seen.
#[derive(Default)]
pub struct Eyes {
    uids: BTreeMap<String, usize>,
    /// uid → resourceVersions.
    versions: BTreeMap<String, Vec<String>>,
}

impl Eyes {
    /// The answer to a step as it is compared.
    pub fn see(&mut self, step: &Step, body: &Value) -> Value {
        let kind = step.kind;
        match body {
            Value::Array(events) => {
                let told = events.iter().filter(|event| event["type"] != "BOOKMARK");
                told.map(|event| json!({"type": event["type"], "object": self.see(step, &event["object"])})).collect()
            }
            _ if body["kind"] == "Status" => {
                let mut status = self.object("Status", body);
                hide_drawn(&mut status["details"]["name"], meta_text(&step.body, "generateName"));
                drop_empty(&mut status);
                status
            }
            _ if body["items"].is_array() || body["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
                let items = body["items"].as_array().into_iter().flatten();
                let items: Value = items.map(|item| self.object(kind.kind, item)).collect();
                let mut list = self.object("List", body);
                list["items"] = items;
                list
            }
            _ if body["kind"] == "Scale" => self.object("Scale", body),
            _ => self.object(kind.kind, body),
        }
    }

    fn object(&mut self, kind: &str, object: &Value) -> Value {
        let mut seen = object.clone();
        for (_, path, look, _) in RULES.iter().filter(|(of, ..)| *of == "*" || *of == kind) {
            let path: Vec<&str> = path.split('.').collect();
            hide(&mut seen, &path, *look);
        }
        for (_, path) in KEPT.iter().filter(|(of, _)| *of == kind) {
            if let Some(value) = object.pointer(path) {
                seen[path] = value.clone();
            }
        }
        if kind != "List" && kind != "Status" {
            self.number_version(&mut seen);
        }
        self.number_uids(&mut seen);
        hide_drawn(&mut seen["metadata"]["name"], meta_text(object, "generateName"));
        if kind == "Status" {
            fields_of_causes(&mut seen);
        }
        drop_empty(&mut seen);
        seen
    }

    fn number_version(&mut self, object: &mut Value) {
        let version = meta_text(object, "resourceVersion").to_owned();
        if version.is_empty() {
            return;
        }
        let versions = self.versions.entry(meta_text(object, "uid").to_owned()).or_default();
        let place = versions.iter().position(|known| *known == version).unwrap_or_else(|| {
            versions.push(version);
            versions.len() - 1
        });
        object["metadata"]["resourceVersion"] = json!(format!("version {place}"));
    }

    fn number_uids(&mut self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    match field {
                        Value::String(uid) if name == "uid" => {
                            let next = self.uids.len();
                            *uid = format!("uid {}", self.uids.entry(uid.clone()).or_insert(next));
                        }
                        field => self.number_uids(field),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.number_uids(item)),
            _ => {}
        }
    }
}

/// Of what is wrong, the fields: the real one names a field twice that both a schema and a subresource look at, once with
/// a leading dot, and adds `<nil>` where it has not looked at all rules.
fn fields_of_causes(status: &mut Value) {
    let Some(causes) = status["details"]["causes"].as_array() else { return };
    let fields = causes.iter().filter_map(|cause| cause["field"].as_str());
    let fields: BTreeSet<&str> = fields.map(|field| field.trim_start_matches('.')).filter(|f| *f != "<nil>").collect();
    status["details"]["causes"] = json!(fields);
}

/// Of a name that is generated, the letters that are drawn at random: how many, and that they may be drawn, is left.
fn hide_drawn(name: &mut Value, prefix: &str) {
    let Some(text) = name.as_str().filter(|_| !prefix.is_empty()) else { return };
    let Some((asked, drawn)) = text.len().checked_sub(DRAWN).and_then(|length| text.split_at_checked(length)) else {
        return;
    };
    if prefix.starts_with(asked) {
        let hidden = drawn.chars().map(|letter| if DRAWN_FROM.contains(letter) { '?' } else { letter });
        *name = json!(format!("{asked}{}", hidden.collect::<String>()));
    }
}

fn hide(value: &mut Value, path: &[&str], look: Look) {
    let Some((first, rest)) = path.split_first() else { return };
    if let Some(list) = first.strip_suffix("[]") {
        value[list].as_array_mut().into_iter().flatten().for_each(|item| hide(item, rest, look));
        return;
    }
    let Some(fields) = value.as_object_mut() else { return };
    match (rest.is_empty(), look) {
        (false, _) => {
            if let Some(field) = fields.get_mut(*first) {
                hide(field, rest, look);
            }
        }
        (true, Look::Never) => drop(fields.remove(*first)),
        (true, Look::Presence) => {
            if let Some(field) = fields.get_mut(*first).filter(|field| !field.is_null() && **field != json!("")) {
                *field = json!("there");
            }
        }
    }
}

/// Null, and nothing in it, is absent: Go's encoding of the same object.
fn drop_empty(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(drop_empty);
            fields.retain(|_, field| {
                !(field.is_null() || *field == json!({}) || *field == json!([]) || *field == json!(""))
            });
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        _ => {}
    }
}
