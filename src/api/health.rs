//! What each instance is asked before it goes into service.
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Checks of each instance, before it goes into service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// How often the checks of an instance are made, 1 to 100. If the last attempt fails too, the instance has failed.
    #[serde(default = "defaults::attempts")]
    #[schemars(range(min = 1, max = 100))]
    pub attempts: i32,
    /// Seconds from one attempt to the next, 1 to 300.
    #[serde(default = "defaults::period_seconds")]
    #[schemars(range(min = 1, max = 300))]
    pub period_seconds: i32,
    /// How many seconds one check may take, 1 to 30.
    #[serde(default = "defaults::timeout_seconds")]
    #[schemars(range(min = 1, max = 30))]
    pub timeout_seconds: i32,
    /// The checks, 1 to 8. An attempt succeeds if all of them pass.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub checks: Vec<Check>,
}

/// One question to an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.httpGet) != has(self.tcpSocket)")
        .message("checks[]: exactly one of httpGet and tcpSocket says what is asked; set one, remove the other")
)]
pub struct Check {
    /// Name of the check: a DNS label of at most 32 characters, once in the list.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("checks[].name must be a DNS label of at most 32 characters, such as api"))]
    pub name: String,
    /// GET of a path. Passes with any status from 200 to 299. A redirect is not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGet>,
    /// A TCP connection. Passes once it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpSocket>,
}

/// A path and a port of each Pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpGet {
    /// Path of the request, such as /healthz. It may have a query.
    #[schemars(length(min = 1, max = 1_024))]
    #[x_kube(validation = Rule::new("self.matches('^/[-A-Za-z0-9._~!$&()*+,;=:@%/?]*$')").message("httpGet.path must begin with / and have only characters that a URL may have, such as /healthz"))]
    pub path: String,
    /// Port number on the Pod's own IP address.
    #[schemars(range(min = 1, max = 65_535), extend("format" = "int32"))]
    pub port: u16,
}

/// A port of each Pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpSocket {
    /// Port number on the Pod's own IP address.
    #[schemars(range(min = 1, max = 65_535), extend("format" = "int32"))]
    pub port: u16,
}

mod defaults {
    pub(super) fn attempts() -> i32 {
        10
    }
    pub(super) fn period_seconds() -> i32 {
        2
    }
    pub(super) fn timeout_seconds() -> i32 {
        5
    }
}
