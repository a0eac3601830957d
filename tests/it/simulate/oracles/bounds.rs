//! R1 and R2, judged by what an operator could have seen: its watches show a moment of the past, and what operators did since
//! is known to them, because they wait for their own writes to come back.
use std::{collections::BTreeSet, sync::Arc, time::Duration};

use baton::{
    api::{IntOrPercent, Rollout, rollout::StrategyType},
    snapshot::Pod,
};
use jiff::{SignedDuration, Timestamp};

use super::story::{Ended, Story};

/// A Terminating Pod counts until its grace is over for so long (`design: Budget`).
const TERMINATING_COUNTS: SignedDuration = SignedDuration::from_secs(30);

/// Who judges, and when.
#[derive(Clone, Copy, Debug)]
pub struct Glass {
    /// The oldest view that an operator may act on.
    pub age: Duration,
    /// The latest time that an operator's clock may have shown.
    pub latest: Timestamp,
    /// How far an operator's clock may be ahead of the nodes'.
    pub ahead: SignedDuration,
}

/// R1: an instance becomes unavailable by an act of ours only while the others keep the bound; a Pod beyond replicas goes
/// only while enough Pods are available. `uid` is the Pod that is being deleted; `rollout` what its operator had read;
/// `is_in_use` whether clients may
/// use a Pod; `knows` the deletions it must have known of: its own, and what was committed before it sent this one. A request that
/// leaves late meets what the next leader has done meanwhile, and no client can prevent that.
pub fn deletion(
    story: &Story,
    uid: &str,
    rollout: &Rollout,
    knows: impl Fn(&Ended) -> bool,
    is_in_use: impl Fn(&Pod) -> bool,
    glass: Glass,
) -> Result<(), String> {
    let (replicas, min) = (rollout.spec.replicas, fewest_available(rollout));
    let Some(version) = story.now().pods.get(uid).map(|pod| pod.resource_version.clone()) else { return Ok(()) };
    let mut verdict = Ok(());
    for moment in story.moments_seen(glass.age) {
        // The delete names this version of the Pod: an earlier view is impossible.
        let Some(pod) = moment.pods.get(uid).filter(|pod| pod.resource_version == version) else { break };
        let is_ended = |pod: &Pod| story.ended.get(&pod.uid).is_some_and(&knows);
        let others = || {
            let others = moment.pods.values().map(|pod| &**pod).filter(|other| other.uid != uid);
            others.filter(|other| is_in_use(other) && !is_ended(other) && self::is_available(other, rollout, glass))
        };
        let is_available = is_in_use(pod) && is_available(pod, rollout, glass);
        let slots: BTreeSet<i32> = others().map(|other| other.slot).filter(|slot| *slot < replicas).collect();
        let instances = slots.len() as i32;
        let beside = slots.contains(&pod.slot);
        let allowed = if pod.slot < replicas {
            !is_available || beside || instances >= min
        } else {
            !is_available || others().count() as i32 >= min
        };
        if allowed {
            return Ok(());
        }
        if verdict.is_ok() {
            verdict = Err(format!(
                "{} of slot {} is deleted while {instances} other instances are available, at least {min} of {replicas} must be",
                pod.name, pod.slot
            ));
        }
    }
    verdict
}

/// maxUnavailable below replicas, a percentage rounded down; where neither it nor maxSurge lets anything happen, one. Both
/// bounds are reckoned here once more, from what the documentation says: an error of the planner's must not be ours.
fn fewest_available(rollout: &Rollout) -> i32 {
    let (replicas, strategy) = (rollout.spec.replicas, &rollout.spec.strategy);
    match strategy.type_ {
        StrategyType::Batched => {}
        StrategyType::Recreate => return 0,
        StrategyType::BlueGreen => return replicas,
    }
    let unavailable = part(&strategy.max_unavailable, replicas).floor() as i32;
    let nothing_moves = unavailable == 0 && part(&strategy.max_surge, replicas) <= 0.0;
    let is_explicit = [IntOrPercent::Count(0), IntOrPercent::Percent("0%".into())].contains(&strategy.max_unavailable);
    // In place at least one is changed at a time, unless none may ever be missing.
    let at_least_one = nothing_moves || (strategy.update.restarts() && !is_explicit);
    (replicas - if at_least_one { unavailable.max(1) } else { unavailable }).max(0)
}

/// maxSurge above replicas, a percentage rounded up; and failed Pods that are kept for a look.
fn most_pods(rollout: &Rollout) -> i32 {
    let (replicas, strategy) = (rollout.spec.replicas, &rollout.spec.strategy);
    let kept = strategy.keep_failed.map_or(0, |settings| settings.pods);
    kept + match strategy.type_ {
        StrategyType::Batched => replicas + part(&strategy.max_surge, replicas).ceil() as i32,
        StrategyType::Recreate => replicas,
        StrategyType::BlueGreen => 2 * replicas,
    }
}

/// Strategy Recreate: a Pod is made where no other revision is alive. The Pod just made is part of the present.
pub fn is_alone(story: &Story, uid: &str, glass: Glass) -> Result<(), String> {
    let is_asked = |rollout: &Arc<Rollout>| rollout.spec.strategy.type_ == StrategyType::Recreate;
    let Some(made) = story.now().pods.get(uid).filter(|_| story.versions_seen(glass.age).all(is_asked)) else {
        return Ok(());
    };
    let lost: BTreeSet<&BTreeSet<String>> = story.moments_seen(glass.age).map(|moment| &*moment.lost_nodes).collect();
    let is_free = |moment: &super::story::Moment| {
        let others = moment.pods.values().chain(moment.specimens.values()).filter(|pod| pod.revision != made.revision);
        let others = others.filter(|pod| !story.strays.contains(&pod.uid));
        let others: Vec<_> = others.collect();
        lost.iter().any(|lost| others.iter().all(|pod| !counts(pod, lost, glass)))
    };
    if story.moments_seen(glass.age).any(is_free) {
        return Ok(());
    }
    Err(format!("{} is made while Pods of another revision than {} are alive", made.name, made.revision))
}

fn part(of: &IntOrPercent, replicas: i32) -> f64 {
    match of {
        IntOrPercent::Count(count) => f64::from(*count),
        IntOrPercent::Percent(text) => {
            let percent: f64 = text.trim_end_matches('%').parse().expect("a percentage");
            f64::from(replicas) * percent / 100.0
        }
    }
}

/// What it runs is what its kubelet says that it runs.
pub fn runs_what_it_was_given(pod: &Pod) -> bool {
    let given =
        pod.in_place.iter().flat_map(|in_place| &in_place.containers).filter(|(_, before)| before.ran.is_some());
    let runs = |name: &String| pod.containers.iter().any(|it| it.name == *name && it.image == it.given);
    given.map(|(name, _)| name).all(runs)
}

pub fn is_available(pod: &Pod, rollout: &Rollout, glass: Glass) -> bool {
    if !runs_what_it_was_given(pod) {
        return false;
    }
    // Times in a Pod's status are whole seconds.
    let ahead = i32::try_from(glass.ahead.as_secs() + 1).unwrap_or(i32::MAX);
    pod.is_available(rollout.spec.min_ready_seconds.saturating_sub(ahead).max(0), glass.latest)
}

/// R2: no Pod is created where there are too many, by one of the versions of its Rollout that its maker may have read. The Pod
/// just made is part of the present.
pub fn creation(story: &Story, glass: Glass) -> Result<(), String> {
    let by_version =
        story.versions_seen(glass.age).map(|rollout| (fewest_seen(story, rollout, glass), most_pods(rollout)));
    match by_version.min_by_key(|(fewest, most)| fewest - most) {
        Some((fewest, most)) if fewest > most => Err(format!("{fewest} Pods, at most {most} may be")),
        Some(_) => Ok(()),
        None => Err("there is no Rollout".into()),
    }
}

/// The fewest Pods, of those that count with this version of the Rollout, that somebody may have seen.
fn fewest_seen(story: &Story, rollout: &Rollout, glass: Glass) -> i32 {
    // With strategy BlueGreen those beyond replicas take no room.
    let is_blue_green = rollout.spec.strategy.blue_green.is_some();
    let takes_room = |pod: &&Arc<Pod>| !is_blue_green || pod.slot < rollout.spec.replicas;
    // Nodes are watched apart from Pods: what is known of the ones and of the others may be of different moments.
    let lost: BTreeSet<&BTreeSet<String>> = story.moments_seen(glass.age).map(|moment| &*moment.lost_nodes).collect();
    let mut fewest = usize::MAX;
    for moment in story.moments_seen(glass.age) {
        let made_since = story.made.iter().filter(|(uid, number)| {
            let is_there = moment.pods.contains_key(*uid) || moment.specimens.contains_key(*uid);
            **number > moment.number && !is_there && !story.strays.contains(*uid)
        });
        let made_since = made_since.count();
        for lost in &lost {
            let seen = moment.pods.values().filter(takes_room).chain(moment.specimens.values());
            let seen = seen.filter(|pod| counts(pod, lost, glass));
            fewest = fewest.min(seen.filter(|pod| !story.strays.contains(&pod.uid)).count() + made_since);
        }
    }
    i32::try_from(fewest).unwrap_or(i32::MAX)
}

fn counts(pod: &Pod, lost: &BTreeSet<String>, glass: Glass) -> bool {
    let is_lost = pod.node.as_ref().is_some_and(|node| lost.contains(node));
    let is_given_up = |at: Timestamp| is_lost || at + TERMINATING_COUNTS <= glass.latest;
    !pod.is_finished() && !pod.deletion.is_some_and(is_given_up)
}
