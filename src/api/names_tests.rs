use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// DNS labels as the CRD lets them through, of few letters, so that a clash would be found.
fn set() -> impl Strategy<Value = String> {
    "[a-b]([-a-b0]{0,4}[a-b0])?"
}

fn listener() -> impl Strategy<Value = String> {
    "[a-b0]([-a-b0]{0,4}[a-b0])?"
}

/// DNS subdomains, some of which look like the names that Baton makes.
fn pod() -> impl Strategy<Value = String> {
    let word = prop_oneof![Just("session".to_owned()), Just("listener".to_owned()), listener()];
    prop::collection::vec(word, 1..4).prop_map(|words| words.join("."))
}

/// What a Lease is for, read back from its name: if that is always possible, no two names are the same.
#[derive(Debug, PartialEq)]
enum Meaning<'a> {
    Session(&'a str),
    Listener(&'a str, &'a str),
}

fn meaning(lease: &str) -> Option<Meaning<'_>> {
    match lease.split_once('.')? {
        ("session", pod) => Some(Meaning::Session(pod)),
        ("listener", rest) => rest.split_once('.').map(|(set, listener)| Meaning::Listener(set, listener)),
        _ => None,
    }
}

proptest! {
    /// L10
    #[test]
    fn names_of_leases_are_injective(set in set(), listener in listener(), pod in pod()) {
        let session = session_lease_name(&pod).unwrap();
        prop_assert_eq!(meaning(&session), Some(Meaning::Session(&pod)));
        let ownership = listener_lease_name(&set, &listener);
        prop_assert_eq!(meaning(&ownership), Some(Meaning::Listener(&set, &listener)));
    }

    #[test]
    fn holders_are_told_apart_by_a_label_value(one in "[a-z/0-9-]{0,20}", other in "[a-z/0-9-]{0,20}") {
        prop_assert_eq!(holder_label(&one) == holder_label(&other), one == other);
        let label = holder_label(&one);
        prop_assert!(label.len() == 32 && label.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}

#[test]
fn a_boot_of_its_own_is_a_holder_of_its_own() {
    let boots = ["bots-3-x/9c1b/1-f00d", "bots-3-x/9c1b/2-f00d", "bots-3-x/9c1b/2-beef", "bots-3-x/9c1c/1-f00d"];
    let labels: BTreeSet<_> = boots.iter().map(|identity| holder_label(identity)).collect();
    assert_eq!(labels.len(), boots.len());
    // Agents and controllers of different releases must agree.
    assert_eq!(holder_label(""), "e3b0c44298fc1c149afbf4c8996fb924");
}

#[test]
fn the_longest_names_fit_or_are_none() {
    let longest = listener_lease_name(&"s".repeat(40), &"l".repeat(63));
    assert_eq!(longest.len(), 113);
    assert_eq!(session_lease_name(&"p".repeat(245)).unwrap().len(), 253);
    assert_eq!(session_lease_name(&"p".repeat(246)), None);
    // The part of an annotation's key behind the slash has at most 63 characters.
    for annotation in [inbox_annotation(&"s".repeat(40)), report_annotation(&"s".repeat(40))] {
        let (prefix, name) = annotation.split_once('/').unwrap();
        assert!(prefix.ends_with(".baton.dev") && name.len() <= 63, "{annotation}");
    }
}
