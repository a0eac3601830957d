use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::*;
use crate::{
    api::rollout::{HotReload, HttpPost},
    apply::tests::snapshot as bare,
    snapshot::{InPlace, in_place::Reload},
};

/// So many Pods whose applications are to be told.
fn snapshot(pods: usize) -> Snapshot {
    let mut snapshot = bare();
    let http_post = HttpPost { path: "/reload".into(), port: 8080 };
    snapshot.rollout.spec.strategy.hot_reload = Some(HotReload { http_post, timeout_seconds: 180 });
    let pod = Pod {
        in_place: Some(InPlace {
            at: snapshot.now,
            containers: [].into(),
            resources: [].into(),
            reload: Some(Reload::default()),
        }),
        ip: Some("10.0.0.7".into()),
        ..(*snapshot.pods[0]).clone()
    };
    snapshot.pods = (0..pods).map(|number| Arc::new(Pod { uid: format!("p{number}"), ..pod.clone() })).collect();
    snapshot
}

fn key() -> ObjectKey {
    ObjectKey { namespace: "shop".into(), name: "web".into() }
}

fn open() -> Fence {
    let fence = Fence::closed();
    fence.extend(fence.now() + Duration::from_hours(1));
    fence
}

/// Tells all, and waits until each call has ended: what is known then.
async fn told(fence: Fence, post: Post, snapshot: &Snapshot) -> Vec<Telling> {
    let ended = Arc::new(Semaphore::new(0));
    let counts = ended.clone();
    let applications = Applications::new(fence, post, Arc::new(move |_| counts.add_permits(1)));
    for pod in &snapshot.pods {
        assert!(matches!(applications.tell(snapshot, &pod.uid), Applied::Done { .. }));
    }
    assert!(applications.told(&key(), &snapshot.pods).values().all(|telling| telling.is_on));
    drop(ended.acquire_many(snapshot.pods.len() as u32).await);
    applications.told(&key(), &snapshot.pods).into_values().collect()
}

fn answering(answer: Result<(), String>) -> Post {
    Arc::new(move |_, _, _| Box::pin(std::future::ready(answer.clone())))
}

#[tokio::test(start_paused = true)]
async fn so_many_are_called_at_once_and_no_more() {
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let post: Post = Arc::new(|_, _, _| {
        Box::pin(async {
            MOST.fetch_max(NOW.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(5)).await;
            NOW.fetch_sub(1, Ordering::Relaxed);
            Ok(())
        })
    });
    let told = told(open(), post, &snapshot(100)).await;
    assert_eq!((told.len(), MOST.load(Ordering::Relaxed)), (100, CALLS_MAX));
    assert!(told.iter().all(|telling| !telling.is_on));
    let (called, waited): (Vec<_>, Vec<_>) = told.iter().partition(|telling| telling.tries == 1);
    assert!(called.iter().all(|telling| telling.answer == Some(Ok(()))));
    // F13: a later look calls these where their Pods are by then.
    assert_eq!((called.len(), waited.iter().all(|telling| telling.answer.is_none())), (CALLS_MAX, true));
}

/// The successor tells it.
#[tokio::test(start_paused = true)]
async fn without_the_lock_nobody_is_called() {
    let told = told(Fence::closed(), answering(Ok(())), &snapshot(1)).await;
    assert_eq!((told[0].is_on, told[0].tries, &told[0].answer), (false, 0, &None));
}

/// F13
#[tokio::test(start_paused = true)]
async fn only_an_address_of_its_own_is_called() {
    let cases = [
        (Some("10.0.0.7"), false, Ok(())),
        (Some("fd00::7"), false, Ok(())),
        (None, false, Err("the Pod has no address yet")),
        (Some("10.0.0.7"), true, Err("the Pod is on its node's network")),
        (Some("127.0.0.1"), false, Err("\"127.0.0.1\" is no address of a Pod")),
        (Some("::1"), false, Err("\"::1\" is no address of a Pod")),
        (Some("169.254.169.254"), false, Err("\"169.254.169.254\" is no address of a Pod")),
        (Some("::ffff:169.254.169.254"), false, Err("\"::ffff:169.254.169.254\" is no address of a Pod")),
        (Some("0.0.0.0"), false, Err("\"0.0.0.0\" is no address of a Pod")),
        (Some("0.1.2.3"), false, Err("\"0.1.2.3\" is no address of a Pod")),
        (Some("255.255.255.255"), false, Err("\"255.255.255.255\" is no address of a Pod")),
        (Some("240.0.0.1"), false, Err("\"240.0.0.1\" is no address of a Pod")),
        (Some("168.63.129.16"), false, Err("\"168.63.129.16\" is no address of a Pod")),
        (Some("100.100.100.200"), false, Err("\"100.100.100.200\" is no address of a Pod")),
        (Some("100.100.100.201"), false, Ok(())),
        (Some("64:ff9b::a9fe:a9fe"), false, Err("\"64:ff9b::a9fe:a9fe\" is no address of a Pod")),
        (Some("64:ff9b:1::7"), false, Err("\"64:ff9b:1::7\" is no address of a Pod")),
        (Some("fd00:ec2::254"), false, Err("\"fd00:ec2::254\" is no address of a Pod")),
        (Some("fe80::1"), false, Err("\"fe80::1\" is no address of a Pod")),
        (Some("ff02::1"), false, Err("\"ff02::1\" is no address of a Pod")),
        (Some("web.shop.svc"), false, Err("\"web.shop.svc\" is no address of a Pod")),
    ];
    for (ip, on_host_network, expected) in cases {
        let mut snapshot = snapshot(1);
        let pod = snapshot.pod_mut(0);
        (pod.ip, pod.on_host_network) = (ip.map(str::to_owned), on_host_network);
        let told = told(open(), answering(Ok(())), &snapshot).await;
        assert_eq!(told[0].answer, Some(expected.map_err(str::to_owned)), "{ip:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_answer() {
    let post: Post = Arc::new(|to, _, _| {
        assert_eq!(to.port(), 1, "a bug");
        Box::pin(std::future::ready(Ok(())))
    });
    let told = told(open(), post, &snapshot(1)).await;
    assert!(matches!(&told[0].answer, Some(Err(message)) if message.contains("panic")), "{:?}", told[0].answer);
}

/// What was answered about another change, or is of another Pod, says nothing.
#[tokio::test(start_paused = true)]
async fn what_is_over_is_forgotten() {
    let ended = Arc::new(Semaphore::new(0));
    let counts = ended.clone();
    let on_answer: OnAnswer = Arc::new(move |_| counts.add_permits(1));
    let applications = Applications::new(open(), answering(Ok(())), on_answer);
    let mut snapshot = snapshot(1);
    applications.tell(&snapshot, "p0");
    snapshot.now += jiff::SignedDuration::from_secs(1);
    let later = snapshot.now;
    snapshot.pod_mut(0).in_place.as_mut().unwrap().at = later;
    applications.begin(&key(), "p0", later, later);
    drop(ended.acquire().await);
    assert_eq!(applications.told(&key(), &snapshot.pods)["p0"].answer, None, "a late answer");
    snapshot.pod_mut(0).in_place = None;
    assert!(applications.told(&key(), &snapshot.pods).is_empty());
    assert!(applications.lock().is_empty());
    assert_eq!(applications.tell(&snapshot, "p0"), Applied::Stale);
}
