//! The API server in the process against a real one: the same requests to both, the same answers from both.
//!
//! - [`matrix`]: every kind we touch, every verb we use on it, and every way in which that can go.
//! - [`sequences`]: random requests, each from what the ones before have led to.
//! - [`garbage`]: what becomes of dependents.
//! - [`refusals`]: the words that we read.
//!
//! What is not compared stands in [`not_compared`], each with its reason. Where they differ, the real one is right.
mod garbage;
mod matrix;
mod not_compared;
mod objects;
mod refusals;
mod sequences;
mod side;
mod step;

use std::sync::Arc;

use self::side::Side;
use crate::{
    cluster::api::cluster,
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
        let options = Options::new(1, baton::operator::clock::Clock::system());
        let fake = ApiServer::new(Options { needs_namespaces: true, ..options });
        Arc::new(Self { fake, real: started.client().await })
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
