//! People who ask for listeners, and what they do to Leases and Pods that are not theirs to touch.
use std::sync::Arc;

use serde_json::{Value, json};

use super::plan::{Act, Plan};
use crate::{
    fake_apiserver::{
        actor::Actor,
        delete::DeleteOptions,
        kinds::{Kind, LEASES, LISTENER_SETS, PODS},
        object::Object,
    },
    simulate::{scenario::ROLLOUT, trace::Trace},
};

/// Somebody else at a keyboard.
pub struct User {
    pub actor: Actor,
    pub trace: Trace,
    pub clock: baton::operator::clock::Clock,
}

impl User {
    /// Does everything in order.
    pub async fn live(self, plan: &Plan) {
        for (pause, set) in &plan.sets {
            tokio::time::sleep(*pause).await;
            self.trace.say("user", format_args!("creates {} {}", set["metadata"]["name"], set["spec"]));
            self.create(set);
        }
        for deed in &plan.deeds {
            tokio::time::sleep(deed.pause).await;
            let name = plan.sets[deed.set].1["metadata"]["name"].as_str().unwrap_or_default();
            self.trace.say("user", format_args!("{name}: {:?}", deed.act));
            self.act(name, &deed.act).await;
        }
    }

    fn create(&self, set: &Value) {
        let mut set = set.clone();
        set["metadata"]["generation"] = json!(1);
        self.actor.create(&LISTENER_SETS, ROLLOUT.0, set).expect("a ListenerSet");
    }

    fn set(&self, name: &str) -> Option<Arc<Object>> {
        self.actor.get(&LISTENER_SETS, ROLLOUT.0, name)
    }

    fn edit(&self, name: &str, mut edit: impl FnMut(&mut Value)) {
        let _ = self.actor.edit(&LISTENER_SETS, ROLLOUT.0, name, |set| edit(&mut set["spec"]));
    }

    fn edit_listener(&self, name: &str, which: usize, mut edit: impl FnMut(&mut Value)) {
        self.edit(name, |spec| {
            let listeners = spec["listeners"].as_array_mut().expect("listeners");
            let count = listeners.len();
            if count > 0 {
                edit(&mut listeners[which % count]);
            }
        });
    }

    /// Some object of this kind that is called so.
    fn some(&self, kind: &'static Kind, which: usize, is_it: impl Fn(&str) -> bool) -> Option<Arc<Object>> {
        let all: Vec<_> = self.actor.list(kind, ROLLOUT.0).into_iter().filter(|object| is_it(object.name())).collect();
        let found = (!all.is_empty()).then(|| all[which % all.len()].clone())?;
        self.trace.say("user", format_args!("takes {}", found.name()));
        Some(found)
    }

    async fn act(&self, name: &str, act: &Act) {
        let now = self.clock.now();
        match act {
            Act::Add => self.edit(name, |spec| {
                let listeners = spec["listeners"].as_array_mut().expect("listeners");
                let free = (0..).map(|number| format!("l{number}"));
                let mut free = free.filter(|free| listeners.iter().all(|listener| listener["name"] != **free));
                let free = free.next().unwrap_or_default();
                listeners.push(json!({"name": free}));
            }),
            Act::Remove(which) => self.edit(name, |spec| {
                let listeners = spec["listeners"].as_array_mut().expect("listeners");
                if !listeners.is_empty() {
                    listeners.remove(which % listeners.len());
                }
            }),
            Act::Switch(which) => self.edit_listener(name, *which, |listener| {
                listener["state"] = json!(if listener["state"] == "Stopped" { "Started" } else { "Stopped" });
            }),
            Act::Configure(which) => {
                let second = now.as_second();
                self.edit_listener(name, *which, |listener| listener["config"] = json!({"changed": second}));
            }
            Act::Recover => self.edit(name, |spec| spec["recoverAt"] = json!(now.to_string())),
            Act::Release(which) => self.edit(name, |spec| {
                let listeners = spec["listeners"].as_array().expect("listeners");
                if !listeners.is_empty() {
                    let listener = listeners[which % listeners.len()]["name"].clone();
                    spec["release"] = json!([{"listener": listener, "at": now.to_string()}]);
                }
            }),
            Act::Force(which) => self.edit(name, |spec| {
                let listeners = spec["listeners"].as_array().expect("listeners");
                if !listeners.is_empty() {
                    let listener = listeners[which % listeners.len()]["name"].clone();
                    spec["release"] = json!([{"listener": listener, "at": now.to_string(), "force": true}]);
                }
            }),
            Act::Move(which) => self.move_listener(name, *which),
            Act::Spoil(which, time) => {
                let Some(lease) = self.some(&LEASES, *which, |name| name.starts_with("session.")) else { return };
                let poison = |value: Value| {
                    let _ = self.actor.edit(&LEASES, ROLLOUT.0, lease.name(), |lease| {
                        lease["metadata"]["annotations"]["poison"] = value.clone();
                    });
                };
                poison(json!(7));
                tokio::time::sleep(*time).await;
                poison(json!("none"));
            }
            Act::Recreate(pause) => {
                let Some(before) = self.set(name) else { return };
                let _ = self.actor.delete(&LISTENER_SETS, ROLLOUT.0, name, &DeleteOptions::default());
                tokio::time::sleep(*pause).await;
                self.create(&json!({"metadata": {"name": name}, "spec": before["spec"]}));
            }
            Act::MaxPerPod(most) => self.edit(name, |spec| spec["placement"] = json!({"maxPerPod": most})),
            Act::Budget(budget) => self.edit(name, |spec| {
                spec["startBudget"] = budget
                    .map_or(Value::Null, |(permits, period)| json!({"permits": permits, "periodSeconds": period}));
            }),
            Act::Profile(profile) => self.edit(name, |spec| spec["session"] = json!({"profile": profile})),
            Act::DeleteSession(which) => self.delete_lease(*which, "session."),
            Act::DeleteOwnership(which) => self.delete_lease(*which, "listener."),
            Act::ForceDelete(which) => {
                let Some(pod) = self.some(&PODS, *which, |_| true) else { return };
                let options = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
                let _ = self.actor.delete(&PODS, ROLLOUT.0, pod.name(), &options);
            }
        }
    }

    fn move_listener(&self, from: &str, which: usize) {
        let sets = self.actor.list(&LISTENER_SETS, ROLLOUT.0);
        let Some(to) = sets.iter().find(|set| set.name() != from).map(|set| set.name().to_owned()) else { return };
        let mut moved = Value::Null;
        self.edit(from, |spec| {
            let listeners = spec["listeners"].as_array_mut().expect("listeners");
            if !listeners.is_empty() {
                moved = listeners.remove(which % listeners.len());
            }
        });
        self.edit(&to, |spec| {
            let listeners = spec["listeners"].as_array_mut().expect("listeners");
            if !moved.is_null() && listeners.iter().all(|listener| listener["name"] != moved["name"]) {
                listeners.push(moved.clone());
            }
        });
    }

    fn delete_lease(&self, which: usize, prefix: &str) {
        if let Some(lease) = self.some(&LEASES, which, |name| name.starts_with(prefix)) {
            let _ = self.actor.delete(&LEASES, ROLLOUT.0, lease.name(), &DeleteOptions::default());
        }
    }
}
