//! What it takes to run something else again: which revision is meant, and which pins the spec is to have then.
use std::collections::BTreeMap;

use crate::{
    api::{bounds::INSTANCES_CHARS_MAX, rollout::Pin},
    plan::{Memory, package, revision, rollout},
    snapshot::{Pod, Ranges, Revision, Snapshot},
};

/// The revision that a person means: by the name of its ControllerRevision, else by its version. Without a word: the newest
/// that completed, other than the one that the spec asks for, and has not failed since.
///
/// # Errors
/// A sentence: there is none, and which there are.
pub fn revision<'a>(snapshot: &'a Snapshot, word: Option<&str>) -> Result<&'a Revision, String> {
    let usable = || snapshot.revisions.iter().filter(|revision| !revision.deleting);
    let newest = |found: &dyn Fn(&&Revision) -> bool| {
        usable().filter(found).max_by_key(|revision| (revision.number, &revision.name))
    };
    let found = if let Some(word) = word {
        let named = newest(&|revision| revision.name == word);
        named.or_else(|| newest(&|revision| revision::version(&revision.data) == word))
    } else {
        let data = revision::data(&snapshot.rollout.spec);
        let works =
            |revision: &&Revision| revision.completed_at.is_some() && revision.failed_at <= revision.completed_at;
        let completed = usable().filter(works).filter(|revision| revision.data != data);
        completed.max_by_key(|revision| (revision.completed_at, revision.number, &revision.name))
    };
    found.ok_or_else(|| {
        let mut known: Vec<&Revision> = usable().collect();
        known.sort_by_key(|revision| std::cmp::Reverse(revision.number));
        let known: Vec<_> = known.iter().map(|r| format!("{} ({})", revision::version(&r.data), r.name)).collect();
        let (what, choose) = word.map_or_else(
            || ("no earlier revision has completed, and not failed since".to_owned(), "; --to chooses one"),
            |word| (format!("no revision is {word}"), ""),
        );
        if known.is_empty() { what } else { format!("{what}; there is {}{choose}", known.join(", ")) }
    })
}

/// Characters of a version that a pin may say; a tag may have more.
const VERSION_CHARS_MAX: usize = 63;

/// A pin, of no instances yet, to this revision: with what its tags and URL give today.
pub fn as_it_is(revision: &Revision) -> Pin {
    Pin { revision: Some(revision.name.clone()), ..Pin::default() }
}

/// A pin, of no instances yet, to what its first Pod ran: images and package by their digests.
///
/// # Errors
/// A sentence: that was not noted of one of them.
pub fn as_it_ran(revision: &Revision) -> Result<Pin, String> {
    let unknown = |what: &str| format!("which {what} of {} ran is not known", revision.name);
    let tagged = revision::images(&revision.data).filter(|(_, image)| !image.contains('@'));
    let then = tagged.map(|(name, image)| {
        let noted = revision.image_digests.as_ref().and_then(|digests| digests.get(name));
        let digest = noted.ok_or_else(|| unknown(&format!("image container {name}")))?;
        Ok((name.to_owned(), format!("{image}@{digest}")))
    });
    let images: BTreeMap<_, _> = then.collect::<Result<_, String>>()?;
    let mut package = package::of(&revision.data).filter(package::is_open);
    if let Some(package) = &mut package {
        // It is not noted of an image: the kubelet does not say which one a volume has.
        package.sha256 = Some(revision.package_sha256.clone().ok_or_else(|| unknown("package"))?);
    }
    if images.is_empty() && package.is_none() {
        return Ok(as_it_is(revision));
    }
    // A version that is taken from an image would be that of the digest.
    let version = revision::version(&revision.data);
    let version = Some(version.chars().take(VERSION_CHARS_MAX).collect());
    let images = Some(images).filter(|images| !images.is_empty());
    Ok(Pin { base: Some(revision.name.clone()), version, images, package, ..Pin::default() })
}

/// Instances that have failed in the present run, or in the one that was given up; and those that fail now and are in no run:
/// pinned ones, and those that came by scaling.
pub fn failed(snapshot: &Snapshot) -> Ranges {
    let memory = Memory::of(snapshot.rollout.status.as_ref());
    let counted = memory.failed.as_ref().map(|failed| Ranges::parse(&failed.slots)).unwrap_or_default();
    let fails = |pod: &Pod| rollout::failure_of(pod).is_some_and(|failure| failure.counts(snapshot.now));
    let slots = rollout::slots(snapshot, &memory);
    let failed = slots.wanted().filter(|slot| {
        counted.0.contains(&slot.index) || slot.live.first().or(slot.finished.first()).is_some_and(|pod| fails(pod))
    });
    failed.map(|slot| slot.index).collect()
}

/// The pins, and these instances pinned like this; in as many pins as it takes to name them all.
pub fn pinned(pins: &[Pin], instances: &Ranges, pin: &Pin) -> Vec<Pin> {
    unpinned(pins, instances).into_iter().chain(split(instances.clone(), pin)).collect()
}

/// This pin of these instances, as often as it takes.
fn split(mut left: Ranges, pin: &Pin) -> Vec<Pin> {
    let mut pins = Vec::new();
    while !left.is_empty() {
        let text = left.within(INSTANCES_CHARS_MAX);
        let named = Ranges::parse(&text);
        left.0.retain(|slot| !named.0.contains(slot));
        pins.push(Pin { instances: text, ..pin.clone() });
    }
    pins
}

/// The pins without these instances.
pub fn unpinned(pins: &[Pin], instances: &Ranges) -> Vec<Pin> {
    let without = |pin: &Pin| {
        let named = Ranges::parse(&pin.instances);
        let left: Ranges = named.0.difference(&instances.0).copied().collect();
        if left == named {
            return vec![pin.clone()]; // as it was written
        }
        split(left, pin)
    };
    pins.iter().flat_map(without).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(instances: &str, revision: &str) -> Pin {
        Pin { instances: instances.into(), revision: Some(revision.into()), ..Pin::default() }
    }

    /// C5 C6
    #[test]
    fn a_pin_takes_its_instances_from_others() {
        let pins = [pin("0-3", "a"), pin("5", "b")];
        assert_eq!(pinned(&pins, &Ranges::parse("2,5"), &pin("", "c")), [pin("0-1,3", "a"), pin("2,5", "c")]);
        let odd: Ranges = (0..1_000).map(|half| half * 2).collect();
        let many = pinned(&[], &odd, &pin("", "c"));
        assert!(many.len() == 5 && many.iter().all(|pin| pin.instances.len() <= INSTANCES_CHARS_MAX), "{}", many.len());
        assert_eq!(many.iter().flat_map(|pin| Ranges::parse(&pin.instances).0).collect::<Ranges>(), odd);
        assert_eq!(unpinned(&pins, &Ranges::parse("0-9")), []);
        assert_eq!(unpinned(&pins, &Ranges::parse("7")), pins);
    }
}
