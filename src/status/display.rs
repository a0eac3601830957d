//! Counts, versions and strings for columns, all observed from Pods.
use std::collections::{BTreeMap, BTreeSet};

use super::{
    look::Look,
    text::{clip, share},
};
use crate::{
    api::{
        bounds, names,
        status::{BatchStatus, Display, RolloutStatus, VersionRange},
    },
    plan::revision,
    snapshot::{Pod, Ranges},
};

/// Pods by state, as a Deployment counts them.
pub(super) fn counts(look: &Look<'_>, status: &mut RolloutStatus) {
    let snapshot = look.snapshot;
    let effective = look.memory().effective.as_deref();
    let live = |is: &dyn Fn(&Pod) -> bool| snapshot.pods.iter().filter(|pod| pod.is_live() && is(pod)).count() as i32;
    let in_use = |is: &dyn Fn(&Pod) -> bool| live(&|pod| look.slots.is_told_in_use(pod) && is(pod));
    status.replicas = in_use(&|_| true);
    status.ready_replicas = in_use(&Pod::is_ready);
    status.available_replicas = in_use(&|pod| pod.is_available(look.spec().min_ready_seconds, snapshot.now));
    // Before the present spec has a revision, nothing runs it: else an old count would seem to be about the new generation.
    status.updated_replicas = if look.is_recorded { live(&|pod| Some(pod.revision.as_str()) == effective) } else { 0 };
    status.terminating_replicas =
        snapshot.pods.iter().filter(|pod| pod.deletion.is_some() && !pod.is_finished()).count() as i32;
}

/// `status.batch` with what is observed of it.
pub(super) fn batch(look: &Look<'_>) -> Option<BatchStatus> {
    let batch = look.memory().batch.clone()?;
    let effective = look.memory().effective.as_deref();
    let opened = look.slots.unpinned().filter(|slot| slot.opened && slot.assigned == effective);
    let updated =
        opened.filter(|slot| slot.fresh && slot.live.first().is_some_and(|pod| look.slots.has_all(pod))).count() as i32;
    Some(BatchStatus { updated, ..batch })
}

/// `key=value,…` for the scale subresource.
pub(super) fn selector(look: &Look<'_>) -> Option<String> {
    let labels = &look.spec().selector.match_labels;
    let pairs = labels.iter().map(|(key, value)| format!("{key}={value}"));
    let active = look.active.iter().map(|active| format!("{}={active}", names::LABEL_REVISION));
    let pairs: Vec<String> = pairs.chain(active).collect();
    // Cut short it would select other Pods: rather none.
    let text = pairs.join(",");
    (!text.is_empty() && text.len() <= bounds::SELECTOR_CHARS_MAX).then_some(text)
}

/// Which instances run which revision, oldest revision first, and how many revisions are left out.
pub(super) fn versions(look: &Look<'_>) -> (Vec<VersionRange>, i32) {
    let mut by_revision: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in look.snapshot.pods.iter().filter(|pod| pod.is_live()) {
        by_revision.entry(pod.revision.as_str()).or_default().push(pod);
    }
    let mut known: Vec<(&str, Vec<&Pod>)> = by_revision.into_iter().collect();
    known.sort_by_key(|(_, pods)| look.revision(Some(&pods[0].revision)).map_or(0, |revision| revision.number));
    let omitted = known.len().saturating_sub(bounds::VERSIONS_MAX);
    let shown = &known[omitted..];
    let told = |pods: &[&Pod], is: fn(&Pod) -> bool| {
        let numbers: Ranges = pods.iter().filter(|pod| is(pod)).map(|pod| pod.slot).collect();
        let text = numbers.to_string();
        (numbers, text)
    };
    let told: Vec<_> = shown.iter().map(|(_, pods)| [told(pods, |_| true), told(pods, Pod::is_ready)]).collect();
    let lengths = told.iter().flatten().map(|(_, text)| text.len()).collect();
    let share = share(lengths, bounds::VERSIONS_RANGES_CHARS_MAX).min(bounds::RANGES_CHARS_MAX);
    let versions = shown.iter().zip(told).map(|((revision, pods), [all, ready])| {
        let ((instances, instances_omitted), (ready, ready_omitted)) = (within(all, share), within(ready, share));
        let (revision, version) = (clip(revision, 63), clip(&version_of(look, pods[0]), 128));
        VersionRange { revision, version, instances, instances_omitted, ready, ready_omitted }
    });
    (versions.collect(), omitted as i32)
}

/// Numbers, told within so many characters, and how many that leaves out.
fn within((numbers, text): (Ranges, String), chars_max: usize) -> (String, i32) {
    if text.len() <= chars_max {
        return (text, 0);
    }
    let text = numbers.within(chars_max);
    let omitted = numbers.0.len() - Ranges::parse(&text).0.len();
    (text, omitted as i32)
}

/// What the Pod says of itself, else what its revision says.
fn version_of(look: &Look<'_>, pod: &Pod) -> String {
    let known = || look.revision(Some(&pod.revision)).map(|revision| revision::version(&revision.data));
    let version = Some(pod.version.clone()).filter(|version| !version.is_empty());
    version.or_else(known).unwrap_or_else(|| pod.revision.clone())
}

/// Strings for the columns of `kubectl get`.
pub(super) fn display(look: &Look<'_>) -> Display {
    let ready = look.slots.wanted().filter(|slot| look.serves(slot, Pod::is_ready)).count();
    // Of what is worked towards: after a rollback that is not the spec.
    let effective = look.revision(look.memory().effective.as_ref());
    let images: Vec<&str> = effective.into_iter().flat_map(|it| revision::images(&it.data)).map(|(_, it)| it).collect();
    Display {
        ready: format!("{ready}/{}", look.replicas()),
        batch: look.memory().batch.as_ref().map(|b| format!("{}/{}", b.index, b.count)).unwrap_or_default(),
        version: clip(&way(look), 256),
        images: clip(&images.join(","), 1024),
    }
}

/// Characters of the numbers of pinned instances, for each version.
const PINNED_CHARS_MAX: usize = 32;

/// `1.4.1 → 1.4.2` while instances run something else than what is worked towards; `1.4.2; pinned 3: 1.4.1` where some are to.
fn way(look: &Look<'_>) -> String {
    let target = look.version(look.memory().effective.as_ref());
    let (mut from, mut pinned) = (BTreeSet::new(), BTreeMap::<String, Ranges>::new());
    // With strategy BlueGreen of those that clients get: an old set stays for a while, and nothing is rolled out from it.
    let in_use = look.snapshot.pods.iter().filter(|pod| pod.is_live() && look.slots.is_told_in_use(pod));
    for pod in in_use {
        let version = look.slots.called_of(pod);
        let is_pinned = look.slots.wanted_at(pod.slot).is_some_and(|slot| slot.pin.is_some());
        if version != target {
            let _ =
                if is_pinned { pinned.entry(version).or_default().0.insert(pod.slot) } else { from.insert(version) };
        }
    }
    let way = if from.is_empty() {
        target
    } else {
        format!("{} → {target}", from.into_iter().collect::<Vec<_>>().join(", "))
    };
    let numbers = |instances: &Ranges| {
        let short = instances.within(PINNED_CHARS_MAX);
        if short.len() < instances.to_string().len() { short + ",…" } else { short }
    };
    let pinned = pinned.iter().map(|(version, instances)| format!("{}: {version}", numbers(instances)));
    let pinned = pinned.collect::<Vec<_>>().join(", ");
    if pinned.is_empty() { way } else { format!("{way}; pinned {pinned}") }
}
