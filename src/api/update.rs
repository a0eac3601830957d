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
    /// Where each application is told, with version and revision in the body as JSON: again and again until it answers 200.
    pub http_post: HttpPost,
    /// An instance whose application has not answered 200 so long after its Pod was given the labels and annotations has
    /// failed. The kubelet takes up to two minutes to write them into a volume.
    #[serde(default = "timeout_seconds")]
    #[schemars(range(min = 1, max = 3_600))]
    pub timeout_seconds: i32,
}

/// An HTTP address in each Pod: the Pod's own IP address, and these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpPost {
    /// Path, with a query if need be.
    #[schemars(length(min = 1, max = 1_024))]
    #[x_kube(validation = Rule::new("self.matches('^/[-A-Za-z0-9._~!$&()*+,;=:@%/?]*$')").message("spec.strategy.hotReload.httpPost.path must begin with / and be as it stands in a request, such as /reload"))]
    pub path: String,
    /// Number of the port.
    #[schemars(range(min = 1, max = 65_535), extend("format" = "int32"))]
    pub port: u16,
}

fn timeout_seconds() -> i32 {
    180
}
