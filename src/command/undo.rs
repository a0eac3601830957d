//! What all instances, or chosen ones, are to run.
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Edited, Refusal, SpecEdit, edit::set_or_remove, set};
use crate::{
    api::{
        Rollout,
        names::instance_name,
        rollout::{Pin, Request},
    },
    plan::{revision, undo},
    snapshot::{Ranges, Revision, Snapshot},
};

/// The revision of this number.
///
/// # Errors
/// There is none.
pub fn numbered(snapshot: &Snapshot, number: i64) -> Result<&Revision, Refusal> {
    let found = snapshot.revisions.iter().find(|revision| revision.number == number && !revision.deleting);
    let name = snapshot.rollout.name_any();
    let others = || {
        /// The newest are those that a person may want.
        const SHOWN_MAX: usize = 10;
        let mut known: Vec<_> = snapshot.revisions.iter().filter(|revision| !revision.deleting).collect();
        known.sort_by_key(|revision| std::cmp::Reverse(revision.number));
        let known = known.iter().take(SHOWN_MAX);
        let known: Vec<_> = known.map(|it| format!("{} ({})", it.number, revision::version(&it.data))).collect();
        if known.is_empty() { ", nor any other yet".into() } else { format!("; it has {}", known.join(", ")) }
    };
    found.ok_or_else(|| Refusal::NoRevisionOfNumber { rollout: name, number, others: others() })
}

/// What is to run again.
pub struct Again<'a> {
    revision: &'a Revision,
    /// Of no instances yet.
    pin: Pin,
    version: String,
    /// Of the revision that the pin comes to.
    data: Value,
}

impl<'a> Again<'a> {
    /// This revision, as `pin` (of no instances yet) says.
    ///
    /// # Errors
    /// The pin names a container that is not there.
    pub fn of(revision: &'a Revision, pin: Pin) -> Result<Self, String> {
        let data = revision::differing(&revision.data, &pin)?;
        Ok(Self { revision, pin, version: revision::version(&revision.data), data })
    }
}

/// These instances, or all, are no longer pinned.
///
/// # Errors
/// None of them is pinned.
pub fn unpin(rollout: &Rollout, instances: Option<&Ranges>, request: &Request) -> Edited {
    let (name, pins) = (rollout.name_any(), &rollout.spec.pins);
    let left = instances.map_or_else(Vec::new, |instances| undo::unpinned(pins, instances));
    if left == *pins {
        return Err(Refusal::NotPinned { rollout: name });
    }
    let summary = format!("rollout.baton.dev/{name} unpinned, these instances go to the present version in batches");
    let mut patch = vec![set_pins(&left)];
    if is_any_changed(rollout, &left) {
        patch.push(set("/spec/request", &json!(request)));
    }
    let which = instances.map_or_else(|| "--all".to_owned(), |instances| format!("--instances {instances}"));
    Ok(SpecEdit { patch, summary, kubectl: format!("kubectl baton unpin {name} {which}") })
}

/// The revision that `word` (a version, or the name of a ControllerRevision) means, to run again; without one the newest that was
/// complete before. `digests`: with the images and the package that it ran then.
///
/// # Errors
/// There is none, or what it ran is not known.
pub fn again<'a>(snapshot: &'a Snapshot, word: Option<&str>, digests: bool) -> Result<Again<'a>, Refusal> {
    let refused = |why: String| Refusal::NoRevision { rollout: snapshot.rollout.name_any(), why };
    let to = undo::revision(snapshot, word).map_err(refused)?;
    let pin = if digests { undo::as_it_ran(to).map_err(refused)? } else { undo::as_it_is(to) };
    Again::of(to, pin).map_err(refused)
}

/// With these pins alone an instance goes to another revision. Otherwise the history has no entry for the unpin, and the request
/// would be taken for that of the next change.
fn is_any_changed(rollout: &Rollout, left: &[Pin]) -> bool {
    let pinned = |pins: &[Pin]| pins.iter().flat_map(|pin| Ranges::parse(&pin.instances).0).collect::<Ranges>();
    let (before, after) = (pinned(&rollout.spec.pins), pinned(left));
    let Some(status) = &rollout.status else { return false };
    let others = status.versions.iter().filter(|version| Some(&version.revision) != status.target_revision.as_ref());
    let mut slots = others.flat_map(|version| Ranges::parse(&version.instances).0);
    slots.any(|slot| before.0.contains(&slot) && !after.0.contains(&slot))
}

/// The whole Rollout runs this revision again: the spec asks for it.
///
/// # Errors
/// The spec asks for it already.
pub fn whole(snapshot: &Snapshot, to: &Again<'_>, request: &Request) -> Edited {
    let (name, version) = (snapshot.rollout.name_any(), &to.version);
    if to.data == revision::data(&snapshot.rollout.spec) {
        let (version, revision) = (version.clone(), to.revision.name.clone());
        return Err(Refusal::AskedAlready { rollout: name, version, revision });
    }
    let mut patch = vec![json!({"op": "replace", "path": "/spec/template", "value": to.data["template"]})];
    let spec = &snapshot.rollout.spec;
    patch.extend(set_or_remove("/spec/version", to.data.get("version"), spec.version.is_some()));
    patch.extend(set_or_remove("/spec/package", to.data.get("package"), spec.package.is_some()));
    let reason = request.reason.clone().or_else(|| Some(format!("undo to {version}")));
    patch.push(set("/spec/request", &json!(Request { reason, ..request.clone() })));
    let summary =
        format!("rollout.baton.dev/{name} goes back to {version}; watch it with `kubectl baton status {name}`");
    Ok(SpecEdit { patch, summary, kubectl: format!("kubectl baton undo {name} --to {}", to.revision.name) })
}

/// These instances run this revision, until they are unpinned.
///
/// # Errors
/// There is no such instance, or it is pinned so already.
pub fn pin(snapshot: &Snapshot, to: &Again<'_>, chosen: &Ranges, request: &Request) -> Edited {
    let (name, version) = (snapshot.rollout.name_any(), &to.version);
    if chosen.is_empty() {
        return Err(Refusal::NoInstanceFailed { rollout: name });
    }
    if let Some(beyond) = chosen.0.range(snapshot.rollout.spec.replicas..).next() {
        let (instance, replicas) = (instance_name(&name, *beyond), snapshot.rollout.spec.replicas);
        return Err(Refusal::NoInstance { rollout: name, instance, replicas });
    }
    let request = Some(Request { id: None, ..request.clone() }).filter(|request| *request != Request::default());
    let pin = Pin { request, ..to.pin.clone() };
    let pins = undo::pinned(&snapshot.rollout.spec.pins, chosen, &pin);
    let runs = |pins: &[Pin]| pins.iter().map(|pin| Pin { request: None, ..pin.clone() }).collect::<Vec<_>>();
    if runs(&pins) == runs(&snapshot.rollout.spec.pins) {
        let (instances, version) = (chosen.to_string(), version.clone());
        return Err(Refusal::PinnedAlready { rollout: name, instances, version });
    }
    let said = format!(
        "rollout.baton.dev/{name} pinned: instances {chosen} to {version}; `kubectl baton unpin {name} --instances {chosen}` ends it"
    );
    let kubectl = format!("kubectl baton undo {name} --instances {chosen} --to {}", to.revision.name);
    Ok(SpecEdit { patch: vec![set_pins(&pins)], summary: said, kubectl })
}

fn set_pins(pins: &[Pin]) -> Value {
    set("/spec/pins", &json!(pins))
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::plan::rollout::tests::fixture::{Fixture, at};

    fn ann() -> Request {
        Request { by: Some("ann".into()), ..Request::default() }
    }

    fn again<'a>(snapshot: &'a Snapshot, word: Option<&str>) -> Again<'a> {
        super::again(snapshot, word, false).unwrap()
    }

    fn written(edited: Edited) -> (Vec<Value>, String) {
        let edit = edited.unwrap();
        (edit.patch, edit.summary)
    }

    /// C6 C8: as it ran, also if its tags and its URL give others now.
    #[test]
    fn what_ran_goes_back_by_the_digests_that_were_noted() {
        let mut snapshot = Fixture::new("b b", 'b', json!({})).snapshot;
        let at = snapshot.revisions.iter().position(|revision| revision.name == "a").unwrap();
        let error = undo::as_it_ran(&snapshot.revisions[at]).unwrap_err();
        assert_eq!(error, "which image container web of a ran is not known");
        snapshot.revisions[at].image_digests = Some([("web".to_owned(), "sha256:0f".to_owned())].into());
        let again = |snapshot: &Snapshot| {
            let to = snapshot.revisions[at].clone();
            let to = Again::of(&to, undo::as_it_ran(&to).unwrap()).unwrap();
            let pinned = written(pin(snapshot, &to, &Ranges::parse("1"), &Request::default())).0;
            (written(whole(snapshot, &to, &ann())), pinned[0]["value"][0].clone())
        };
        let image = json!("example.local/web:1@sha256:0f");
        let ((patch, said), pinned) = again(&snapshot);
        assert_eq!(patch[0]["value"]["spec"]["containers"][0]["image"], image);
        assert_eq!(patch[1], json!({"op": "add", "path": "/spec/version", "value": "a"}));
        assert!(said.contains("goes back to a;"), "{said}");
        assert_eq!(pinned, json!({"instances": "1", "base": "a", "version": "a", "images": {"web": image}}));

        let mut package = json!({"url": "https://a.b/latest.zip", "mountPath": "/opt/app"});
        snapshot.revisions[at].data["package"] = package.clone();
        let error = undo::as_it_ran(&snapshot.revisions[at]).unwrap_err();
        assert_eq!(error, "which package of a ran is not known");
        snapshot.revisions[at].package_sha256 = Some("0f".repeat(32));
        package["sha256"] = json!("0f".repeat(32));
        let ((patch, _), pinned) = again(&snapshot);
        assert_eq!(patch[2], json!({"op": "add", "path": "/spec/package", "value": package}));
        assert_eq!(pinned["package"], package);

        // No digest is noted of an image package; one that says it itself goes back as it is.
        let mut undone = |image: &str| {
            snapshot.revisions[at].package_sha256 = None;
            snapshot.revisions[at].data["package"] = json!({"image": image, "mountPath": "/opt/app"});
            undo::as_it_ran(&snapshot.revisions[at]).map(|pin| pin.package)
        };
        assert_eq!(undone("a.b/rules:1").unwrap_err(), "which package of a ran is not known");
        assert_eq!(undone("a.b/rules@sha256:0f"), Ok(None));
    }

    /// X1 C6
    #[test]
    fn chosen_instances_are_pinned_to_what_ran_before() {
        let snapshot = Fixture::new("b b b b", 'b', json!({"pins": [{"instances": "0-1", "revision": "c"}]})).snapshot;
        let to = &again(&snapshot, None);
        let (patch, said) = written(pin(&snapshot, to, &Ranges::parse("1,3"), &ann()));
        let pins = json!([
            {"instances": "0", "revision": "c"},
            {"instances": "1,3", "revision": "a", "request": {"by": "ann"}},
        ]);
        assert_eq!(patch, [json!({"op": "add", "path": "/spec/pins", "value": pins})]);
        assert!(said.contains("instances 1,3 to a") && said.contains("unpin web --instances 1,3"), "{said}");
        let error = pin(&snapshot, to, &Ranges::parse("7"), &ann()).unwrap_err().to_string();
        assert_eq!(error, "there is no web-7: web has 4 instances, from 0");
        let error = pin(&snapshot, to, &undo::failed(&snapshot), &ann()).unwrap_err().to_string();
        assert!(error.contains("no instance has failed"), "{error}");
        let again = Fixture::new("b a", 'b', json!({"pins": [{"instances": "1", "revision": "a"}]})).snapshot;
        let error = pin(&again, to, &Ranges::parse("1"), &ann()).unwrap_err().to_string();
        assert_eq!(error, "web: instances 1 are pinned to a already; --to chooses another version");
    }

    /// C5 C6: also those that no run counts: pinned ones, and those that came by scaling.
    #[test]
    fn whoever_fails_has_failed() {
        let pins = json!({"pins": [{"instances": "1", "revision": "c"}]});
        let snapshot = Fixture::new("a c! a a! ax", 'a', pins).settled().snapshot;
        assert_eq!(undo::failed(&snapshot).to_string(), "1,3");
    }

    /// C8
    #[test]
    fn the_package_goes_back_with_the_rest() {
        let package = |name: &str| json!({"url": format!("https://a.b/{name}"), "mountPath": "/opt/app"});
        let goes_back = |now: Option<&str>, then: Option<&str>| {
            let spec = now.map_or(json!({}), |now| json!({"package": package(now)}));
            let mut snapshot = Fixture::new("b b", 'b', spec).snapshot;
            let to = snapshot.revisions.iter_mut().find(|revision| revision.name == "a").unwrap();
            if let Some(then) = then {
                to.data["package"] = package(then);
            }
            let (patch, _) = written(whole(&snapshot, &again(&snapshot, Some("a")), &ann()));
            patch.into_iter().filter(|change| change["path"] == "/spec/package").collect::<Vec<_>>()
        };
        let set = json!({"op": "add", "path": "/spec/package", "value": package("old")});
        assert_eq!(goes_back(Some("new"), Some("old")), from_ref(&set));
        assert_eq!(goes_back(None, Some("old")), [set]);
        assert_eq!(goes_back(Some("new"), None), [json!({"op": "remove", "path": "/spec/package"})]);
        assert!(goes_back(None, None).is_empty());
    }

    #[test]
    fn the_whole_goes_back_by_its_spec() {
        let mut snapshot = Fixture::new("b b", 'b', json!({})).snapshot;
        assert_eq!(numbered(&snapshot, 1).unwrap().name, "a");
        assert!(numbered(&snapshot, 99).unwrap_err().to_string().contains("web has no revision 99"));
        let (patch, said) = written(whole(&snapshot, &again(&snapshot, None), &ann()));
        assert_eq!((&patch[0]["op"], &patch[0]["path"]), (&json!("replace"), &json!("/spec/template")));
        assert_eq!(patch[1], json!({"op": "add", "path": "/spec/version", "value": "a"}));
        assert_eq!(patch[2]["value"], json!({"by": "ann", "reason": "undo to a"}));
        assert!(said.contains("goes back to a"), "{said}");
        let error = whole(&snapshot, &again(&snapshot, Some("b")), &ann()).unwrap_err().to_string();
        assert!(error.contains("asks for b (b) already"), "{error}");
        assert_eq!(undo::revision(&snapshot, Some("c")).unwrap().name, "c");
        let error = undo::revision(&snapshot, Some("z")).unwrap_err();
        assert_eq!(error, "no revision is z; there is b (b), c (c), a (a)");
        // Of two that completed the newer one, with any numbers.
        snapshot.revisions.iter_mut().find(|r| r.name == "c").unwrap().completed_at = Some(at(-10));
        assert_eq!(undo::revision(&snapshot, None).unwrap().name, "c");
        // One that has failed since takes a word.
        snapshot.revisions.iter_mut().find(|r| r.name == "c").unwrap().failed_at = Some(at(-5));
        assert_eq!(undo::revision(&snapshot, None).unwrap().name, "a");
        assert_eq!(undo::revision(&snapshot, Some("c")).unwrap().name, "c");
        snapshot.revisions.iter_mut().find(|r| r.name == "a").unwrap().failed_at = Some(at(-5));
        let error = undo::revision(&snapshot, None).unwrap_err();
        let known = "there is b (b), c (c), a (a); --to chooses one";
        assert_eq!(error, format!("no earlier revision has completed, and not failed since; {known}"));
    }
}
