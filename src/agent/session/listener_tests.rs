use serde_json::json;

use super::*;
use crate::{agent::exec::Proof, plan::listener_set::session::fixture::holder};

fn second(second: u64) -> Boottime {
    Boottime(Duration::from_secs(second))
}

fn after_first_pause(ended: u64) -> Boottime {
    second(ended).after(Duration::from_millis(250))
}

fn wall() -> Timestamp {
    "2026-01-01T10:00:01Z".parse().unwrap()
}

/// Of Pod `a` with epoch 5, seen at version 9.
fn lease() -> ListenerLease {
    let identity = holder("a", 1).to_string();
    let settings = r#"{"config":{"k":1},"useProxy":true,"connectTimeoutSeconds":3,"startTimeoutSeconds":4,
        "stopTimeoutSeconds":5,"checkpointSeconds":6}"#;
    let lease = json!({
        "metadata": {
            "name": "listener.bots.one", "uid": "uid-one", "resourceVersion": "9", "labels": {"baton.dev/lease": "listener"},
            "ownerReferences": [{"apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "name": "bots", "uid": "uid-set",
                "controller": true}],
            "annotations": {
                "baton.dev/listener": "one", "baton.dev/config": settings, "baton.dev/config-hash": "c1", "baton.dev/state": "7",
            },
        },
        "spec": {"holderIdentity": identity, "leaseTransitions": 5},
    });
    ListenerLease::read(&serde_json::from_value(lease).unwrap()).unwrap()
}

fn running() -> Listener {
    let mut listener = Listener::new(lease(), 1);
    listener.started(second(100), true);
    listener
}

fn end(cause: Cause) -> Ended {
    Ended { cause, exit: Some(Exit::Code(3)), proof: Proof::Guard }
}

/// A8, A9: what a listener is told.
#[test]
fn a_task_says_what_the_lease_says() {
    let task = Listener::new(lease(), 1).task().unwrap();
    assert_eq!((task.listener.as_str(), task.config.as_str()), ("one", r#"{"k":1}"#));
    assert_eq!((task.fence_token.as_str(), task.resume.as_deref()), ("uid-set-9", Some("7")));
    assert_eq!((task.connect_timeout_seconds, task.use_proxy), (3, true));
}

/// A11, L2
#[test]
fn what_ends_by_itself_rests_and_its_epoch_is_spent() {
    let mut listener = running();
    listener.ended(end(Cause::Exited), second(110), wall());
    assert_eq!((&listener.unit.runs, listener.unit.tombstone), (&Runs::Nothing, 5));
    assert_eq!((listener.unit.rests_until, listener.backoff.failures()), (after_first_pause(110), 1));
    assert_eq!(listener.trouble, Some(Trouble::new("Exited", "it has ended with exit code 3")));
    assert_eq!(listener.legacy(), (None, Stopped::At(wall())));
}

#[test]
fn what_was_asked_to_end_or_came_too_late_has_not_failed() {
    let mut asked = running();
    asked.unit.runs = Runs::Stops { epoch: 5 };
    asked.ended(end(Cause::Stopped), second(110), wall());
    let mut late = running();
    late.ended(end(Cause::Deadline), second(110), wall());
    for listener in [asked, late] {
        assert_eq!((listener.unit.rests_until, listener.backoff.failures()), (Boottime::default(), 0));
        assert_eq!((listener.unit.tombstone, listener.trouble), (5, None));
    }
}

#[test]
fn who_does_not_say_in_time_that_it_works_gives_up_once() {
    let mut listener = Listener::new(lease(), 1);
    listener.started(second(100), false);
    assert!(!listener.gives_up(second(103)));
    assert!(listener.gives_up(second(104)) && !listener.gives_up(second(105)));
    assert_eq!(listener.unit.runs, Runs::Stops { epoch: 5 });
    listener.said_that_it_works(); // too late, with its last words
    listener.ended(end(Cause::Stopped), second(106), wall());
    assert_eq!((listener.backoff.failures(), listener.trouble.unwrap().reason.as_str()), (1, "StartTimeout"));
    let mut works = Listener::new(lease(), 1);
    works.started(second(100), false);
    works.said_that_it_works();
    assert!(!works.gives_up(second(200)));
}

/// L2: a state is handed on by the epoch that said it, and by no other.
#[test]
fn what_was_said_under_another_epoch_is_not_handed_on() {
    let mut listener = running();
    listener.said_where_to_resume("8".into());
    listener.ended(end(Cause::Stopped), second(110), wall());
    assert_eq!(listener.legacy(), (Some("8"), Stopped::At(wall())));
    // Given away, run elsewhere, and given back, but not started here.
    listener.lease.ownership.epoch = 7;
    assert_eq!(listener.legacy(), (None, Stopped::Never));
}

#[test]
fn checkpoints_are_as_far_apart_as_asked() {
    let mut listener = running();
    assert_eq!(listener.checkpoint(second(200)), (None, None), "nothing said");
    listener.said_where_to_resume("7".into());
    assert_eq!(listener.checkpoint(second(200)), (None, None), "nothing new");
    listener.said_where_to_resume("8".into());
    assert_eq!(listener.checkpoint(second(105)), (None, Some(second(106))));
    assert_eq!(listener.checkpoint(second(106)), (Some("8".into()), None));
    listener.unit.runs = Runs::Stops { epoch: 5 };
    assert_eq!(listener.checkpoint(second(106)), (None, None), "the write that follows has it");
}

#[test]
fn an_older_view_changes_nothing() {
    let me = holder("a", 1);
    let mut listener = Listener::new(lease(), 1);
    listener.vanish("8");
    assert!(listener.is_mine(&me));
    listener.vanish("10");
    assert!(!listener.is_mine(&me));
    let mut older = lease();
    older.ownership.resource_version = "8".into();
    listener.see(older, &me);
    assert!(!listener.is_mine(&me));
    let mut newer = lease();
    newer.ownership.resource_version = "11".into();
    listener.see(newer, &me);
    assert!(listener.is_mine(&me));
}

#[test]
fn complaints_begin_with_their_reason() {
    for (text, reason, message) in [
        ("ConnectTimeout: no route", "ConnectTimeout", "no route"),
        ("no route: 10.0.0.1", "Failed", "no route: 10.0.0.1"),
        ("Failed", "Failed", "Failed"),
        ("Two Words: x", "Failed", "Two Words: x"),
    ] {
        assert_eq!(Trouble::of_complaint(text), Trouble::new(reason, message), "{text}");
    }
    let cut = Trouble::new("X", &"é".repeat(200)).message;
    assert!(cut.len() <= MESSAGE_BYTES_MAX && cut.ends_with("é…"), "{cut}");
}

#[test]
fn calls_that_fail_are_further_and_further_apart() {
    let mut calls = Calls::default();
    calls.failed(second(100));
    assert_eq!(calls.rest_until, second(100).after(Duration::from_millis(25)));
    (0..20).for_each(|_| calls.failed(second(100)));
    assert_eq!(calls.rest_until, second(102));
    calls.worked();
    assert_eq!((calls.failures, calls.rest_until), (0, Boottime::default()));
}

/// One conflict is mended by the look that follows; what it does not mend is not tried at the speed of the network.
#[test]
fn conflicts_in_a_row_are_further_and_further_apart() {
    let mut calls = Calls::default();
    calls.conflicted(second(100));
    assert_eq!(calls.rest_until, Boottime::default());
    for millis in [25, 50, 100] {
        calls.conflicted(second(100));
        assert_eq!(calls.rest_until, second(100).after(Duration::from_millis(millis)));
    }
    calls.worked();
    calls.conflicted(second(100));
    assert_eq!(calls.rest_until, Boottime::default());
}

/// A read that was sent before the end was told, and answered after it.
#[test]
fn what_is_gone_does_not_come_back_by_a_late_answer() {
    let me = holder("a", 1);
    let mut listener = Listener::new(lease(), 1);
    listener.vanish("12");
    for version in ["9", "11"] {
        let mut late = lease();
        late.ownership.resource_version = version.into();
        listener.see(late, &me);
        assert!(!listener.is_mine(&me), "{version}");
    }
}

/// What it complained of last is why it ended, unless it has worked since.
#[test]
fn a_complaint_is_over_once_it_works() {
    let ended = |say: fn(&mut Listener)| {
        let mut listener = running();
        listener.run.as_mut().unwrap().complaint = Some("NoApplication: none is there".into());
        say(&mut listener);
        listener.ended(end(Cause::Exited), second(110), wall());
        listener.trouble.unwrap().reason
    };
    assert_eq!(ended(|_| {}), "NoApplication");
    assert_eq!(ended(Listener::said_that_it_works), "Exited");
}

/// Once it is told to stop, its word is not waited for any more: a time that has passed would wake the agent without end.
#[test]
fn what_was_told_to_stop_need_not_work_by_any_time() {
    let mut listener = Listener::new(lease(), 1);
    listener.started(second(100), false);
    assert_eq!(listener.works_by(), Some(second(104)));
    assert!(!listener.gives_up(second(103)));
    let mut late = Listener::new(lease(), 1);
    late.started(second(100), false);
    assert!(late.gives_up(second(104)) && !late.gives_up(second(105)), "once");
    listener.unit.runs = Runs::Stops { epoch: 5 };
    assert_eq!((listener.works_by(), listener.gives_up(second(200))), (None, false));
    listener.unit.runs = Runs::Epoch { epoch: 5, config_hash: String::new() };
    listener.said_that_it_works();
    assert_eq!(listener.works_by(), None);
}

/// What ends while it waits for its turn has failed to prepare, unless it was told to end or the session was not renewed.
#[test]
fn what_ends_before_its_turn_is_told_and_rests() {
    let ended = |prepare: fn(&mut Listener), cause: Cause| {
        let mut listener = Listener::new(lease(), 1);
        prepare(&mut listener);
        listener.complaint = Some("ConnectTimeout: no route".into());
        listener.ended(end(cause), second(110), wall());
        assert_eq!((&listener.unit.runs, listener.is_preparing, listener.unit.tombstone), (&Runs::Nothing, false, 0));
        (listener.trouble.map(|trouble| trouble.reason), listener.unit.rests_until)
    };
    let failed = (Some("ConnectTimeout".to_owned()), after_first_pause(110));
    assert_eq!(ended(|it| it.is_preparing = true, Cause::Exited), failed);
    assert_eq!(ended(|it| it.unit.runs = Runs::Prepared, Cause::Exited), failed);
    assert_eq!(ended(|it| it.unit.runs = Runs::Prepared, Cause::Deadline), (None, Boottime::default()));
    assert_eq!(ended(|_| {}, Cause::Stopped), (None, Boottime::default()), "it was not to come");
}
