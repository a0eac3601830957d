//! What children say.
use super::fixture::{Agent, Place};

const EXITED: &str = "Ended(Ended { cause: Exited, exit: Some(Code(0)), proof: Guard })";

#[test]
fn what_is_no_line_is_told_and_hurts_nobody() {
    let mut agent = Agent::start(Place::Beside);
    let script = r#"
        echo hello >&3
        { printf '{"resume":"'; head -c 70000 /dev/zero | tr '\0' a; printf '"}\n'; } >&3
        { printf '{"resume":"'; head -c 4094 /dev/zero | tr '\0' a; printf '"}\n'; } >&3
        echo '{"failed":"no route"}' >&3
        echo '{"tick":true}' >&3"#;
    agent.spawn("one", script);
    let longest = format!(r#"Line(Resume("\"{}\""))"#, "a".repeat(4094));
    let expected = [
        "Line(Refused(Malformed))",
        "Line(Refused(TooLong))",
        &longest,
        r#"Line(Failed("no route"))"#,
        "Line(Tick)",
        EXITED,
    ];
    assert_eq!(agent.events_to_the_end("one"), expected);
}

#[test]
fn what_is_said_just_before_the_end_counts() {
    let mut agent = Agent::start(Place::Beside);
    for round in 0..20 {
        let name = format!("n{round}-");
        // The last one without an end of line, and more lines than are kept in between.
        agent.spawn(&name, r#"i=0; while [ $i -lt 200 ]; do echo "{\"resume\":$i}"; i=$((i+1)); done >&3; printf '{"resume":200}' >&3"#);
        let events = agent.events_to_the_end(&name);
        let mut expected: Vec<_> = (0..=200).map(|i| format!(r#"Line(Resume("{i}"))"#)).collect();
        expected.push(EXITED.into());
        assert_eq!(events, expected);
    }
}

#[test]
fn a_child_that_closes_its_pipe_runs_on() {
    let mut agent = Agent::start(Place::Beside);
    agent.spawn(
        "one",
        "echo '{\"tick\":true}' >&3; exec 3>&-; trap 'exit 5' TERM; echo closed; while :; do sleep 0.05; done",
    );
    agent.event("one", "Line(Tick)");
    agent.output("closed");
    agent.stop("one", 60_000);
    agent.event("one", "Ended(Ended { cause: Stopped, exit: Some(Code(5)), proof: Guard })");
}
