//! The Job of a hook: its names, and what it is made from.
use serde_json::{Map, Value, json};

use super::revision;
use crate::{
    api::{
        hooks::{Hook, HookPoint, Point},
        names,
    },
    snapshot::on_one_line,
};

/// What one attempt of a hook is made from.
pub struct JobRecipe<'a> {
    /// Name of the Rollout.
    pub rollout: &'a str,
    /// Namespace of the Rollout.
    pub namespace: &'a str,
    /// uid of the Rollout.
    pub uid: &'a str,
    /// The hook, as the spec has it now.
    pub hook: &'a Hook,
    /// Its point.
    pub point: Point,
    /// Number of the run.
    pub run: i64,
    /// Number of the attempt, from 1.
    pub attempt: i32,
    /// Name and data of the revision that instances come from. None: on the first rollout.
    pub from: Option<(&'a str, &'a Value)>,
    /// Name and data of the revision that the run is about.
    pub to: (&'a str, &'a Value),
    /// Name of the revision that is worked towards.
    pub target: &'a str,
    /// Id of the backup that was made in this run, or on the way back in the run that failed; empty: none.
    pub backup: &'a str,
    /// On the way back: what went wrong.
    pub cause: &'a str,
}

/// What all attempts of a hook at one point of one run share.
pub fn key(uid: &str, run: i64, point: Point, hook: &str) -> String {
    revision::hash(&json!([uid, run, point.to_string(), hook]))
}

/// Name of the Job of an attempt: `web-hook-x7k2m9qv4t`. `taken`: names that belong to something else.
pub fn job_name(rollout: &str, key: &str, attempt: i32, taken: impl Fn(&str) -> bool) -> String {
    let name = |detour: i32| {
        let parts = if detour == 0 { json!([key, attempt]) } else { json!([key, attempt, detour]) };
        format!("{rollout}-hook-{}", revision::hash(&parts))
    };
    (0..100).map(name).find(|name| !taken(name)).unwrap_or_else(|| name(100))
}

/// The Job, as JSON for a create.
pub fn job(recipe: &JobRecipe<'_>, name: &str) -> Value {
    let JobRecipe { rollout, namespace, uid, hook, point, run, attempt, .. } = recipe;
    let template = Value::Object(hook.template.0.clone());
    let object = |pointer: &str| template.pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default();
    let (mut labels, mut annotations, mut spec) =
        (object("/metadata/labels"), object("/metadata/annotations"), object("/spec"));
    labels.insert(names::LABEL_HOOK.into(), json!(hook.name));
    annotations.insert(names::ANNOTATION_ROLLOUT.into(), json!(rollout));
    if let Some(first) = spec.get("containers").and_then(|all| all.get(0)).map(|container| container["name"].clone()) {
        annotations.insert(names::ANNOTATION_HOOK_CONTAINER.into(), first);
    }
    spec.insert("restartPolicy".into(), json!("Never"));
    let key = key(uid, *run, *point, &hook.name);
    let env = env(recipe, &key);
    for field in ["initContainers", "containers"] {
        let Some(containers) = spec.get_mut(field).and_then(Value::as_array_mut) else { continue };
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            let own = container.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
            container.insert("env".into(), Value::Array(env.iter().cloned().chain(own).collect()));
            container.entry("terminationMessagePolicy").or_insert_with(|| json!("FallbackToLogsOnError"));
        }
    }
    if let Some(image) = image(recipe) {
        let first = spec.get_mut("containers").and_then(|all| all.get_mut(0)).and_then(Value::as_object_mut);
        if let Some(container) = first {
            container.insert("image".into(), json!(image));
        }
    }
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {
                names::LABEL_HOOK: hook.name,
                names::LABEL_ROLLOUT: rollout,
                names::LABEL_RUN: run.to_string(),
                names::LABEL_ATTEMPT: attempt.to_string(),
                names::LABEL_REVISION: recipe.target,
            },
            "annotations": {names::ANNOTATION_POINT: point.to_string(), names::ANNOTATION_HOOK_KEY: key},
            "ownerReferences": [revision::owner_reference(rollout, uid)],
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            // The next Pod only once the one before has ended: no two of one hook at a time.
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": hook.timeout_seconds,
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec},
        },
    })
}

/// Env of every container, before the user's own, so that the user's may refer to it.
fn env(recipe: &JobRecipe<'_>, key: &str) -> Vec<Value> {
    let mut all = Map::new();
    let (from, to) = (recipe.from, recipe.to);
    let version = |data: &Value| revision::version(data);
    for (name, value) in [
        ("BATON_ROLLOUT", recipe.rollout.to_owned()),
        ("BATON_NAMESPACE", recipe.namespace.to_owned()),
        ("BATON_HOOK", recipe.hook.name.clone()),
        ("BATON_HOOK_KEY", key.to_owned()),
        ("BATON_HOOK_ATTEMPT", recipe.attempt.to_string()),
        ("BATON_RUN", recipe.run.to_string()),
        ("BATON_BATCH", recipe.point.batch.to_string()),
        ("BATON_FROM_REVISION", from.map(|(name, _)| name.to_owned()).unwrap_or_default()),
        ("BATON_FROM_VERSION", from.map(|(_, data)| version(data)).unwrap_or_default()),
        ("BATON_TO_REVISION", to.0.to_owned()),
        ("BATON_TO_VERSION", version(to.1)),
        ("BATON_BACKUP_ID", recipe.backup.to_owned()),
        ("BATON_ROLLBACK_CAUSE", on_one_line(recipe.cause).into_owned()),
    ] {
        // What others wrote is text, not a reference to another variable.
        all.insert(name.to_owned(), json!(value.replace("$(", "$$(")));
    }
    all.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}

/// The image of the container of spec.template that the hook names.
fn image(recipe: &JobRecipe<'_>) -> Option<String> {
    use crate::api::hooks::ImageRevision;
    let wanted = recipe.hook.image_from.as_ref()?;
    // On the way back `to` is the stable revision, and `from` the one that is new.
    let is_back = recipe.point.on == HookPoint::OnRollback;
    let (new, old) = if is_back { (recipe.from, Some(recipe.to)) } else { (Some(recipe.to), recipe.from) };
    let (_, data) = match wanted.revision {
        ImageRevision::New => new.or(old),
        ImageRevision::Old => old.or(new),
    }?;
    revision::images(data).find(|(name, _)| *name == wanted.container).map(|(_, image)| image.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(extra: &Value) -> Hook {
        let mut hook = json!({"name": "migrate", "when": "BeforeRollout", "template": {
            "metadata": {"labels": {"team": "shop"}},
            "spec": {"containers": [{"name": "main", "image": "tool:1", "env": [{"name": "URL", "value": "$(BATON_RUN)"}]}]},
        }});
        hook.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(hook).unwrap()
    }

    fn recipe<'a>(hook: &'a Hook, old: &'a Value, new: &'a Value) -> JobRecipe<'a> {
        let point = Point::of_run(hook.when);
        JobRecipe {
            rollout: "web",
            namespace: "shop",
            uid: "u1",
            hook,
            point,
            run: 7,
            attempt: 1,
            from: Some(("web-old", old)),
            to: ("web-new", new),
            target: "web-new",
            backup: "b1",
            cause: "it $(BROKE)\nnow",
        }
    }

    fn data(image: &str) -> Value {
        json!({"template": {"spec": {"containers": [{"name": "web", "image": image}]}}})
    }

    /// B8: the key is of the hook, the name of the attempt: a migration that died half-way knows itself again.
    #[test]
    fn all_attempts_share_the_key_and_no_two_runs_do() {
        let point = Point::of_run(HookPoint::BeforeRollout);
        let first = key("u1", 7, point, "migrate");
        assert_eq!(first, key("u1", 7, point, "migrate"));
        let others = [
            key("u2", 7, point, "migrate"),
            key("u1", 8, point, "migrate"),
            key("u1", 7, Point::of_batch(HookPoint::AfterBatch, 1), "migrate"),
            key("u1", 7, point, "backup"),
        ];
        assert!(!others.contains(&first));
        let name = |attempt, taken: &str| job_name("web", &first, attempt, |name| name == taken);
        assert_ne!(name(1, ""), name(2, ""));
        assert_ne!(name(1, ""), name(1, &name(1, "")), "a name that is taken is gone around");
        assert!(name(1, "").starts_with("web-hook-") && name(1, "").len() == "web-hook-".len() + 10);
    }

    /// B8
    #[test]
    fn a_job_runs_one_pod_once_and_says_what_it_is_for() {
        let (old, new) = (data("web:1"), data("web:2"));
        let hook = hook(&json!({}));
        let job = job(&recipe(&hook, &old, &new), "web-hook-x");
        let spec = &job["spec"];
        assert_eq!((&spec["backoffLimit"], &spec["completions"]), (&json!(0), &json!(1)));
        assert_eq!((&spec["podReplacementPolicy"], &spec["activeDeadlineSeconds"]), (&json!("Failed"), &json!(600)));
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Never");
        assert_eq!(spec["template"]["metadata"]["labels"], json!({"team": "shop", "baton.dev/hook": "migrate"}));
        assert_eq!(job["metadata"]["ownerReferences"][0]["uid"], "u1");
        let env = spec["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
        let value =
            |name: &str| env.iter().find(|it| it["name"] == name).unwrap()["value"].as_str().unwrap().to_owned();
        assert_eq!(env.last().unwrap()["name"], "URL", "the user's own come last and may refer to ours");
        assert_eq!((value("BATON_RUN"), value("BATON_BACKUP_ID")), ("7".into(), "b1".into()));
        assert_eq!((value("BATON_FROM_VERSION"), value("BATON_TO_VERSION")), ("1".into(), "2".into()));
        assert_eq!(value("BATON_ROLLBACK_CAUSE"), "it $$(BROKE) now");
    }

    /// B8: on the way back, New is the image that knows how to undo what it did.
    #[test]
    fn an_image_comes_from_either_revision() {
        let (old, new) = (data("web:1"), data("web:2"));
        let image = |hook: &Hook, swapped: bool| {
            let mut recipe = recipe(hook, &old, &new);
            if swapped {
                (recipe.from, recipe.to) = (Some(("web-new", &new)), ("web-old", &old));
            }
            job(&recipe, "x")["spec"]["template"]["spec"]["containers"][0]["image"].clone()
        };
        let of = |on: &str, revision: &str| {
            hook(&json!({"when": on, "imageFrom": {"container": "web", "revision": revision}}))
        };
        assert_eq!(image(&of("BeforeRollout", "New"), false), "web:2");
        assert_eq!(image(&of("BeforeRollout", "Old"), false), "web:1");
        assert_eq!(image(&of("OnRollback", "New"), true), "web:2");
        assert_eq!(image(&of("OnRollback", "Old"), true), "web:1");
    }
}
