//! What kubelets say of Pods, reduced to what is read of it, with times that saturate (see [`super::time`]).
use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
        PodCondition, ResourceRequirements,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde::{Deserialize, Deserializer};

use super::time;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    #[serde(deserialize_with = "time::time")]
    last_transition_time: Option<Time>,
    message: Option<String>,
    observed_generation: Option<i64>,
    reason: Option<String>,
    status: Option<String>,
    r#type: Option<String>,
}

impl From<Condition> for PodCondition {
    fn from(told: Condition) -> Self {
        Self {
            last_probe_time: None,
            last_transition_time: told.last_transition_time,
            message: told.message,
            observed_generation: told.observed_generation,
            reason: told.reason,
            status: told.status.unwrap_or_default(),
            type_: told.r#type.unwrap_or_default(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    image: Option<String>,
    #[serde(rename = "imageID")]
    image_id: Option<String>,
    last_state: Option<State>,
    name: Option<String>,
    ready: Option<bool>,
    resources: Option<ResourceRequirements>,
    restart_count: Option<i32>,
    state: Option<State>,
}

impl From<Status> for ContainerStatus {
    fn from(told: Status) -> Self {
        Self {
            container_id: told.container_id,
            image: told.image.unwrap_or_default(),
            image_id: told.image_id.unwrap_or_default(),
            last_state: told.last_state.map(ContainerState::from),
            name: told.name.unwrap_or_default(),
            ready: told.ready.unwrap_or_default(),
            resources: told.resources,
            restart_count: told.restart_count.unwrap_or_default(),
            state: told.state.map(ContainerState::from),
            ..Self::default()
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct State {
    running: Option<Running>,
    terminated: Option<Terminated>,
    waiting: Option<ContainerStateWaiting>,
}

impl From<State> for ContainerState {
    fn from(State { running, terminated, waiting }: State) -> Self {
        let running = running.map(|told| ContainerStateRunning { started_at: told.started_at });
        let terminated = terminated.map(|told| ContainerStateTerminated {
            container_id: told.container_id,
            exit_code: told.exit_code.unwrap_or_default(),
            finished_at: told.finished_at,
            message: told.message,
            reason: told.reason,
            signal: None,
            started_at: told.started_at,
        });
        Self { running, terminated, waiting }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Running {
    #[serde(deserialize_with = "time::time")]
    started_at: Option<Time>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    exit_code: Option<i32>,
    #[serde(deserialize_with = "time::time")]
    finished_at: Option<Time>,
    message: Option<String>,
    reason: Option<String>,
    #[serde(deserialize_with = "time::time")]
    started_at: Option<Time>,
}

/// For `deserialize_with`.
pub fn conditions<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PodCondition>, D::Error> {
    list::<Condition, _, D>(from)
}

/// For `deserialize_with`.
pub fn containers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ContainerStatus>, D::Error> {
    list::<Status, _, D>(from)
}

fn list<'de, T: Deserialize<'de> + Into<U>, U, D: Deserializer<'de>>(from: D) -> Result<Vec<U>, D::Error> {
    let told = Option::<Vec<T>>::deserialize(from)?;
    Ok(told.into_iter().flatten().map(T::into).collect())
}
