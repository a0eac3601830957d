//! What the agents do in a second: they claim, renew, and take the steps that [`unit::next`] says.
use std::{collections::BTreeMap, time::Duration};

use super::{Agent, World, time};
use crate::{
    plan::listener_set::{
        session::{self, Boottime, Start},
        unit::{self, Runs, Step},
    },
    snapshot::{
        lease::{Claim, Holder, Named, Order, Ownership},
        listener_set::OwnershipSeen,
        report::{Gap, Report, UnitReport, UnitState},
    },
};

impl World {
    pub(super) fn start_agent(&mut self, name: &str) {
        let (now, boottime, version) = (self.now, self.boottime(), self.version());
        let pod = self.pods.get_mut(name).unwrap();
        if pod.agent.is_some() || !pod.has_agent || pod.is_cut_off || pod.seen.is_terminating {
            return;
        }
        let Some(seen) = self.sessions.get_mut(name) else { return };
        let own = seen.watched.session.as_mut().unwrap();
        pod.starts += 1;
        let mut me =
            Holder { pod: name.to_owned(), uid: pod.seen.uid.clone(), boot: 1, random: format!("r{}", pod.starts) };
        let Start::Claim { boot } = session::start(own, &me, true) else { return };
        me.boot = boot;
        (own.claim, own.boot) = (Claim::Held(me.clone()), boot);
        (own.renewed_at, own.acquired_at, own.resource_version) = (Some(time(now)), Some(time(now)), version);
        seen.report = None;
        pod.agent = Some(Agent {
            me,
            started_at: now,
            deadline: session::deadline(boottime, pod.profile.times().stop),
            units: BTreeMap::new(),
            failures: BTreeMap::new(),
            inbox: seen.inbox.clone(),
            renewed_at: now,
            draining: false,
            reported: Report::default(),
            gaps: Vec::new(),
        });
    }

    /// Renews when it is time, or when there is something to report. A refused renewal ends the agent.
    pub(super) fn renew(&mut self, name: &str) {
        let (now, boottime, version) = (self.now, self.boottime(), self.version());
        let pod = self.pods.get_mut(name).unwrap();
        let (profile, is_cut_off, is_deaf) = (pod.profile.times(), pod.is_cut_off, pod.is_deaf);
        let Some(agent) = pod.agent.as_mut().filter(|_| !is_cut_off) else { return };
        let report = report(agent, &self.leases, (self.set.spec.start_budget.is_some(), is_deaf), boottime);
        let drains = self.sessions.get(name).is_some_and(|seen| seen.info.draining != agent.draining);
        if agent.reported == report && !drains && now < agent.renewed_at + profile.renew.as_secs() {
            if let Some(seen) = self.sessions.get(name).filter(|seen| seen.inbox != agent.inbox) {
                agent.inbox.clone_from(&seen.inbox); // its watch
            }
            return;
        }
        let seen = self.sessions.get_mut(name);
        if session::is_over(seen.as_ref().and_then(|seen| seen.watched.session.as_ref()), &agent.me) {
            self.crash(name);
            return;
        }
        let seen = seen.unwrap();
        let own = seen.watched.session.as_mut().unwrap();
        (own.renewed_at, own.resource_version) = (Some(time(now)), version);
        seen.info.draining = agent.draining;
        seen.report = Some(report.clone());
        agent.inbox.clone_from(&seen.inbox);
        agent.deadline = session::deadline(boottime, profile.stop);
        (agent.renewed_at, agent.reported) = (now, report);
    }

    pub(super) fn step_units(&mut self, name: &str) {
        let now = self.boottime();
        let pod = self.pods.get_mut(name).unwrap();
        let (is_cut_off, is_deaf, hangs) = (pod.is_cut_off, pod.is_deaf, pod.hangs);
        let Some(agent) = &mut pod.agent else { return };
        for (listener, seen) in &self.leases {
            let letter = agent.inbox.get(listener).is_some_and(|letter| letter.order == Order::Incoming);
            let is_mine = seen.ownership.holder.as_ref() == Some(&agent.me);
            if !is_cut_off && (is_mine && !is_deaf || letter) {
                agent.units.entry((listener.clone(), seen.ownership.uid.clone())).or_default();
            }
        }
        for key in agent.units.keys().cloned().collect::<Vec<_>>() {
            for _ in 0..6 {
                let pod = self.pods.get_mut(name).unwrap();
                let cannot = pod.cannot.contains(&key.0);
                let agent = pod.agent.as_mut().unwrap();
                let ownership =
                    self.leases.get(&key.0).map(|seen| &seen.ownership).filter(|own| own.uid == key.1).cloned();
                // Without the API server it goes by what it knew: it is its own.
                let ownership = if is_cut_off { cut_off_view(agent, &key) } else { ownership };
                let is_blocked = agent.units.iter().any(|((listener, uid), unit)| {
                    *listener == key.0 && *uid != key.1 && matches!(unit.runs, Runs::Epoch { .. } | Runs::Stops { .. })
                });
                let unit = agent.units.get_mut(&key).unwrap();
                let letter = agent.inbox.get(&key.0);
                let is_invited = letter.is_some_and(|letter| letter.order == Order::Incoming);
                unit.uninvited_since = if is_invited { None } else { unit.uninvited_since.or(Some(now)) };
                let view = unit::View {
                    ownership: ownership.as_ref(),
                    letter,
                    me: &agent.me,
                    deadline: agent.deadline,
                    is_blocked,
                    asks: self.set.spec.start_budget.is_some(),
                    leaves: false,
                    patience: Duration::from_secs(6),
                    now,
                };
                if let Runs::Stops { epoch } = unit.runs
                    && (!hangs || now >= agent.deadline)
                {
                    (unit.runs, unit.tombstone) = (Runs::Nothing, epoch);
                }
                match unit::next(unit, &view) {
                    Step::Prepare if !cannot => unit.runs = Runs::Prepared,
                    Step::Unprepare => unit.runs = Runs::Nothing,
                    Step::Start(epoch) => {
                        let hash = ownership.unwrap().config_hash;
                        if cannot {
                            *agent.failures.entry(key.0.clone()).or_default() += 1;
                            (unit.tombstone, unit.ran_with) = (epoch, Some(hash));
                            unit.rests_until = Boottime(now.0 + Duration::from_secs(5));
                            continue;
                        }
                        agent.failures.remove(&key.0);
                        unit.ran_with = Some(hash.clone());
                        unit.runs = Runs::Epoch { epoch, config_hash: hash };
                        let from = self.leases.get(&key.0).and_then(|seen| seen.from.as_ref());
                        if from.is_some_and(|from| *from != agent.me.to_string()) {
                            agent.gaps.push(Gap { listener: key.0.clone(), epoch, millis: 10 });
                        }
                        assert!(self.started.insert((key.0.clone(), epoch)), "L2: {key:?} {epoch} was started before");
                    }
                    Step::Stop(_) => {
                        let Runs::Epoch { epoch, .. } = unit.runs else { unreachable!() };
                        unit.runs = Runs::Stops { epoch };
                        if hangs && now < agent.deadline {
                            break;
                        }
                        (unit.runs, unit.tombstone) = (Runs::Nothing, epoch);
                    }
                    Step::GiveUp(epoch) => unit.tombstone = epoch,
                    Step::Write(write) => {
                        if is_cut_off {
                            break;
                        }
                        let (me, own) = (agent.me.clone(), ownership.unwrap());
                        let is_move = write.holder.as_ref().is_some_and(|to| *to != me);
                        let version = self.version();
                        // Now and then as where the API server lets no agent write owner references.
                        let named = if write.epoch % 3 == 0 { Named::ByLabel } else { Named::Fully };
                        if self.put(&key.0, &own.uid, &own.resource_version, &write, version, named) && is_move {
                            *self.moves.entry(key.0.clone()).or_default() += 1;
                        }
                    }
                    Step::Prepare | Step::Wait(_) => break,
                }
            }
        }
    }

    /// L1: nothing runs twice.
    pub(super) fn check_running(&self) {
        let mut running: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, pod) in &self.pods {
            for (listener, unit) in pod.agent.iter().flat_map(|agent| &agent.units) {
                if matches!(unit.runs, Runs::Epoch { .. } | Runs::Stops { .. }) {
                    let other = running.insert(&listener.0, name);
                    assert_eq!(other, None, "L1: {} runs twice, in {name}", listener.0);
                }
            }
        }
    }
}

/// It has not heard of anything since it was cut off.
fn cut_off_view(agent: &Agent, key: &(String, String)) -> Option<Ownership> {
    let unit = &agent.units[key];
    let (Runs::Epoch { epoch, .. } | Runs::Stops { epoch }) = unit.runs else { return None };
    let Runs::Epoch { config_hash, .. } = unit.runs.clone() else { return None };
    let (uid, resource_version) = (key.1.clone(), String::new());
    Some(Ownership { holder: Some(agent.me.clone()), epoch, uid, resource_version, state: None, config_hash })
}

fn report(
    agent: &Agent,
    leases: &BTreeMap<String, OwnershipSeen>,
    (asks, is_deaf): (bool, bool),
    now: Boottime,
) -> Report {
    let mut report = Report { set: "uid-set".into(), gaps: agent.gaps.clone(), ..Report::default() };
    let mut held = BTreeMap::new();
    for (listener, seen) in leases {
        let own = &seen.ownership;
        let known = agent.units.get(&(listener.clone(), own.uid.clone()));
        let runs = known.map(|unit| &unit.runs);
        let waits = known.is_some_and(|known| {
            let runs = matches!(known.runs, Runs::Epoch { .. } | Runs::Stops { .. });
            asks && !runs && now >= known.rests_until && unit::waits(known, own)
        });
        let unit = |state, failures| UnitReport {
            epoch: own.epoch,
            state,
            reason: String::new(),
            message: String::new(),
            failures,
        };
        let failures = agent.failures.get(listener).copied().unwrap_or(0);
        if own.holder.as_ref() == Some(&agent.me) && (!is_deaf || known.is_some()) {
            let is_running = matches!(runs, Some(Runs::Epoch { epoch, .. }) if *epoch == own.epoch);
            held.insert(listener.clone(), (own.epoch, is_running));
            if waits {
                report.units.insert(listener.clone(), unit(UnitState::Waiting, failures));
            } else if failures > 0 {
                report.units.insert(listener.clone(), unit(UnitState::Failed, failures));
            }
        } else if runs == Some(&Runs::Prepared) {
            report.units.insert(listener.clone(), unit(UnitState::Prepared, 0));
        }
    }
    report.set_held(&held);
    // What has lost its Lease counts until it has stopped.
    let runs = |unit: &unit::Unit| matches!(unit.runs, Runs::Epoch { .. } | Runs::Stops { .. });
    let lost = agent.units.iter().filter(|((listener, _), unit)| !held.contains_key(listener) && runs(unit));
    report.count += lost.count() as u32;
    report
}
