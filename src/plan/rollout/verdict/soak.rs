//! What holds the end of a run while its instances are watched.
use super::holds;
use crate::{
    api::{names::instance_name, soak::OnBreach},
    plan::{
        change::{Hold, HoldReason},
        rollout::run::View,
    },
};

/// status.soak is about the present run.
pub(crate) fn is_of_run(view: &View<'_>) -> bool {
    view.memory.soak.as_ref().is_some_and(|soak| soak.run == view.memory.run)
}

/// The instances are watched, or are to be; or a limit was broken and a person has to say so.
pub(crate) fn soaking(view: &View<'_>) -> Option<Hold> {
    let settings = view.spec().soak.as_ref().filter(|_| !view.lineage.is_first())?;
    let Some(soak) = view.memory.soak.as_ref().filter(|_| is_of_run(view)) else {
        let message = format!("all instances are available; they are watched for {} s (spec.soak)", settings.seconds);
        return Some(Hold { reason: HoldReason::Soaking, message, until: None });
    };
    // After the pause of the last batch: an approval of that says nothing of what has been broken since.
    let index = view.memory.batch.as_ref().map_or(1, |batch| batch.count) + 1;
    let rollout = view.snapshot.rollout.metadata.name.as_deref().unwrap_or_default();
    let broken = soak.breaches.first().map(|first| {
        let others =
            if soak.breaches.len() > 1 { format!(" and {} more", soak.breaches.len() - 1) } else { String::new() };
        format!("{}: {}{others}", instance_name(rollout, first.instance), first.message)
    });
    if let Some(broken) = broken.as_ref().filter(|_| settings.on_breach == OnBreach::Pause)
        && !holds::is_approved(view, index)
    {
        let approval = holds::approval(view, "approve", index);
        let message =
            format!("a limit of spec.soak was broken ({broken}); waiting for approval to complete the run: {approval}");
        return Some(Hold { reason: HoldReason::AwaitingApproval, message, until: None });
    }
    let until = soak.until.as_ref()?.0;
    let broken = broken.map_or_else(|| "nothing has broken a limit".into(), |broken| format!("broken: {broken}"));
    let message = format!("soaking until {until}; {broken}");
    (until > view.now()).then_some(Hold { reason: HoldReason::Soaking, message, until: Some(until) })
}
