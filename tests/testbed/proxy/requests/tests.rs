//! A real client, the proxy, and a server that remembers what reached it.
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Config, api::PostParams};
use tokio::time::timeout;
use tower::service_fn;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// A server that creates ConfigMaps, and how many have reached it.
fn server() -> (Client, Arc<AtomicUsize>) {
    let reached = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reached);
    let service = service_fn(move |_: Request<KubeBody>| {
        count.fetch_add(1, Ordering::SeqCst);
        let object = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}"#;
        async move { Ok::<_, kube::Error>(Response::new(KubeBody::from(object.as_bytes().to_vec()))) }
    });
    (Client::new(service, "default"), reached)
}

struct Rig {
    proxy: FaultProxy,
    kills: mpsc::Receiver<Kill>,
    maps: Api<ConfigMap>,
    reached: Arc<AtomicUsize>,
}

async fn rig(point: &str) -> Rig {
    let (upstream, reached) = server();
    let (proxy, kills) = FaultProxy::start(upstream, Some(point.parse().unwrap()), PATIENCE).await.unwrap();
    let mut config = Config::new(format!("http://{}", proxy.address).parse().unwrap());
    config.default_retry = false;
    let maps = Api::default_namespaced(Client::try_from(config).unwrap());
    Rig { proxy, kills, maps, reached }
}

impl Rig {
    async fn create(&self) -> Result<u16> {
        match timeout(PATIENCE, self.maps.create(&PostParams::default(), &ConfigMap::default())).await? {
            Ok(_) => Ok(200),
            Err(kube::Error::Api(status)) => Ok(status.code),
            Err(error) => Err(error.into()),
        }
    }

    fn reached(&self) -> usize {
        self.reached.load(Ordering::SeqCst)
    }

    /// Creates while the wish to be killed is granted; answers how many had reached the server then.
    async fn create_killed(&mut self) -> (Result<u16>, usize) {
        let maps = self.maps.clone();
        let create = tokio::spawn(async move { maps.create(&PostParams::default(), &ConfigMap::default()).await });
        let kill = timeout(PATIENCE, self.kills.recv()).await.unwrap().unwrap();
        let reached = self.reached();
        kill.send(()).unwrap();
        let answer = timeout(PATIENCE, create).await.unwrap().unwrap();
        (answer.map(|_| 200).map_err(Into::into), reached)
    }
}

#[tokio::test]
async fn a_write_is_counted_and_the_others_pass() {
    let rig = rig("3:busy").await;
    let _ = rig.maps.list(&kube::api::ListParams::default()).await;
    assert_eq!([rig.create().await.unwrap(), rig.create().await.unwrap()], [200, 200]);
    assert!(!rig.proxy.has_struck());
    assert_eq!(rig.create().await.unwrap(), 429);
    assert!(rig.proxy.has_struck());
    assert_eq!(rig.create().await.unwrap(), 200);
    assert_eq!(rig.reached(), 1 + 3, "the list, and what was not refused");
    let told: Vec<_> = rig.proxy.writes().into_iter().map(|write| (write.what, write.status)).collect();
    let passed = ("create configmaps".to_owned(), Some(200));
    assert_eq!(told, [passed.clone(), passed.clone(), ("create configmaps".to_owned(), None), passed]);
}

#[tokio::test]
async fn before_nothing_is_sent() {
    let mut rig = rig("2:before").await;
    rig.create().await.unwrap();
    let (answer, reached) = rig.create_killed().await;
    assert!(answer.is_err());
    assert_eq!((reached, rig.reached()), (1, 1));
}

#[tokio::test]
async fn committed_without_an_answer() {
    let mut rig = rig("1:committed").await;
    let (answer, reached) = rig.create_killed().await;
    assert!(answer.is_err());
    assert_eq!(reached, 1, "committed before the kill");
    assert_eq!(rig.proxy.writes()[0].status, Some(200));
    assert_eq!(rig.create().await.unwrap(), 200, "the successor's");
}

#[tokio::test]
async fn after_comes_with_the_answer() {
    let mut rig = rig("1:after").await;
    let (answer, reached) = rig.create_killed().await;
    assert_eq!((answer.unwrap(), reached), (200, 1));
}

#[tokio::test]
async fn a_reset_write_is_not_sent_and_a_lost_one_is() {
    let rig_reset = rig("1:reset").await;
    assert!(rig_reset.create().await.is_err());
    assert_eq!(rig_reset.reached(), 0);

    let rig_lost = rig("1:lost").await;
    let (params, map) = (PostParams::default(), ConfigMap::default());
    let create = rig_lost.maps.create(&params, &map);
    tokio::pin!(create);
    let mut waited = Duration::ZERO;
    while rig_lost.reached() == 0 && waited < PATIENCE {
        assert!(timeout(Duration::from_millis(20), &mut create).await.is_err());
        waited += Duration::from_millis(20);
    }
    assert!(timeout(Duration::from_millis(200), &mut create).await.is_err(), "the answer never comes");
    assert_eq!(rig_lost.reached(), 1);
}
