use proptest::prelude::*;

use super::*;
use crate::{
    agent::sidecar::refusal::Refusal,
    sdk::wire::{self, Event, Open, Running, Word},
};

fn milli(milli: u64) -> Boottime {
    Boottime(Duration::from_millis(milli))
}

fn second(second: u64) -> Boottime {
    milli(second * 1_000)
}

fn task(token: &str) -> Environment {
    Environment {
        set: "bots".into(),
        listener: "one".into(),
        config: r#"{"feed":"one"}"#.into(),
        fence_token: token.into(),
        resume: None,
        connect_timeout_seconds: 30,
        use_proxy: false,
        stop_timeout_seconds: 10,
    }
}

fn one() -> Name {
    Name { set: "bots".into(), listener: "one".into() }
}

fn running(token: &str) -> Vec<Running> {
    vec![Running { set: "bots".into(), listener: "one".into(), token: token.into() }]
}

fn id() -> Id {
    "uid-1".to_owned()
}

/// A stream with the next number.
fn connect(desk: &mut Desk, instance: &str, running: Vec<Running>, now: Boottime) -> Result<u64, Refusal> {
    let open = Open { instance: instance.to_owned(), stream: desk.number + 1, running };
    desk.connect(open, now).map(|connected| connected.number)
}

/// All that is to be told now, as short words.
fn told(desk: &mut Desk, stream: u64, now: Boottime) -> Vec<String> {
    let say = |event| match event {
        Event::Deadline(wire::Deadline { deadline, .. }) => format!("deadline {}", deadline / 1_000_000),
        Event::Start(start) => format!("start {} {}", start.token, start.deadline / 1_000_000),
        Event::Stop(stop) => format!("stop {} {}", stop.token, stop.deadline / 1_000_000),
        other => other.kind().to_owned(),
    };
    std::iter::from_fn(|| desk.tell(stream, now)).map(say).collect()
}

fn happened(desk: &mut Desk, now: Boottime) -> Vec<Happening> {
    std::iter::from_fn(|| desk.happened(now)).map(|(_, happening)| happening).collect()
}

fn ended(cause: Cause, proof: Proof) -> Happening {
    Happening::Ended(Ended { cause, exit: None, proof })
}

fn say(desk: &mut Desk, word: Word, json: &str, now: Boottime) -> Result<(), u16> {
    desk.hear(&one(), word, serde_json::from_str(json).unwrap(), now).map_err(|refusal| refusal.status.as_u16())
}

/// Instance `a` was told at second 100 to run `t1` until second 110.
fn running_desk() -> (Desk, u64) {
    let mut desk = Desk::new(None);
    let stream = connect(&mut desk, "a", Vec::new(), second(100)).unwrap();
    desk.start(&id(), task("t1"), second(110)).unwrap();
    assert_eq!(told(&mut desk, stream, second(100)), ["deadline 110000", "start t1 110000"]);
    (desk, stream)
}

#[test]
fn what_runs_says_how_it_goes_and_that_it_has_stopped() {
    let (mut desk, stream) = running_desk();
    say(&mut desk, Word::Started, r#"{"token":"t1"}"#, second(101)).unwrap();
    say(&mut desk, Word::Resume, r#"{"token":"t1","resume":1.50}"#, second(101)).unwrap();
    desk.extend(second(113));
    assert_eq!(told(&mut desk, stream, second(103)), ["deadline 113000"]);
    desk.stop(&id(), Duration::from_secs(5), second(104));
    assert_eq!(told(&mut desk, stream, second(104)), ["stop t1 109000"]);
    say(&mut desk, Word::Stopped, r#"{"token":"t1","resume":null,"reason":"A: b"}"#, second(105)).unwrap();
    let expected = [
        Happening::Works,
        Happening::Resume("1.50".into()),
        Happening::Resume("null".into()),
        Happening::Failed("A: b".into()),
        ended(Cause::Stopped, Proof::Application),
    ];
    assert_eq!(happened(&mut desk, second(105)), expected);
    assert_eq!(say(&mut desk, Word::Stopped, r#"{"token":"t1"}"#, second(105)), Err(404), "said twice");
    assert_eq!(desk.wake(), None);
}

/// L1: it is never taken for ended while it may run by what it was told.
#[test]
fn a_stream_that_has_ended_ends_nothing_before_the_last_deadline() {
    let (mut desk, stream) = running_desk();
    desk.disconnect(stream);
    desk.extend(second(120));
    assert_eq!(desk.tell(stream, second(101)).map(|event| event.kind()), None);
    assert_eq!(desk.wake(), Some(milli(110_500)));
    assert_eq!(happened(&mut desk, milli(110_499)), []);
    let expected = [Happening::Failed(ABSENT.into()), ended(Cause::Exited, Proof::Application)];
    assert_eq!(happened(&mut desk, milli(110_500)), expected);
}

#[test]
fn who_comes_back_in_time_with_what_it_runs_goes_on() {
    let (mut desk, stream) = running_desk();
    desk.extend(second(113));
    desk.disconnect(stream);
    let again = connect(&mut desk, "a", running("t1"), second(105)).unwrap();
    assert_eq!(told(&mut desk, again, second(105)), ["deadline 113000"]);
    desk.disconnect(stream); // late: the one of before
    assert!(desk.is_connected());
    assert_eq!(happened(&mut desk, second(112)), []);
}

/// L1, L2
#[test]
fn what_a_new_stream_does_not_name_has_ended_and_what_it_names_beyond_is_stopped() {
    let (mut desk, stream) = running_desk();
    assert_eq!(connect(&mut desk, "b", Vec::new(), second(101)).unwrap_err().said.field, "instance");
    desk.disconnect(stream);
    let other = connect(&mut desk, "b", running("t0"), second(101)).unwrap();
    let ends = happened(&mut desk, second(101));
    assert_eq!(ends.last(), Some(&ended(Cause::Exited, Proof::Application)));
    assert_eq!(told(&mut desk, other, second(101)), ["stop t0 102000", "deadline 110000"]);
    // Two of one name never run at once.
    assert!(desk.start(&id(), task("t2"), second(110)).unwrap_err().contains("t0"));
    say(&mut desk, Word::Stopped, r#"{"token":"t0"}"#, second(101)).unwrap();
    desk.start(&id(), task("t2"), second(110)).unwrap();
    assert_eq!(told(&mut desk, other, second(101)), ["start t2 110000"]);
}

/// L1: a stop that may not have arrived does not shorten what was told before it.
#[test]
fn a_stop_bounds_only_what_was_told_after_it() {
    // It is extended past the stop: who has heard that has heard the stop.
    let (mut desk, stream) = running_desk();
    desk.stop(&id(), Duration::from_secs(15), second(101));
    assert_eq!(told(&mut desk, stream, second(101)), ["stop t1 116000"]);
    desk.extend(second(130));
    assert_eq!(told(&mut desk, stream, second(102)), ["deadline 130000"]);
    assert_eq!(desk.wake(), Some(milli(116_500)));
    assert_eq!(happened(&mut desk, milli(116_500)), [ended(Cause::StopTimeout, Proof::Deadline)]);
    assert!(!desk.is_connected(), "it says anew what runs, before it gets another deadline");
    // Earlier than what was told before: that counts.
    let (mut desk, stream) = running_desk();
    desk.stop(&id(), Duration::ZERO, second(101));
    assert_eq!(told(&mut desk, stream, second(101)), ["stop t1 101250"]);
    assert_eq!(desk.wake(), Some(milli(110_500)));
    // Not told at all: it is unknown.
    let (mut desk, stream) = running_desk();
    desk.disconnect(stream);
    desk.stop(&id(), Duration::ZERO, second(101));
    assert_eq!(desk.wake(), Some(milli(110_500)));
    let again = connect(&mut desk, "a", running("t1"), second(102)).unwrap();
    assert_eq!(told(&mut desk, again, second(102)), ["stop t1 102250", "deadline 110000"]);
}

#[test]
fn what_was_never_told_never_began() {
    let mut desk = Desk::new(None);
    desk.start(&id(), task("t1"), second(110)).unwrap();
    assert_eq!(happened(&mut desk, second(100)), [Happening::Failed(ABSENT.into())]);
    desk.stop(&id(), Duration::from_secs(5), second(101));
    assert_eq!(happened(&mut desk, second(101)), [ended(Cause::Stopped, Proof::Agent)]);
    // It comes late, and is told as if it had been there; what was said of its absence is over.
    desk.start(&id(), task("t2"), second(110)).unwrap();
    let stream = connect(&mut desk, "a", Vec::new(), second(102)).unwrap();
    assert_eq!(told(&mut desk, stream, second(102)), ["deadline 110000", "start t2 110000"]);
    let said = happened(&mut desk, second(102));
    assert!(matches!(&said[1], Happening::Failed(why) if why.starts_with("StartTimeout: ")), "{said:?}");
}

#[test]
fn nothing_is_started_so_late_that_it_would_have_to_stop_at_once() {
    let mut desk = Desk::new(None);
    let stream = connect(&mut desk, "a", Vec::new(), second(100)).unwrap();
    desk.start(&id(), task("t1"), second(110)).unwrap();
    assert_eq!(told(&mut desk, stream, milli(109_500)), ["deadline 110000"]);
    desk.extend(second(120));
    assert_eq!(told(&mut desk, stream, milli(109_501)), ["deadline 120000", "start t1 120000"]);
}

#[test]
fn what_is_prepared_is_so_on_one_stream() {
    let mut desk = Desk::new(None);
    desk.prepare(&id(), task("t1"));
    let stream = connect(&mut desk, "a", Vec::new(), second(100)).unwrap();
    assert_eq!(told(&mut desk, stream, second(100)), ["prepare"]);
    say(&mut desk, Word::Prepared, "{}", second(100)).unwrap();
    say(&mut desk, Word::Prepared, "{}", second(100)).unwrap();
    assert_eq!(happened(&mut desk, second(100)), [Happening::Prepared]);
    desk.disconnect(stream);
    let not_failed = [ended(Cause::Deadline, Proof::Application)];
    assert_eq!(happened(&mut desk, second(101)), not_failed, "it is asked for again, without a pause");
    assert_eq!(say(&mut desk, Word::Prepared, "{}", second(101)), Err(404));
    desk.prepare(&id(), task("t1"));
    let stream = connect(&mut desk, "a", Vec::new(), second(102)).unwrap();
    assert_eq!(told(&mut desk, stream, second(102)), ["prepare"]);
    desk.unprepare(&id());
    assert_eq!(told(&mut desk, stream, second(102)), ["unprepare"]);
}

/// Who cannot prepare is not asked again at the speed of the network.
#[test]
fn a_failed_preparation_is_told_after_a_pause() {
    let mut desk = Desk::new(None);
    let stream = connect(&mut desk, "a", Vec::new(), second(100)).unwrap();
    desk.prepare(&id(), task("t1"));
    told(&mut desk, stream, second(100));
    say(&mut desk, Word::Failed, r#"{"reason":"ConnectTimeout: no route"}"#, second(100)).unwrap();
    assert_eq!(happened(&mut desk, second(101)), [Happening::Failed("ConnectTimeout: no route".into())]);
    assert_eq!(desk.wake(), Some(second(102)));
    assert_eq!(happened(&mut desk, second(102)), [ended(Cause::Exited, Proof::Application)]);
}

/// L1: what was said of the preparation is not taken for the end of what was started since.
#[test]
fn a_start_forgets_what_was_not_heard_yet_of_its_preparation() {
    let mut desk = Desk::new(None);
    desk.prepare(&id(), task("t1"));
    let stream = connect(&mut desk, "a", Vec::new(), second(100)).unwrap();
    told(&mut desk, stream, second(100));
    desk.disconnect(stream); // its end is on its way, and the listener has become ours
    desk.start(&id(), task("t1"), second(110)).unwrap();
    assert_eq!(happened(&mut desk, second(100)), [Happening::Failed(ABSENT.into())]);
}

/// L1: a session is claimed when nothing that an earlier agent has begun can run.
#[test]
fn an_earlier_agents_deadline_is_waited_for_unless_somebody_says_better() {
    let mut desk = Desk::new(Some(second(110)));
    assert!(!desk.is_clear(milli(110_499)));
    assert_eq!(desk.wake(), Some(milli(110_500)));
    assert!(desk.is_clear(milli(110_500)));
    let mut desk = Desk::new(Some(second(110)));
    connect(&mut desk, "a", Vec::new(), second(101)).unwrap();
    assert!(desk.is_clear(second(101)), "nothing runs");
    let mut desk = Desk::new(Some(second(110)));
    let stream = connect(&mut desk, "a", running("t0"), second(101)).unwrap();
    assert!(!desk.is_clear(second(101)));
    assert_eq!(told(&mut desk, stream, second(101)), ["stop t0 110000"], "it has the time that it had");
    say(&mut desk, Word::Stopped, r#"{"token":"t0"}"#, second(102)).unwrap();
    assert!(desk.is_clear(second(102)));
}

/// L1: a request that comes late, or that a library repeats by itself, says what does not hold any more.
#[test]
fn a_stream_is_opened_by_a_number_that_only_grows() {
    let (mut desk, stream) = running_desk();
    let open = |desk: &mut Desk, instance: &str, stream, running| {
        let open = Open { instance: instance.to_owned(), stream, running };
        desk.connect(open, second(101)).map_err(|refusal| (refusal.status.as_u16(), refusal.said.field))
    };
    let late = Err((409, "stream".to_owned()));
    assert_eq!(open(&mut desk, "a", 1, Vec::new()), late);
    assert!(desk.is_stream(stream), "nothing has changed");
    desk.disconnect(stream);
    assert_eq!(open(&mut desk, "a", 1, Vec::new()), late);
    assert_eq!(happened(&mut desk, second(101)), []);
    let again = open(&mut desk, "a", 7, running("t1")).unwrap();
    assert!(!again.replaces);
    assert_eq!(happened(&mut desk, second(101)), []);
    assert_eq!(open(&mut desk, "a", 6, Vec::new()), late);
    desk.disconnect(again.number);
    assert!(open(&mut desk, "b", 1, Vec::new()).unwrap().replaces, "another process has a count of its own");
}

/// L1: the next agent knows it too.
#[test]
fn an_agent_that_was_started_again_goes_on_counting_streams() {
    let mut desk = Desk::new(Some(second(110))).after(Some(("a".to_owned(), 3)));
    let mut open = |stream| desk.connect(Open { instance: "a".to_owned(), stream, running: Vec::new() }, second(100));
    assert_eq!(open(3).unwrap_err().said.field, "stream");
    assert!(!open(4).unwrap().replaces);
    assert!(desk.is_clear(second(100)), "which the first one did not say");
}

/// L1: an end that is said with something that cannot be taken is an end.
#[test]
fn what_has_stopped_with_too_long_a_resume_value_has_stopped() {
    let (mut desk, _) = running_desk();
    let long = format!(r#"{{"token":"t1","resume":"{}"}}"#, "a".repeat(wire::RESUME_BYTES_MAX));
    assert_eq!(say(&mut desk, Word::Resume, &long, second(101)), Err(413));
    say(&mut desk, Word::Stopped, &long, second(101)).unwrap();
    let said = happened(&mut desk, second(101));
    assert!(matches!(&said[0], Happening::Failed(why) if why.starts_with("ResumeTooLong: ")), "{said:?}");
    assert_eq!(said[1..], [ended(Cause::Exited, Proof::Application)]);
}

/// One event is one line, with any JSON of a Lease or an application.
#[test]
fn what_is_told_and_heard_has_no_line_breaks() {
    let mut desk = Desk::new(None);
    let stream = connect(&mut desk, "a", Vec::new(), second(100)).unwrap();
    let (config, resume) = ("{\r\n\"a\":1}".to_owned(), Some("[1,\n2]".to_owned()));
    desk.start(&id(), Environment { config, resume, ..task("t1") }, second(110)).unwrap();
    let told: Vec<_> = std::iter::from_fn(|| desk.tell(stream, second(100))).collect();
    let Event::Start(start) = &told[1] else { panic!("{told:?}") };
    assert_eq!((start.config.get(), start.resume.as_ref().unwrap().get()), ("{  \"a\":1}", "[1, 2]"));
    say(&mut desk, Word::Resume, "{\"token\":\"t1\",\"resume\":[3,\n4]}", second(101)).unwrap();
    assert_eq!(happened(&mut desk, second(101)), [Happening::Resume("[3, 4]".into())]);
}

/// Who asks counts on what was told last, also while no stream is open.
#[test]
fn a_fence_outlives_its_stream() {
    let (mut desk, stream) = running_desk();
    desk.disconnect(stream);
    desk.extend(second(120));
    let fence = desk.fence(&one(), second(101)).unwrap();
    assert_eq!((fence.mine, fence.deadline, fence.milliseconds), (true, second(110).as_nanos(), 9_000));
    assert!(!desk.fence(&one(), milli(109_750)).unwrap().mine);
}

#[test]
fn what_nobody_takes_does_not_pile_up() {
    let (mut desk, _) = running_desk();
    for _ in 0..HAPPENINGS_MAX {
        say(&mut desk, Word::Tick, r#"{"token":"t1"}"#, second(101)).unwrap();
    }
    assert_eq!(say(&mut desk, Word::Tick, r#"{"token":"t1"}"#, second(101)), Err(429));
    say(&mut desk, Word::Stopped, r#"{"token":"t1"}"#, second(101)).unwrap();
    assert_eq!(
        connect(&mut desk, "a", vec![running("t").remove(0); RUNNING_MAX + 1], second(101)).unwrap_err().status,
        400
    );
}

/// What the application does with what arrives: the other side of the protocol, with a stream that may lose its end.
#[derive(Clone, Default)]
struct Application {
    /// Until when all may run, as far as it knows.
    until: u64,
    /// What runs, and until when that one may.
    runs: BTreeMap<String, u64>,
    started: BTreeSet<String>,
}

impl Application {
    fn hear(&mut self, event: Event) {
        match event {
            Event::Deadline(deadline) => self.until = deadline.deadline,
            Event::Start(start) => {
                self.until = start.deadline;
                assert!(self.started.insert(start.token.clone()), "{} starts twice", start.token);
                self.runs.insert(start.token, u64::MAX);
            }
            Event::Stop(stop) => {
                if let Some(own) = self.runs.get_mut(&stop.token) {
                    *own = (*own).min(stop.deadline);
                }
            }
            Event::Prepare(_) | Event::Unprepare(_) => {}
        }
    }

    /// Keeps to its deadlines, at the last moment.
    fn pass(&mut self, now: Boottime) {
        let until = self.until;
        self.runs.retain(|_, own| now.as_nanos() < until.min(*own));
    }
}

#[derive(Clone, Debug)]
enum Act {
    Pass(u64),
    Extend,
    Start,
    Stop(u64),
    Tell(u8),
    Cut,
    Connect,
    Confess,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (0_u64..4_000).prop_map(Act::Pass),
        Just(Act::Extend),
        Just(Act::Start),
        (0_u64..20_000).prop_map(Act::Stop),
        (0_u8..4).prop_map(Act::Tell),
        Just(Act::Cut),
        Just(Act::Connect),
        Just(Act::Confess),
    ];
    prop::collection::vec(act, 1..60)
}

proptest! {
    /// L1, L2: with anything lost or cut, of a listener that is told to have ended nothing runs in an application that keeps
    /// to its deadlines, though it does so at the last moment; and no start happens twice.
    #[test]
    fn nothing_runs_of_what_has_ended(acts in acts()) {
        let (mut desk, mut application) = (Desk::new(None), Application::default());
        let mut now = second(100);
        let (mut stream, mut wire) = (0, VecDeque::new());
        let (mut starts, mut active) = (0, None::<String>);
        for act in acts {
            match act {
                Act::Pass(millis) => now = now.after(Duration::from_millis(millis)),
                Act::Extend => desk.extend(now.after(Duration::from_secs(10))),
                Act::Start if active.is_none() => {
                    starts += 1;
                    let token = format!("t{starts}");
                    if desk.start(&id(), task(&token), now.after(Duration::from_secs(10))).is_ok() {
                        active = Some(token);
                    }
                }
                Act::Stop(millis) => desk.stop(&id(), Duration::from_millis(millis), now),
                Act::Tell(arrive) => {
                    wire.extend(std::iter::from_fn(|| desk.tell(stream, now)));
                    for _ in 0..arrive {
                        if let Some(event) = wire.pop_front() {
                            application.hear(event);
                        }
                    }
                }
                Act::Cut => {
                    desk.disconnect(stream);
                }
                Act::Connect if !desk.is_stream(stream) => {
                    // It closes the old one, and reads nothing more of it.
                    wire.clear();
                    application.pass(now);
                    let runs = application.runs.keys().map(|token| running(token).remove(0)).collect();
                    stream = connect(&mut desk, "a", runs, now).unwrap();
                }
                Act::Start | Act::Connect => {}
                Act::Confess => {
                    if let Some((token, _)) = application.runs.pop_first() {
                        let _ = say(&mut desk, Word::Stopped, &format!(r#"{{"token":"{token}"}}"#), now);
                    }
                }
            }
            application.pass(now);
            while let Some((_, happening)) = desk.happened(now) {
                if let Happening::Ended(_) = happening {
                    let token = active.take().expect("one end of each start");
                    prop_assert!(!application.runs.contains_key(&token), "{token} runs");
                    // Nor will it, by what is still on its way.
                    let mut later = application.clone();
                    wire.iter().cloned().for_each(|event| later.hear(event));
                    later.pass(now);
                    prop_assert!(!later.runs.contains_key(&token), "{token} will run");
                }
            }
            prop_assert!(application.runs.len() <= 1, "{:?}", application.runs);
        }
    }
}
