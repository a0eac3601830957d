//! How one instance comes to another version.
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How one instance comes to another version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpdateMethod {
    /// Another Pod takes its place.
    #[default]
    Replace,
    /// Its Pod stays and is given other images, CPU and memory, labels and annotations; where a container starts anew for that, at
    /// most maxUnavailable (at least one) at a time and without surge Pods. Where anything else differs, where its node has no
    /// room for that, or with maxUnavailable 0, another Pod takes its place.
    InPlaceIfPossible,
    /// The same; where anything else differs, nothing moves forward.
    InPlaceOnly,
    /// Its Pod stays and serves on, is given other labels and annotations, and its application is told as hotReload says. Where
    /// anything else differs, another Pod takes its place.
    HotReload,
}

impl UpdateMethod {
    /// Pods may be changed as they are.
    pub fn is_in_place(self) -> bool {
        self != Self::Replace
    }

    /// Containers of Pods may be started anew: these leave service meanwhile, by their readiness gate.
    pub fn restarts(self) -> bool {
        matches!(self, Self::InPlaceIfPossible | Self::InPlaceOnly)
    }

    /// Applications reload what their Pods are given.
    pub fn reloads(self) -> bool {
        self == Self::HotReload
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How applications are told that their Pods' labels and annotations are others now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HotReload {
    /// The request to each application: a POST with version and revision as JSON in the body. Baton repeats it until
    /// the application answers 200.
    pub http_post: HttpPost,
    /// How many seconds an application has to answer 200, counted from when its Pod got the new labels and annotations.
    /// After that the instance has failed. The kubelet takes up to two minutes to write them into a volume.
    #[serde(default = "timeout_seconds")]
    #[schemars(range(min = 1, max = 3_600))]
    pub timeout_seconds: i32,
}

/// An HTTP address in each Pod: the Pod's own IP address, and these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpPost {
    /// Path of the request, such as /reload. It may have a query.
    #[schemars(length(min = 1, max = 1_024))]
    #[x_kube(validation = Rule::new("self.matches('^/[-A-Za-z0-9._~!$&()*+,;=:@%/?]*$')").message("httpPost.path must begin with / and have only characters that a URL may have, such as /reload"))]
    pub path: String,
    /// Port number on the Pod's own IP address.
    #[schemars(range(min = 1, max = 65_535), extend("format" = "int32"))]
    pub port: u16,
}

fn timeout_seconds() -> i32 {
    180
}
