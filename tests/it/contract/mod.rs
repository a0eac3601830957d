//! The API server in the process against a real one: the same requests to both, the same answers from both.
//!
//! - [`matrix`]: every kind we touch, every verb we use on it, and every way in which that can go.
//! - [`sequences`]: random requests, each from what the ones before have led to.
//! - [`compaction`]: what either forgets.
//! - [`garbage`]: what becomes of dependents.
//! - [`in_place`]: a Pod that is given another image.
//! - [`resize`]: one that is given other resources.
//! - [`refusals`]: the words that we read.
//!
//! What is not compared stands in [`not_compared`], each with its reason. Where they differ, the real one is right.
mod compaction;
mod garbage;
mod in_place;
mod matrix;
mod not_compared;
mod objects;
mod refusals;
mod resize;
mod sequences;
mod side;
mod step;

use std::sync::Arc;

use self::side::Side;
use crate::{
    cluster::{
        api::{cluster, install_crds},
        support::TestCluster,
    },
    fake_apiserver::{ApiServer, Options},
};

/// Both servers, with clients of their own.
struct Servers {
    fake: ApiServer,
    real: kube::Client,
}

impl Servers {
    async fn start() -> Arc<Self> {
        let started = tokio::task::spawn_blocking(cluster).await.expect("the cluster starts");
        Arc::new(Self { fake: fake(), real: started.client().await })
    }

    /// The real one in a cluster of its own, for what others would suffer from.
    async fn start_apart(name: &'static str) -> (Self, TestCluster) {
        let start = move || {
            let cluster = TestCluster::start(name, "kwok:1");
            install_crds(&cluster);
            cluster
        };
        let cluster = tokio::task::spawn_blocking(start).await.expect("the cluster starts");
        (Self { fake: fake(), real: cluster.client().await }, cluster)
    }

    /// The fake and the real one, each with a new namespace of this name.
    async fn sides(&self, namespace: &str) -> [Side; 2] {
        let fake = Side::new("fake", self.fake.client("contract"), namespace);
        let real = Side::new("real", self.real.clone(), namespace);
        fake.make_namespace().await;
        real.make_namespace().await;
        [fake, real]
    }
}

fn fake() -> ApiServer {
    let options = Options::new(1, baton::operator::clock::Clock::system());
    ApiServer::new(Options { needs_namespaces: true, ..options })
}
