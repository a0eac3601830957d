//! What an agent may write of its Leases, and how much of it.
use serde_json::{Value, json};

use super::{
    ANYTHING, belonging, grant,
    hand::{Hand, uid},
    leases::{listener, pod_reference, session},
    make_set, names, stage,
};

/// A time that Go reads and keeps, and that other programs cannot hold.
const NEVER: &str = "9999-12-31T23:59:59.000000Z";

/// F1, F5: an agent writes no time, no length and no number of notes that stops who reads them.
#[tokio::test]
async fn what_an_agent_writes_has_bounds() {
    let namespace = "policy-bounds";
    let cluster = stage(namespace, &["a@bots", "b@bots"]);
    grant(cluster, namespace, "bots", ANYTHING);
    make_set(cluster, namespace);
    let admin = Hand::of(cluster, namespace, None).await;
    let (a, b) = (uid(cluster, namespace, "a"), uid(cluster, namespace, "b"));
    let hand = Hand::of_pod(cluster, namespace, "a").await;
    hand.waits_for_the_policy().await;
    admin.create(&session("a", &a)).await.unwrap();
    belonging(&admin, cluster, namespace, listener("one", Some(("a", &a)))).await;
    let words = "an agent writes holderIdentity of at most 400 characters, acquireTime and renewTime of the years 2000";
    let refused = async |name: &str, words: &str, what: &str, change: &dyn Fn(&mut Value)| {
        hand.refused(name, &admin, what, words, change).await;
    };

    let mine = format!("a/{a}/1-x");
    let long = format!("a/{a}/1-{}", "x".repeat(400));
    refused("session.a", words, "a long name", &|it| names(it, &long, 1)).await;
    for time in [NEVER, "2200-01-01T00:00:00.000000Z", "1999-12-31T23:59:59.999999Z", "0001-02-03T00:00:00.000000Z"] {
        for field in ["acquireTime", "renewTime"] {
            refused("session.a", words, &format!("claim, {field} {time}"), &|it| {
                names(it, &mine, 1);
                it["spec"][field] = json!(time);
            })
            .await;
            refused("listener.bots.one", words, &format!("note {field} {time}"), &|it| it["spec"][field] = json!(time))
                .await;
        }
    }
    hand.done("session.a", &admin, "claim", |it| {
        names(it, &mine, 1);
        it["spec"]["renewTime"] = json!("2000-01-01T00:00:00.000000Z");
    })
    .await;
    refused("session.a", words, "renew for ever", &|it| it["spec"]["renewTime"] = json!(NEVER)).await;
    hand.done("session.a", &admin, "renew", |it| it["spec"]["renewTime"] = json!("2199-12-31T23:59:59.999999Z")).await;

    // The gift: what is given to another is read by that one's agent, and could not be.
    let to_b = format!("b/{b}/1-y");
    let gift = |it: &mut Value| {
        names(it, &to_b, 6);
        it["metadata"]["labels"]["baton.dev/holder"] = json!("4567");
        it["metadata"]["ownerReferences"][1] = pod_reference("b", &b);
    };
    refused("listener.bots.one", words, "give what nobody can read", &|it| {
        gift(it);
        it["spec"]["acquireTime"] = json!(NEVER);
    })
    .await;
    let long = "x".repeat(401);
    refused("listener.bots.one", words, "give to a long name", &|it| names(it, &long, 6)).await;
    let epoch = "leaseDurationSeconds stays";
    refused("listener.bots.one", epoch, "for a while", &|it| it["spec"]["leaseDurationSeconds"] = json!(15)).await;

    let notes = "an agent has at most 256 annotations report.baton.dev/* in its session, each of at most 32768";
    let long = "x".repeat(32_769);
    for note in ["baton.dev/agent", "report.baton.dev/bots"] {
        refused("session.a", notes, note, &|it| it["metadata"]["annotations"][note] = json!(long)).await;
        hand.done("session.a", &admin, note, |it| it["metadata"]["annotations"][note] = json!(&long[1..])).await;
    }
    refused("session.a", notes, "many reports", &|it| {
        for number in 0..256 {
            it["metadata"]["annotations"][format!("report.baton.dev/set-{number}")] = json!("{}");
        }
    })
    .await;
    hand.done("session.a", &admin, "fewer", |it| {
        for number in 0..254 {
            it["metadata"]["annotations"][format!("report.baton.dev/set-{number}")] = json!("{}");
        }
    })
    .await;
}

/// F15: one write of a person does not use up the epochs of a listener, nor of a session.
#[tokio::test]
async fn an_epoch_rises_by_at_most_1000_in_one_write_whoever_writes() {
    let namespace = "policy-epochs";
    let cluster = stage(namespace, &["a@bots"]);
    grant(cluster, namespace, "bots", ANYTHING);
    make_set(cluster, namespace);
    let admin = Hand::of(cluster, namespace, None).await;
    let a = uid(cluster, namespace, "a");
    Hand::of_pod(cluster, namespace, "a").await.waits_for_the_policy().await;
    admin.create(&session("a", &a)).await.unwrap();
    belonging(&admin, cluster, namespace, listener("one", Some(("a", &a)))).await;
    for (name, epoch) in [("session.a", 0), ("listener.bots.one", 5)] {
        for next in [epoch + 1_001, i64::from(i32::MAX)] {
            let words = format!("rises by at most 1000 in one write, not from {epoch} to {next}");
            admin
                .refused(name, &admin, "use up epochs", &words, |it| it["spec"]["leaseTransitions"] = json!(next))
                .await;
        }
        let next = json!(epoch + 1_000);
        admin.done(name, &admin, "raise", |it| it["spec"]["leaseTransitions"] = next.clone()).await;
    }
}
