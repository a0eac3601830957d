//! What is to be done next with the containers of a Pod: pure, so that every case is a unit test.
use jiff::Timestamp;

use super::model::{Container, Kind, PULL_ERROR, RestartPolicy, Waiting};

/// One thing to do with a container, by its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Start(usize),
    Stop(usize),
    /// Ends, to start with the image that its Pod has been given since.
    Exchange(usize),
    /// Not yet: show this reason meanwhile.
    Hold(usize, Waiting),
}

/// What to do now, and when to look again if nothing happens before.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Next {
    pub steps: Vec<Step>,
    pub wake_at: Option<Timestamp>,
}

/// How far a Pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// At the init container with this position.
    Initializing(usize),
    /// An init container failed for good.
    InitFailed,
    Initialized,
    /// No main container runs or will run again.
    Finished,
}

/// See [`Progress`].
pub fn progress(policy: RestartPolicy, containers: &[Container]) -> Progress {
    let mains = || containers.iter().filter(|container| container.kind == Kind::Main);
    let final_end = |container: &Container| {
        !container.starting
            && !container.is_outdated()
            && container.end().is_some_and(|end| !policy.restarts(container.kind, end.exit_code))
    };
    if mains().all(final_end) {
        return Progress::Finished;
    }
    if mains().any(|container| container.attempt.is_some()) {
        return Progress::Initialized;
    }
    for (position, container) in containers.iter().enumerate() {
        match container.kind {
            Kind::Init if container.succeeded() => {}
            Kind::Init if final_end(container) => return Progress::InitFailed,
            Kind::Sidecar if container.started() => {}
            Kind::Init | Kind::Sidecar => return Progress::Initializing(position),
            Kind::Main => break,
        }
    }
    Progress::Initialized
}

/// What to do next. `halted`: the Pod is being deleted or has failed as a whole, so nothing may start.
pub fn next(policy: RestartPolicy, containers: &[Container], halted: bool, now: Timestamp) -> Next {
    let mut next = Next::default();
    let progress = progress(policy, containers);
    if halted || matches!(progress, Progress::InitFailed | Progress::Finished) {
        let running = containers.iter().enumerate().filter(|(_, container)| container.running() && !container.stopping);
        next.steps.extend(running.map(|(position, _)| Step::Stop(position)));
        return next;
    }
    for (position, container) in containers.iter().enumerate() {
        let wanted = match (progress, container.kind) {
            (Progress::Initializing(at), Kind::Init) => position == at,
            (Progress::Initializing(at), Kind::Sidecar) => position <= at,
            (Progress::Initializing(_), Kind::Main) | (_, Kind::Init) => false,
            (_, Kind::Sidecar | Kind::Main) => true,
        };
        if wanted && container.is_outdated() && container.running() && !container.stopping {
            next.steps.push(Step::Exchange(position));
        } else if wanted && !container.active() {
            start_or_hold(&mut next, position, container, policy, now);
        }
    }
    next
}

fn start_or_hold(next: &mut Next, position: usize, container: &Container, policy: RestartPolicy, now: Timestamp) {
    let mut not_before = container.not_before;
    let mut hold = None;
    // With another image it starts whatever became of the one before, as by the kubelet.
    if let Some(end) = container.end().filter(|_| !container.is_outdated()) {
        if !policy.restarts(container.kind, end.exit_code) {
            return;
        }
        let wait = container.crashes.wait(end.finished_at);
        not_before = not_before.max(Some(end.finished_at + wait));
        // What went wrong with a later try comes first.
        if container.waiting.as_ref().is_none_or(|waiting| waiting.reason == "RunContainerError") {
            let message = format!("back-off {}s restarting failed container={}", wait.as_secs(), container.name);
            hold = Some(Waiting { reason: "CrashLoopBackOff", message });
        }
    }
    let not_before = not_before.filter(|time| *time > now);
    let Some(not_before) = not_before else {
        next.steps.push(Step::Start(position));
        return;
    };
    // The kubelet's next look at the Pod finds that it is not yet time for another pull.
    let back_off_at = container.pull_error_until;
    if let (Some(waiting), Some(time)) = (&container.waiting, back_off_at)
        && waiting.reason == PULL_ERROR
        && time <= now
    {
        let message = format!("Back-off pulling image: {PULL_ERROR}: {}", waiting.message);
        hold = Some(Waiting { reason: "ImagePullBackOff", message });
    }
    next.steps.extend(hold.map(|waiting| Step::Hold(position, waiting)));
    let times = back_off_at.filter(|time| *time > now).into_iter().chain([not_before]);
    next.wake_at = next.wake_at.into_iter().chain(times).min();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::model::sketch;

    fn steps(policy: RestartPolicy, text: &str, halted: bool) -> String {
        let now = Timestamp::from_second(100).unwrap();
        let next = next(policy, &sketch(text), halted, now);
        let words = next.steps.iter().map(|step| match step {
            Step::Start(position) => format!("start {position}"),
            Step::Stop(position) => format!("stop {position}"),
            Step::Exchange(position) => format!("exchange {position}"),
            Step::Hold(position, waiting) => format!("hold {position} {}", waiting.reason),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    use RestartPolicy::{Always, Never, OnFailure};

    #[test]
    fn main_containers_start_together_once_init_containers_are_done() {
        assert_eq!(steps(Always, "m- m-", false), "start 0, start 1");
        assert_eq!(steps(Always, "i- i- m-", false), "start 0");
        assert_eq!(steps(Always, "ir i- m-", false), "");
        assert_eq!(steps(Always, "i0 i- m-", false), "start 1");
        assert_eq!(steps(Always, "i0 i0 m-", false), "start 2");
    }

    #[test]
    fn a_failed_init_container_is_retried_unless_the_policy_is_never() {
        assert_eq!(steps(Always, "i1 m-", false), "start 0");
        assert_eq!(steps(OnFailure, "i1 m-", false), "start 0");
        assert_eq!(steps(Never, "i1 m-", false), "");
        assert_eq!(steps(Never, "sR i1 m-", false), "stop 0");
    }

    #[test]
    fn restart_policies_hold_for_main_containers() {
        assert_eq!(steps(Always, "m0 m1 mr", false), "start 0, start 1");
        assert_eq!(steps(OnFailure, "m0 m1 mr", false), "start 1");
        assert_eq!(steps(Never, "m0 m1 mr", false), "");
    }

    #[test]
    fn a_sidecar_gates_what_follows_until_it_has_started() {
        assert_eq!(steps(Always, "s- i- m-", false), "start 0");
        assert_eq!(steps(Always, "sr i- m-", false), "");
        assert_eq!(steps(Always, "sR i- m-", false), "start 1");
        assert_eq!(steps(Always, "sR i0 m-", false), "start 2");
    }

    #[test]
    fn a_sidecar_restarts_under_every_policy_beside_running_main_containers() {
        assert_eq!(steps(Never, "s0 mr", false), "start 0");
        assert_eq!(steps(Never, "s1 ir m-", false), "start 0");
        assert_eq!(steps(Always, "s0 m1", false), "start 0, start 1");
    }

    #[test]
    fn sidecars_end_after_the_last_main_container() {
        assert_eq!(steps(Never, "sR m0 mr", false), "");
        assert_eq!(steps(Never, "sR m0 m1", false), "stop 0");
        assert_eq!(steps(Never, "s1 m0", false), "");
    }

    #[test]
    fn nothing_starts_and_everything_stops_when_halted() {
        assert_eq!(steps(Always, "s- i0 mr m1 m-", true), "stop 2");
    }

    #[test]
    fn another_image_is_run_at_once_whatever_became_of_the_one_before() {
        let now = Timestamp::from_second(100).unwrap();
        let steps = |policy: RestartPolicy, text: &str| {
            let mut containers = sketch(text);
            for container in &mut containers {
                container.give("example.local/sh:2.0");
            }
            containers[0].crashes.advance(now, now);
            next(policy, &containers, false, now).steps
        };
        assert_eq!(steps(Always, "mR"), [Step::Exchange(0)]);
        assert_eq!(steps(Never, "m0"), [Step::Start(0)]);
        assert_eq!(steps(Always, "i0 m-"), [Step::Start(1)], "an init container has done its work");
        let mut ending = sketch("mR");
        ending[0].give("example.local/sh:2.0");
        ending[0].stopping = true;
        assert_eq!(next(Always, &ending, false, now).steps, []);
    }

    #[test]
    fn a_second_crash_waits() {
        let mut containers = sketch("m1");
        let finished = Timestamp::from_second(100).unwrap();
        containers[0].crashes.advance(Timestamp::from_second(99).unwrap(), Timestamp::from_second(99).unwrap());
        let next = next(Always, &containers, false, finished);
        let waiting =
            Waiting { reason: "CrashLoopBackOff", message: "back-off 10s restarting failed container=c0".into() };
        assert_eq!(next.steps, [Step::Hold(0, waiting)]);
        assert_eq!(next.wake_at, Timestamp::from_second(110).ok());
    }
}
