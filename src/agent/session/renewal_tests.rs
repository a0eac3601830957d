//! Renewals against a scripted API server, in tokio's paused time.
use std::sync::{
    Mutex,
    atomic::{AtomicI64, AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tokio::time::{self, Instant};

use super::*;
use crate::{
    agent::boottime::Reading,
    plan::listener_set::session::fixture::holder,
    scripted::{Answer, Call, client},
};

/// The session Lease of Pod `a`, whose boot 1 holds it.
fn lease(version: usize) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": "session.a", "namespace": "shop", "uid": "uid-lease", "resourceVersion": version.to_string(),
            "labels": {names::LABEL_LEASE: names::LEASE_SESSION},
            "annotations": {names::ANNOTATION_PROFILE: "Default"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "uid-a"}],
        },
        "spec": {
            "holderIdentity": holder("a", 1).to_string(), "leaseTransitions": 1, "leaseDurationSeconds": 15,
            "renewTime": "2026-01-01T00:00:00.000000Z", "acquireTime": "2026-01-01T00:00:00.000000Z",
        },
    })
}

/// What becomes of a session whose renewals are answered so, and how many connections it makes.
struct Rig {
    told: watch::Receiver<Told>,
    connections: Arc<AtomicUsize>,
    /// Milliseconds by which the wall clock was set.
    set_by: Arc<AtomicI64>,
    began: Instant,
    _sender: mpsc::UnboundedSender<Event<Lease>>,
    _outbox: watch::Sender<Outbox>,
}

impl Rig {
    async fn new(answer: impl Fn(usize, Call) -> Answer + Send + Sync + 'static) -> Self {
        let began = Instant::now();
        let set_by = Arc::new(AtomicI64::new(0));
        let millis = set_by.clone();
        let day = move || {
            let set_by = SignedDuration::from_millis(millis.load(Ordering::Relaxed));
            Timestamp::UNIX_EPOCH + SignedDuration::try_from(began.elapsed()).unwrap() + set_by
        };
        let clocks = Clocks::given(move || Boottime(began.elapsed() + Duration::from_secs(100)), day);
        let number = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(move |call: Call| answer(number.fetch_add(1, Ordering::Relaxed), call));
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let connect: Connect = Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            let answer = answer.clone();
            Ok(client(move |call| answer(call)))
        });
        let claimant = Claimant {
            connect,
            clocks,
            namespace: "shop".into(),
            name: holder("a", 1),
            first: Outbox::default(),
            began: Reading { boot: Boottime(Duration::from_secs(100)), wall: Duration::ZERO },
        };
        let (sender, mut events) = mpsc::unbounded_channel();
        let found = serde_json::from_value(lease(1)).unwrap();
        sender.send(Event::Applied(found)).unwrap();
        let renewals = claimant.claim(&mut events, false).await.unwrap();
        let outbox = watch::Sender::new(Outbox::default());
        let (told, said) = (renewals.subscribe(), outbox.subscribe());
        tokio::spawn(renewals.keep(events, said));
        Self { told, connections, set_by, began, _sender: sender, _outbox: outbox }
    }

    /// Whether listeners may have run without a break for so long, from the first answer on, which comes within a minute.
    async fn runs_for(&mut self, wait: Duration) -> bool {
        let begins = self.told.wait_for(|told| told.deadlines != Deadlines::default());
        if time::timeout(Duration::from_mins(1), begins).await.is_err() {
            return false;
        }
        let end = Instant::now() + wait;
        while Instant::now() < end {
            let now = Boottime(self.began.elapsed() + Duration::from_secs(100));
            if self.told.borrow().deadlines.stop <= now {
                return false;
            }
            time::sleep(Duration::from_millis(100)).await;
        }
        true
    }
}

const MINUTES: Duration = Duration::from_mins(5);

/// H3: an API server that is slow is not away.
#[tokio::test(start_paused = true)]
async fn late_answers_count() {
    for late in [2_200, 5_000, 6_500] {
        let mut rig = Rig::new(move |number, _| Answer::Late(Duration::from_millis(late), lease(number + 2))).await;
        assert!(rig.runs_for(MINUTES).await, "{late} ms");
        assert_eq!(rig.connections.load(Ordering::Relaxed), 1, "{late} ms");
    }
    let mut rig = Rig::new(|number, _| Answer::Late(Duration::from_millis(10_100), lease(number + 2))).await;
    assert!(!rig.runs_for(MINUTES).await, "an answer after S says nothing");
}

/// H3: one call that hangs delays no other.
#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_overtaken() {
    let mut rig = Rig::new(|number, _| {
        let is_lost = number % 3 != 0;
        if is_lost { Answer::Never } else { Answer::ok(lease(number + 2)) }
    })
    .await;
    assert!(rig.runs_for(MINUTES).await, "every third renewal is answered at once");
}

/// H3: who says that it has too much to do is not given a TLS handshake on top.
#[tokio::test(start_paused = true)]
async fn a_refusal_costs_no_connection() {
    let refused = Arc::new(Mutex::new(Vec::new()));
    let times = refused.clone();
    let mut rig = Rig::new(move |number, _| {
        if number % 2 == 0 {
            return Answer::ok(lease(number + 2));
        }
        times.lock().unwrap().push(number);
        Answer::failure(429, "TooManyRequests", "try later")
    })
    .await;
    assert!(rig.runs_for(MINUTES).await);
    assert!(refused.lock().unwrap().len() > 50);
    assert_eq!(rig.connections.load(Ordering::Relaxed), 1);
}

/// H2: a clock that is set a little, or back, or by a leap second, stops nothing; one that has missed what others counted does.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_goes_ahead_takes_as_much_off_the_deadlines() {
    for (millis, runs) in [(1_000, true), (1_900, true), (4_000, true), (-3_600_000, true), (20_000, false)] {
        let mut rig = Rig::new(|number, _| Answer::Late(Duration::from_millis(300), lease(number + 2))).await;
        assert!(rig.runs_for(Duration::from_secs(20)).await);
        // Right after a renewal, of which 10 s are left, so that the next one is 3 s away.
        let before = rig.told.borrow().silent_from;
        rig.told.wait_for(|told| told.silent_from > before).await.unwrap();
        rig.set_by.store(millis, Ordering::Relaxed);
        assert_eq!(rig.runs_for(Duration::from_secs(20)).await, runs, "{millis} ms");
        time::sleep(Duration::from_secs(1)).await;
        assert!(rig.runs_for(Duration::from_secs(20)).await, "renewed");
    }
}

/// H8: where nothing tells what an earlier boot has begun, it is outlived: the session shows that there was one.
#[tokio::test(start_paused = true)]
async fn an_agent_without_a_record_outlives_the_boot_before() {
    for (boots, lacks_record, waits) in [(1, true, 62), (1, false, 0), (0, true, 0)] {
        let began = Instant::now();
        let clock = move || Boottime(began.elapsed() + Duration::from_secs(100));
        let clocks = Clocks::given(clock, || Timestamp::UNIX_EPOCH);
        let claimant = Claimant {
            connect: Arc::new(|| Ok(client(|_| Answer::ok(lease(2))))),
            clocks,
            namespace: "shop".into(),
            name: Holder { random: "ffffffff".into(), ..holder("a", 1) },
            first: Outbox::default(),
            began: Reading { boot: clock(), wall: Duration::ZERO },
        };
        let mut found = lease(1);
        found["spec"]["leaseTransitions"] = json!(boots);
        if boots == 0 {
            found["spec"]["holderIdentity"] = Value::Null;
        }
        let (sender, mut events) = mpsc::unbounded_channel();
        sender.send(Event::Applied(serde_json::from_value(found).unwrap())).unwrap();
        let renewals = claimant.claim(&mut events, lacks_record).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), waits, "{boots} earlier boots, lacks its record: {lacks_record}");
        assert_eq!(renewals.predecessor().cloned(), (boots == 1).then(|| holder("a", 1)));
    }
}
