//! A change in place: what a Pod remembers of its containers as they were before, and from when on each is known to run what
//! it was given.
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::names;

/// Grace period of a Pod that does not say one.
pub(super) const GRACE_SECONDS: i64 = 30;
/// What a container requests and is limited to: quantities by resource, by `requests` or `limits`, as a patch says it. None:
/// nothing.
pub type Amounts = BTreeMap<String, BTreeMap<String, Option<String>>>;

/// What the annotation [`crate::api::names::ANNOTATION_IN_PLACE`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InPlace {
    /// When the Pod was patched, by the operator's clock.
    pub at: Timestamp,
    /// By name: containers that had restarted before, and those that are started anew by the change.
    #[serde(default)]
    pub containers: BTreeMap<String, Before>,
    /// By name of the container: resources that it is given, until it is known to have them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, Amounts>,
    /// Its application is to reload what it was given (`update: HotReload`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<Reload>,
}

/// What has become of a change in place that an application is to reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// When it was written down that the application has answered that it has; None: it is to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<Timestamp>,
}

/// A container as it was before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// restartCount.
    #[serde(default)]
    pub restarts: i32,
    /// What ran, where it was given another image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<Ran>,
    /// It is started anew by other resources.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resized: bool,
}

/// What ran in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// containerID; empty where nothing ran.
    pub id: String,
    /// Its image, as the Pod's spec called it.
    pub image: String,
    /// imageID; None where the container after it may be of a third image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
}

impl InPlace {
    /// What a Pod's annotation says. One that does not parse is none.
    pub(super) fn read(annotations: Option<&BTreeMap<String, String>>) -> Option<Self> {
        serde_json::from_str(annotations?.get(names::ANNOTATION_IN_PLACE)?).ok()
    }

    /// Some container is started anew.
    pub fn restarts(&self) -> bool {
        self.containers.values().any(|before| before.ran.is_some() || before.resized)
    }

    /// Other resources start some container anew.
    pub fn is_resized_anew(&self) -> bool {
        self.containers.values().any(|before| before.resized)
    }
}
