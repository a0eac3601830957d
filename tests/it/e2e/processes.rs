//! The processes of listeners, as the kernel shows them: what ran at the same time is seen here even where a process has no
//! network any more, so that the exchange hears nothing of it.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// How often the processes are looked at: an overlap that is shorter may be missed.
const PERIOD: Duration = Duration::from_millis(20);
/// A process that is younger may yet become a listener, by exec.
const YOUNG: Duration = Duration::from_secs(30);
/// The example that runs a listener, one process each.
const COMMAND: &str = "listener";

/// Namespace and name of a listener.
type Key = (String, String);

/// What was seen so far.
#[derive(Default)]
struct Seen {
    /// How many processes each listener has had.
    processes: BTreeMap<Key, BTreeSet<u32>>,
    /// How long which processes of one listener were there at the same time, at least.
    overlaps: BTreeMap<(Key, BTreeSet<u32>), Duration>,
    looked_at: Option<Instant>,
}

/// A watch in the background that ends with the test program.
pub struct Processes(Arc<Mutex<Seen>>);

impl Processes {
    pub fn watch() -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            let mut table = Table::default();
            loop {
                let living = table.look();
                shared.lock().unwrap().note(living);
                thread::sleep(PERIOD);
            }
        });
        Self(seen)
    }

    /// The watch goes on.
    pub fn assert_watching(&self) {
        let looked_at = self.0.lock().unwrap().looked_at;
        assert!(
            looked_at.is_some_and(|at| at.elapsed() < Duration::from_secs(5)),
            "processes are not watched any more"
        );
    }

    /// How many processes the listeners of this namespace have had.
    pub fn count(&self, namespace: &str) -> usize {
        let seen = self.0.lock().unwrap();
        seen.processes.iter().filter(|((of, _), _)| of == namespace).map(|(_, processes)| processes.len()).sum()
    }

    /// Listeners of this namespace that ran twice at the same time, in words.
    pub fn overlaps(&self, namespace: &str) -> Vec<String> {
        let seen = self.0.lock().unwrap();
        let ours = seen.overlaps.iter().filter(|(((of, _), _), _)| of == namespace);
        let words = |(((_, name), processes), time): (&(Key, BTreeSet<u32>), &Duration)| {
            format!("{name}: processes {processes:?} ran at the same time for {} ms or more", time.as_millis())
        };
        ours.map(words).collect()
    }
}

impl Seen {
    fn note(&mut self, living: BTreeMap<Key, BTreeSet<u32>>) {
        self.looked_at = Some(Instant::now());
        for (key, processes) in living {
            self.processes.entry(key.clone()).or_default().extend(&processes);
            if processes.len() > 1 {
                *self.overlaps.entry((key, processes)).or_default() += PERIOD;
            }
        }
    }
}

/// All processes of the machine: since when each is known, and the listener that it runs.
#[derive(Default)]
struct Table(BTreeMap<u32, (Instant, Option<Key>)>);

impl Table {
    /// The living processes of each listener.
    fn look(&mut self) -> BTreeMap<Key, BTreeSet<u32>> {
        let now = Instant::now();
        let pids =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let pids: BTreeSet<u32> = pids.collect();
        self.0.retain(|pid, _| pids.contains(pid));
        let mut living: BTreeMap<Key, BTreeSet<u32>> = BTreeMap::new();
        for pid in pids {
            let (since, key) = self.0.entry(pid).or_insert((now, None));
            if key.is_none() && now.duration_since(*since) < YOUNG {
                *key = listener_of(pid);
            }
            if let Some(key) = key.as_ref().filter(|_| lives(pid)) {
                living.entry(key.clone()).or_default().insert(pid);
            }
        }
        living
    }
}

fn listener_of(pid: u32) -> Option<Key> {
    if fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end() != COMMAND {
        return None;
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variables = String::from_utf8_lossy(&environment).into_owned();
    let value =
        |name: &str| variables.split('\0').find_map(|it| it.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
    Some((value("BATON_POD_NAMESPACE")?, value("BATON_LISTENER")?))
}

/// A process that has ended and was not reaped yet does nothing any more.
pub fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
