//! Which of two resourceVersions is the later one.
use std::cmp::Ordering;

/// True when resourceVersion `a` is not older than `b`. Since Kubernetes 1.35 they are promised to be comparable as
/// integers of any length within a resource type; where one is not a number, only equality counts.
pub fn is_at_least(a: &str, b: &str) -> bool {
    compare(a, b).map_or(a == b, Ordering::is_ge)
}

/// True when resourceVersion `a` is certainly older than `b`: never where one is not a number.
pub fn is_older(a: &str, b: &str) -> bool {
    compare(a, b).is_some_and(Ordering::is_lt)
}

/// None where one is not a number.
fn compare(a: &str, b: &str) -> Option<Ordering> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(a) && is_number(b)).then(|| {
        let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
        (a.len(), a).cmp(&(b.len(), b))
    })
}
