//! Both servers forget what was: then lists and watches that begin there are answered with 410.
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::ListParams};

use super::{Servers, side::Side};
use crate::{
    cluster::support::{TestCluster, output_of},
    fake_apiserver::store::Store,
};

/// POST of a body to a path of etcd, which listens inside the cluster only; without a client that a machine may not have.
const POST: &str = r#"
exec 3<>/dev/tcp/127.0.0.1/2379 || exit
printf 'POST %s HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' "$1" "${#2}" "$2" >&3
cat <&3
"#;

impl Servers {
    /// Makes both forget everything before now. `sides` go on with it.
    pub async fn compact<'a>(&mut self, cluster: &TestCluster, sides: impl Iterator<Item = &'a mut Side>) {
        // Whatever was answered so far is older than this.
        self.sides("compacted").await;
        self.fake.compact(self.fake.look(Store::revision));
        let namespaces = Api::<Namespace>::all(self.real.clone()).list(&ListParams::default().limit(1)).await;
        let revision = namespaces.expect("a list").metadata.resource_version.expect("its version");
        tokio::task::block_in_place(|| {
            let body = format!(r#"{{"revision": {revision}, "physical": true}}"#);
            let told = output_of(cluster.enter("bash").args(["-c", POST, "bash", "/v3/kv/compaction", &body]));
            assert!(told.starts_with("HTTP/1.1 200"), "{told}");
            // Its watch caches remember for themselves what etcd forgot: they end with the process.
            cluster.restart_api_server(&["--kill"]);
        });
        self.real = cluster.client().await;
        for side in sides.filter(|side| side.name == "real") {
            side.client = self.real.clone();
        }
    }
}
