//! How a Pod behaves is told by its image: `web:3-crash` is the third version, whose program crashes. Or by an annotation of
//! that content, where applications are told of versions.
use std::time::Duration;

use serde_json::Value;

/// The annotation.
pub const VERSION: &str = "version";

/// What tells the version of a Pod, or of a template.
pub fn version_of(template: &Value) -> &str {
    let annotation = template["metadata"]["annotations"][VERSION].as_str();
    annotation.or(template["spec"]["containers"][0]["image"].as_str()).unwrap_or_default()
}

/// What becomes of a Pod of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Ready within seconds.
    Good,
    /// Ready within half a minute.
    Slow,
    /// Ready, not ready, ready … and then steady.
    Flapping,
    /// Its image is not there.
    PullError,
    /// It refers to a ConfigMap that is not there.
    ConfigError,
    /// It crashes at start.
    Crash,
    /// It runs, and is never ready.
    NeverReady,
}

/// Those that work.
pub const GOOD: [Behaviour; 3] = [Behaviour::Good, Behaviour::Slow, Behaviour::Flapping];
/// Those that do not.
pub const BAD: [Behaviour; 4] = [Behaviour::PullError, Behaviour::ConfigError, Behaviour::Crash, Behaviour::NeverReady];

impl Behaviour {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Slow => "slow",
            Self::Flapping => "flap",
            Self::PullError => "pull",
            Self::ConfigError => "config",
            Self::Crash => "crash",
            Self::NeverReady => "never",
        }
    }

    /// Whether a rollout of it can complete.
    pub fn works(self) -> bool {
        GOOD.contains(&self)
    }

    /// Tag of the image of the version with this number.
    pub fn tag(self, number: u32) -> String {
        format!("{number}-{}", self.word())
    }

    /// Of an image.
    pub fn of_image(image: &str) -> Self {
        let word = image.rsplit('-').next().unwrap_or_default();
        GOOD.into_iter().chain(BAD).find(|behaviour| behaviour.word() == word).unwrap_or(Self::Good)
    }
}

/// Of a Pod that is made so: by its image, and by what its application finds when it starts.
pub fn behaviour_of(pod: &Value) -> Behaviour {
    let of_image = Behaviour::of_image(pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default());
    if of_image.works() { Behaviour::of_image(version_of(pod)) } else { of_image }
}

/// A state that a kubelet reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Accepted by the node; containers are being created.
    Creating,
    /// A container waits with this reason.
    Waiting(&'static str),
    /// It runs, and is not ready.
    Running,
    /// It is ready.
    Ready,
    /// Its program has ended so often, and begins again.
    Crashed(i32),
    /// It has ended so often, and is waited with.
    BackOff(i32),
}

/// The stages of a Pod of this behaviour, each with the time since the one before.
pub fn life(behaviour: Behaviour, rng: &mut fastrand::Rng) -> Vec<(Duration, Stage)> {
    let mut millis = |from: u64, to: u64| Duration::from_millis(rng.u64(from..to));
    let mut stages = vec![(millis(1, 300), Stage::Creating)];
    match behaviour {
        Behaviour::Good => stages.extend([(millis(50, 3_000), Stage::Running), (millis(10, 2_000), Stage::Ready)]),
        Behaviour::Slow => {
            stages.extend([(millis(500, 15_000), Stage::Running), (millis(1_000, 15_000), Stage::Ready)]);
        }
        Behaviour::Flapping => {
            stages.push((millis(50, 2_000), Stage::Running));
            for _ in 0..millis(1, 5).as_millis() {
                stages.extend([(millis(100, 8_000), Stage::Ready), (millis(100, 4_000), Stage::Running)]);
            }
            stages.push((millis(100, 4_000), Stage::Ready));
        }
        Behaviour::PullError => stages.extend([
            (millis(200, 3_000), Stage::Waiting("ErrImagePull")),
            (millis(5_000, 15_000), Stage::Waiting("ImagePullBackOff")),
        ]),
        Behaviour::ConfigError => stages.push((millis(200, 3_000), Stage::Waiting("CreateContainerConfigError"))),
        Behaviour::NeverReady => stages.push((millis(50, 3_000), Stage::Running)),
        Behaviour::Crash => {
            for (restarts, pause) in [(0, 10), (1, 20), (2, 40), (3, 80), (4, 160)] {
                stages.extend([
                    (millis(50, 1_000), Stage::Running),
                    (millis(50, 2_000), Stage::Crashed(restarts)),
                    (Duration::from_millis(100), Stage::BackOff(restarts)),
                    (Duration::from_secs(pause), Stage::Creating),
                ]);
            }
            stages.push((millis(50, 1_000), Stage::BackOff(5)));
        }
    }
    stages
}
