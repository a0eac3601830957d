//! Agents that Baton puts into Pods, and what their Pods say of themselves.
use std::{collections::BTreeSet, time::Duration};

use baton::api::{ConditionType, Rollout};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};

use super::stage::Listeners;
use crate::cluster::plugin::baton;

/// Pods whose image is asked for nothing but its own program.
fn installed() -> Value {
    let container = json!({"command": ["/baton/baton-agent", "exec", "--", "/image/listener"]});
    json!({"metadata": {"annotations": {"baton.dev/agent": "install"}}, "container": container})
}

impl Listeners {
    /// Applies the Rollout `web` of Pods into which the agent is put.
    pub async fn roll_installed(&self, version: &str) {
        self.roll_installed_as(version, |_| {}).await;
    }

    /// The same with another template.
    pub async fn roll_installed_as(&self, version: &str, change: impl FnOnce(&mut Value)) {
        let asked = installed();
        let strategy = json!({"batchSize": 2, "maxSurge": 2, "maxUnavailable": 0});
        let spec = json!({"replicas": 2, "strategy": strategy});
        self.roll_as(version, spec, |template| {
            template["metadata"]["annotations"] = asked["metadata"]["annotations"].clone();
            let container = &mut template["spec"]["containers"][0];
            container["command"] = asked["container"]["command"].clone();
            container.as_object_mut().unwrap().remove("volumeMounts");
            template["spec"].as_object_mut().unwrap().remove("volumes");
            change(template);
        })
        .await;
    }

    fn plugin(&self, args: &[&str]) -> String {
        let args = [args, &["-n", &self.stage.namespace]].concat();
        let output = tokio::task::block_in_place(|| baton(self.stage.cluster, &args, ""));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// What Pods have said of being drained, until this is dropped.
async fn watch_drained(pods: Api<Pod>, mut stop: tokio::sync::oneshot::Receiver<()>) -> BTreeSet<(String, String)> {
    let mut said = BTreeSet::new();
    while stop.try_recv().is_err() {
        for pod in pods.list(&ListParams::default()).await.unwrap().items {
            let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
            let drained = conditions.into_iter().find(|condition| condition.type_ == "baton.dev/drained");
            said.extend(drained.map(|it| (it.status, it.message.unwrap_or_default())));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    said
}

/// A2, A15: any image will do; the agent comes from the operator's, which must name one.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_installed_runs_listeners() {
    let mut listeners = Listeners::new("agent-installed").await;
    listeners.roll_installed("1").await;
    let refused = |rollout: &Rollout| {
        let status = rollout.status.clone().unwrap_or_default();
        let valid = status.conditions.into_iter().find(|condition| condition.type_ == ConditionType::TemplateValid);
        valid.filter(|valid| valid.reason == "Refused").map(|valid| valid.message)
    };
    let held = listeners.stage.until(30, "the template is refused", |rollout| refused(rollout).is_some()).await;
    assert!(refused(&held).unwrap().contains("start it with --agent-image"), "{:?}", refused(&held));
    assert!(listeners.stage.live().await.is_empty());

    listeners.stage.kill_operator();
    listeners.stage.operator_args = vec!["--agent-image=example.local/baton-agent:1".into()];
    listeners.stage.start_operator();
    listeners.listen(4, json!({})).await;
    listeners.running(90, 4).await;
    listeners.flows(10, "feed-0").await;

    let shown = listeners.plugin(&["get", "listenerset", "bots"]);
    println!("{shown}");
    for (pod, name) in listeners.holders().await.into_iter().map(|(name, pod)| (pod, name)) {
        let at = shown.find(&format!("□ {pod} ")).unwrap_or_else(|| panic!("no {pod}: {shown}"));
        assert!(shown[at..].contains(&format!("○ {name} ")), "{name} is below {pod}: {shown}");
    }
    assert_eq!(shown.matches("✔ Running").count(), 4, "{shown}");
    assert!(shown.contains("✔ Complete   4 listeners on 2 Pods") && shown.contains("4/4"), "{shown}");
    assert!(shown.contains("Warning:    GraceTooShort: "), "30 s of grace: {shown}");

    // Pods that leave say what they have, and those that stay nothing.
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let drained = tokio::spawn(watch_drained(listeners.stage.pods(), stopped));
    listeners.roll_installed("2").await;
    listeners.stage.complete(120).await;
    listeners.running(30, 4).await;
    stop.send(()).unwrap();
    let said = drained.await.unwrap();
    println!("drained: {said:?}");
    assert!(said.contains(&("False".to_owned(), "2 of bots".to_owned())), "{said:?}");
    println!("{}", listeners.plugin(&["get", "bls/bots"]));
    listeners.judge(4, false);
}
