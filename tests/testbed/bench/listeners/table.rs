//! Measured moves as Markdown.
use super::{Case, Measured, peer::Peer, percentile};
use crate::bench::table;

/// Everything.
pub fn markdown(results: &[(Case, Measured)], peer: Option<&Peer>) -> String {
    let name = |case: &Case| format!("{} listeners, {} Pods", case.listeners, case.pods);
    let moves = results.iter().map(|(case, it)| {
        let rolls: Vec<String> = it.rolls.iter().map(|millis| format!("{:.1}", millis / 1_000.0)).collect();
        let mut cells = vec![it.gaps.len().to_string()];
        cells.extend([0.5, 0.99, 1.0].map(|part| format!("{:.1}", percentile(&it.gaps, part))));
        cells.extend([rolls.join(", "), format!("{:.2}", it.ownership_writes), format!("{:.2}", it.session_writes)]);
        cells.extend([format!("{:.2}", it.operator_cpu), it.overlaps.to_string()]);
        (name(case), cells)
    });
    let head = [
        "moves",
        "gap p50, ms",
        "p99",
        "max",
        "rolls, s",
        "writes to ownership Leases, per listener and roll",
        "to session Leases",
        "operator CPU-ms",
        "run twice",
    ];
    let moves = table::rows("", &head, moves);
    let steady = results.iter().map(|(case, it)| {
        let mut cells = vec![format!("{:.1}", it.steady_writes)];
        cells.extend([0.5, 0.99, 1.0].map(|part| format!("{:.0}", percentile(&it.renewals, part))));
        cells.extend([it.api_server_cpu, it.steady_cpu].map(|part| format!("{:.1} %", part * 100.0)));
        cells.push(format!("{:.0}", it.resident_mib));
        (name(case), cells)
    });
    let head = [
        "Lease writes per s",
        "a renewal takes the API server p50, ms",
        "p99",
        "max",
        "API server, part of a core",
        "operator, part of a core",
        "its RSS, MiB",
    ];
    let steady = table::rows("", &head, steady);
    let loss = |millis: &[f64]| [0.5, 1.0].map(|part| format!("{:.2}", percentile(millis, part) / 1_000.0)).to_vec();
    let mut losses = Vec::new();
    for (case, it) in results {
        let name = name(case);
        let [default, fast] = &it.losses.silent;
        losses.extend([
            (format!("{name}: a listener crashes, and starts in place"), loss(&it.losses.crashes)),
            (format!("{name}: the container of a Pod ends, and its node says so"), loss(&it.losses.terminated)),
            (format!("{name}: a Pod falls silent, profile Default (D = 15 s)"), loss(default)),
            (format!("{name}: the same, profile Fast (D = 5 s)"), loss(fast)),
        ]);
    }
    let mut planned = String::new();
    if let Some(peer) = peer {
        losses.push(("client-go leader election, silent leader, 15 s / 10 s / 2 s".to_owned(), loss(&peer.crashed)));
        planned = format!(
            "\n\nclient-go's leader election, whose leader releases its Lease (ReleaseOnCancel): nobody leads for {:.0} ms \
             (p50), {:.0} ms at most, of {}.",
            percentile(&peer.released, 0.5),
            percentile(&peer.released, 1.0),
            peer.released.len()
        );
    }
    let losses = table::rows("", &["p50, s", "max, s"], losses.into_iter());
    format!(
        "**Moved by a Rollout**\n\n{moves}{planned}\n\n**Left alone**\n\n{steady}\n\n**Lost**: from the end of a listener to its \
         next start. Of a Pod that falls silent nothing tells that its processes are dead.\n\n{losses}"
    )
}
