//! The requests of a cell.
use serde_json::{Value, json};

use super::Way;
use crate::{
    contract::{
        objects::{self, Name},
        step::{BEGIN, CONTINUE, NAMESPACE, OTHER_UID, STALE, Step, VERSION},
    },
    fake_apiserver::{
        faults::Verb,
        kinds::{Kind, NODES},
    },
};

/// Requests whose last is the one in question; of a dry run the one before. None: it cannot go that way.
pub(super) fn steps(kind: &'static Kind, verb: Verb, subresource: &'static str, way: Way) -> Option<Vec<Step>> {
    if way == Way::DryRun && verb.is_write() {
        let mut steps = steps(kind, verb, subresource, Way::Ok)?;
        let last = steps.pop()?.dry_run();
        // The list, to see that nothing of it stays.
        steps.extend([last, Step::list(kind)]);
        return Some(steps);
    }
    match verb {
        Verb::Get => get(kind, subresource, way),
        Verb::List => list(kind, way),
        Verb::Watch => watch(kind, way),
        Verb::Create => create(kind, way),
        Verb::Update => {
            about_an_object(kind, subresource, way, Step::replace(kind, "a", replacement(kind, subresource, way)))
        }
        Verb::Patch => about_an_object(kind, subresource, way, Step::merge(kind, "a", patch(kind, subresource, way)?)),
        Verb::Delete => about_an_object(kind, subresource, way, delete(kind, way)),
        // See `NOT_ASKED`.
        Verb::DeleteCollection => None,
    }
}

/// An object `a`, if it is to be there, and then this.
fn about_an_object(kind: &'static Kind, subresource: &'static str, way: Way, step: Step) -> Option<Vec<Step>> {
    let step = step.subresource(subresource);
    match way {
        Way::Missing => Some(vec![step]),
        Way::Taken | Way::Gone | Way::DryRun | Way::GeneratedName => None,
        Way::Ok | Way::Stale | Way::WrongUid | Way::Invalid => Some(vec![made(kind, "a"), step]),
    }
}

fn made(kind: &'static Kind, name: &str) -> Step {
    Step::create(kind, objects::valid(kind, name, 1))
}

fn get(kind: &'static Kind, subresource: &'static str, way: Way) -> Option<Vec<Step>> {
    let is_possible = matches!(way, Way::Ok | Way::Missing);
    if is_possible { about_an_object(kind, subresource, way, Step::get(kind, "a")) } else { None }
}

/// Nodes are not made here: controllers would write to them.
fn list(kind: &'static Kind, way: Way) -> Option<Vec<Step>> {
    let page = || Step::list(kind).query("limit", "1");
    let next = || page().query("continue", CONTINUE);
    let exactly = || Step::list(kind).query("resourceVersion", BEGIN).query("resourceVersionMatch", "Exact");
    let has_objects = *kind != NODES;
    match way {
        Way::Invalid => Some(vec![Step::list(kind).query("resourceVersion", "x")]),
        Way::Ok if has_objects => Some(vec![made(kind, "a"), made(kind, "b"), page(), next()]),
        Way::Ok | Way::Missing => Some(vec![Step::list(kind)]),
        Way::Stale if has_objects => Some(vec![Step::list(kind), made(kind, "a"), exactly()]),
        Way::Gone if has_objects => {
            let before = [Step::list(kind), made(kind, "a"), made(kind, "b"), page()];
            // With the token of the first page, then with that of the refusal, which goes on without consistency.
            let after = [next(), next(), exactly()].map(Step::after_compaction);
            Some(before.into_iter().chain(after).collect())
        }
        Way::Gone => Some(vec![Step::list(kind), exactly().after_compaction()]),
        _ => None,
    }
}

fn watch(kind: &'static Kind, way: Way) -> Option<Vec<Step>> {
    match way {
        Way::Ok if *kind == NODES => Some(vec![Step::list(kind), Step::watch(kind, BEGIN)]),
        Way::Ok => {
            let unselected = json!({"metadata": {"labels": {"contract": null}}});
            let (unselect, delete) = (Step::merge(kind, "a", unselected), Step::delete(kind, "b"));
            let changes = vec![Step::list(kind), made(kind, "a"), unselect, made(kind, "b"), delete];
            Some(changes.into_iter().chain([Step::watch(kind, BEGIN)]).collect())
        }
        Way::Missing if *kind == NODES => Some(vec![Step::watch(kind, "")]),
        Way::Missing => Some(vec![made(kind, "a"), Step::watch(kind, "")]),
        Way::Invalid => Some(vec![Step::watch(kind, "x")]),
        Way::Gone => Some(vec![Step::list(kind), Step::watch(kind, BEGIN).after_compaction()]),
        _ => None,
    }
}

fn create(kind: &'static Kind, way: Way) -> Option<Vec<Step>> {
    let mut body = objects::valid(kind, "a", 1);
    match way {
        Way::Ok | Way::Missing => {}
        Way::Taken => return Some(vec![made(kind, "a"), made(kind, "a")]),
        Way::Stale => body["metadata"]["resourceVersion"] = json!("1"),
        Way::WrongUid => body["metadata"]["uid"] = json!(OTHER_UID),
        Way::Invalid => body = objects::invalid(kind, "a"),
        Way::GeneratedName => Name::Generated(1).put_into(&mut body),
        Way::DryRun | Way::Gone => return None,
    }
    Some(vec![Step::create(kind, body)])
}

fn replacement(kind: &'static Kind, subresource: &'static str, way: Way) -> Value {
    let is_wrong = way == Way::Invalid;
    let mut body = match subresource {
        "scale" => json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "a", "namespace": NAMESPACE},
            "spec": {"replicas": if is_wrong { -1 } else { 4 }},
        }),
        "" if is_wrong => objects::invalid(kind, "a"),
        _ => objects::valid(kind, "a", 2),
    };
    if subresource == "status" {
        body["status"] = json!({"replicas": if is_wrong { json!("many") } else { json!(3) }});
    }
    require(&mut body, way);
    body
}

fn patch(kind: &'static Kind, subresource: &'static str, way: Way) -> Option<Value> {
    let is_wrong = way == Way::Invalid;
    let mut patch = match (subresource, kind.kind) {
        // Whatever text it is, it is valid.
        ("status", _) if is_wrong => return None,
        ("status", _) => json!({"status": {"message": "seen"}}),
        ("scale", _) | (_, "Rollout") => json!({"spec": {"replicas": if is_wrong { -1 } else { 4 }}}),
        _ => json!({"metadata": {"labels": {"more": if is_wrong { "no label!" } else { "label" }}}}),
    };
    require(&mut patch, way);
    Some(patch)
}

fn delete(kind: &'static Kind, way: Way) -> Step {
    match way {
        Way::Stale => Step::delete_if(kind, "a", "", STALE),
        Way::WrongUid => Step::delete_if(kind, "a", OTHER_UID, VERSION),
        Way::Invalid => Step::delete(kind, "a").options("propagationPolicy", json!("Sideways")),
        _ => Step::delete(kind, "a"),
    }
}

/// What a write requires of the object.
fn require(body: &mut Value, way: Way) {
    body["metadata"]["resourceVersion"] = json!(if way == Way::Stale { STALE } else { VERSION });
    if way == Way::WrongUid {
        body["metadata"]["uid"] = json!(OTHER_UID);
    }
}
