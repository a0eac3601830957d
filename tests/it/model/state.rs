//! One state of the modelled world, in small integers. Times are ticks relative to now.
use std::{
    fmt,
    hash::{Hash, Hasher},
};

/// Processes that a Pod has in all, one after another; also the highest boot that is claimed.
pub const PROCESSES: u8 = 4;
/// The highest epoch of a listener.
pub const EPOCHS: u8 = 7;

/// Who a holderIdentity names: nobody, or the boot that one process of a Pod has claimed.
#[derive(Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Who(u8);

impl Who {
    pub const NOBODY: Self = Self(0);

    pub fn new(pod: usize, process: u8, boot: u8) -> Self {
        Self(1 + pod as u8 * 16 + (process - 1) * 4 + boot - 1)
    }

    pub fn pod(self) -> usize {
        usize::from((self.0 - 1) / 16)
    }

    pub fn process(self) -> u8 {
        (self.0 - 1) % 16 / 4 + 1
    }

    pub fn boot(self) -> u8 {
        (self.0 - 1) % 4 + 1
    }

    pub fn from_index(index: u8) -> Self {
        Self(index)
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Debug for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NOBODY {
            return f.write_str("nobody");
        }
        write!(f, "{}{}", ["A", "B", "C"][self.pod()], self.process())?;
        if self.boot() == self.process() { Ok(()) } else { write!(f, "(boot {})", self.boot()) }
    }
}

/// A request that claims or renews the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Renewal {
    #[default]
    None,
    Sent,
    /// Done, and not yet answered.
    Committed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Claimed {
    #[default]
    Empty,
    Held,
    Fenced,
}

/// A session Lease, and how long nothing came from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Session {
    pub exists: bool,
    pub claim: Claimed,
    /// Which process has claimed it.
    pub process: u8,
    /// leaseTransitions.
    pub boot: u8,
    /// Ticks since it was renewed, claimed, fenced, made or deleted.
    pub silent: u8,
    /// Ticks since it was claimed, fenced, made or deleted.
    pub settled: u8,
    /// It cannot be decoded: whoever looks learns that it is there, and nothing else.
    pub is_unreadable: bool,
}

impl Session {
    /// A renewal was done. One of a session that cannot be read is no sign of life.
    pub fn renew(&mut self) {
        if !self.is_unreadable {
            self.silent = 0;
        }
    }
}

/// What one process does with one listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unit {
    /// The epoch that it runs; 0: none.
    pub runs: u8,
    pub tombstone: u8,
    /// PUT in flight that gives this epoch away, maybe of a process that is no more; 0: none.
    pub put: u8,
    /// The epoch that an application without its agent runs; 0: none.
    pub orphan: u8,
}

#[allow(clippy::struct_excessive_bools, reason = "each is true or not whatever the others are")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instance<const L: usize> {
    /// Which process of this Pod there is, or was last; from 1.
    pub process: u8,
    pub lives: bool,
    /// It knows that it has claimed its session.
    pub knows: bool,
    /// The boot that each process has claimed; 0: none.
    pub boots: [u8; PROCESSES as usize],
    /// Ticks until all that it runs is killed.
    pub deadline: u8,
    pub renewal: Renewal,
    /// Ticks since that was sent.
    pub age: u8,
    pub session: Session,
    /// Its session was fenced at some time.
    pub was_fenced: bool,
    /// The process whose boot was fenced last: that stays dead when its session goes; 0: none.
    pub fenced: u8,
    /// Bit n: the end of process n was told without having been seen; in a sidecar's Pod that of the application beside it.
    pub unseen: u8,
    /// The Pod object was deleted by force.
    pub pod_gone: bool,
    /// Bit n: the application that ran beside process n has ended, and the kubelet says so.
    pub application_ended: u8,
    /// Ticks until orphans are killed.
    pub orphan_deadline: u8,
    pub units: [Unit; L],
}

impl<const L: usize> Instance<L> {
    pub fn has_orphan(&self) -> bool {
        self.units.iter().any(|unit| unit.orphan > 0)
    }

    /// The process is no more; what it has sent may still come in.
    pub fn end(&mut self) {
        (self.lives, self.knows, self.deadline, self.renewal, self.age) = (false, false, 0, Renewal::None, 0);
        for unit in &mut self.units {
            (unit.runs, unit.tombstone) = (0, 0);
        }
    }

    fn packed(&self) -> u128 {
        let mut bits = Bits(0);
        let s = &self.session;
        let flags = [self.lives, self.knows, self.was_fenced, self.pod_gone, s.exists, s.is_unreadable];
        bits.add(flags.iter().fold(0, |all, flag| all << 1 | u8::from(*flag)), 6);
        for (value, width) in [
            (self.process, 3),
            (self.deadline, 3),
            (self.renewal as u8, 2),
            (self.age, 3),
            (s.claim as u8, 2),
            (s.process, 3),
            (s.boot, 3),
            (s.silent, 3),
            (s.settled, 3),
            (self.application_ended, 5),
            (self.fenced, 3),
            (self.unseen, 5),
            (self.orphan_deadline, 3),
        ] {
            bits.add(value, width);
        }
        for boot in self.boots {
            bits.add(boot, 3);
        }
        for unit in &self.units {
            for epoch in [unit.runs, unit.tombstone, unit.put, unit.orphan] {
                bits.add(epoch, 3);
            }
        }
        bits.0
    }
}

/// The ownership Lease of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Of its present version: each version has its own.
    pub epoch: u8,
    /// Whom each version named; those after `epoch` are nobody.
    pub holders: [Who; EPOCHS as usize + 1],
    /// Bit n: epoch n was started.
    pub started: u8,
}

impl Listener {
    fn packed(&self) -> u128 {
        let mut bits = Bits(0);
        bits.add(self.epoch, 3);
        bits.add(self.started, 8);
        for holder in self.holders {
            bits.add(holder.0, 6);
        }
        bits.0
    }
}

/// Faults that have happened; each configuration bounds them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    pub crashes: u8,
    pub force_deletes: u8,
    pub slow_ticks: u8,
    pub re_creations: u8,
    pub sessions_lost: u8,
    pub shims: u8,
    pub unreadable: u8,
}

/// I Pods, L listeners.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State<const I: usize, const L: usize> {
    pub instances: [Instance<L>; I],
    pub listeners: [Listener; L],
    pub faults: Faults,
    /// Ticks so far, up to D: how old the oldest view can be.
    pub clock: u8,
    /// An epoch was started again.
    pub started_twice: bool,
    /// An ownership was given a lower epoch than it had.
    pub went_back: bool,
}

impl<const I: usize, const L: usize> State<I, L> {
    /// The first Pod runs every listener at epoch 1.
    pub fn new(kill_after: u8) -> Self {
        let session = Session { exists: true, claim: Claimed::Held, process: 1, boot: 1, ..Session::default() };
        let instance = Instance {
            process: 1,
            lives: true,
            knows: true,
            boots: [1, 0, 0, 0],
            deadline: kill_after,
            renewal: Renewal::None,
            age: 0,
            session,
            was_fenced: false,
            fenced: 0,
            unseen: 0,
            pod_gone: false,
            application_ended: 0,
            orphan_deadline: 0,
            units: [Unit::default(); L],
        };
        let mut holders = [Who::NOBODY; EPOCHS as usize + 1];
        holders[1] = Who::new(0, 1, 1);
        let mut state = Self {
            instances: [instance; I],
            listeners: [Listener { epoch: 1, holders, started: 1 << 1 }; L],
            faults: Faults::default(),
            clock: 0,
            started_twice: false,
            went_back: false,
        };
        for unit in &mut state.instances[0].units {
            unit.runs = 1;
        }
        state
    }

    /// Applications that run this listener now.
    pub fn owners(&self, listener: usize) -> usize {
        let units = self.instances.iter().map(|instance| instance.units[listener]);
        units.map(|unit| usize::from(unit.runs > 0) + usize::from(unit.orphan > 0)).sum()
    }

    /// The second and the third Pod have no role of their own: of two states that differ in their names one is looked at.
    #[must_use]
    pub fn canonical(self) -> Self {
        if I < 3 || self.instances[1].packed() < self.instances[2].packed() {
            return self;
        }
        let mut other = self;
        other.instances.swap(1, 2);
        for holder in other.listeners.iter_mut().flat_map(|listener| &mut listener.holders) {
            if *holder != Who::NOBODY && holder.pod() > 0 {
                *holder = Who::new(3 - holder.pod(), holder.process(), holder.boot());
            }
        }
        let same = self.instances[1].packed() == self.instances[2].packed();
        let key = |state: &Self| state.listeners.map(|listener| listener.packed());
        if same && key(&self) < key(&other) { self } else { other }
    }
}

/// As few writes to the hasher as possible: most of the time is spent here.
impl<const I: usize, const L: usize> Hash for State<I, L> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        for instance in &self.instances {
            hasher.write_u128(instance.packed());
        }
        for listener in &self.listeners {
            hasher.write_u128(listener.packed());
        }
        let faults = &self.faults;
        let mut bits = Bits(0);
        for value in [
            faults.crashes,
            faults.force_deletes,
            faults.slow_ticks,
            faults.re_creations,
            faults.sessions_lost,
            faults.shims,
            faults.unreadable,
            self.clock,
            u8::from(self.started_twice),
            u8::from(self.went_back),
        ] {
            bits.add(value, 6);
        }
        hasher.write_u64(bits.0 as u64);
    }
}

struct Bits(u128);

impl Bits {
    fn add(&mut self, value: u8, width: u32) {
        debug_assert!(u32::from(value) < 1 << width, "{value} in {width} bits");
        self.0 = self.0 << width | u128::from(value);
    }
}
