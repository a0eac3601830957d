//! Starting one container: find the image, compute the environment, make the process.
use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Container as ContainerSpec, Pod};
use tokio::task::spawn_blocking;

use super::{
    downward::Facts,
    environment::{self, Variables},
    host::Host,
    image::Image,
    log_reader::{LogReader, Wanted},
    model::{self, Attempt, End, PULL_ERROR, Waiting},
    process::{Process, new_attempt},
    rootfs::{IMAGE, Mount, Root},
    shim::Spec,
    sources::Sources,
    store::PodDir,
    volumes::{self, ImageVolumes},
};

/// An executable of this name in the image's folder runs where a Pod gives no command.
const ENTRYPOINT: &str = "entrypoint";
/// The limits of a termination message, and of one that is taken from the log.
const MAX_MESSAGE_BYTES: usize = 4096;
const MAX_LOG_MESSAGE_BYTES: usize = 2048;
const MAX_MESSAGE_LINES: usize = 80;
/// Annotation: the Pod's processes live on where a shim of it is killed, as with containerd 2.
const OUTLIVES_SHIM: &str = "testbed.baton.dev/outlives-shim";
const TERMINATION_LOG: &str = "/dev/termination-log";

/// What a start needs to know of its Pod.
#[derive(Clone)]
pub struct Surroundings {
    pub host: Arc<Host>,
    pub pod: Arc<Pod>,
    pub dir: PodDir,
    pub facts: Facts,
}

/// What a start came to.
pub enum Outcome {
    /// A process was made, or was to be made and could not be: then the attempt has ended.
    Attempted(Attempt, Option<Process>),
    /// It did not come to that.
    Waiting(Waiting),
}

impl Surroundings {
    /// Starts a container for the `number`-th time, counted from 0.
    pub async fn start(&self, container: &ContainerSpec, number: u32) -> Outcome {
        self.try_start(container, number).await.unwrap_or_else(|error| {
            Outcome::Waiting(Waiting { reason: "CreateContainerError", message: format!("{error:#}") })
        })
    }

    async fn try_start(&self, container: &ContainerSpec, number: u32) -> Result<Outcome> {
        let reference = container.image.clone().unwrap_or_default();
        let image_volumes = match self.image_volumes(container).await? {
            Ok(folders) => folders,
            Err(waiting) => return Ok(Outcome::Waiting(waiting)),
        };
        let image = match self.image(&reference, container.image_pull_policy.as_deref()).await? {
            Ok(image) => image,
            Err(waiting) => return Ok(Outcome::Waiting(waiting)),
        };
        let environment = match self.environment(container).await {
            Ok(environment) => environment,
            Err(error) => {
                let message = format!("{error:#}");
                return Ok(Outcome::Waiting(Waiting { reason: "CreateContainerConfigError", message }));
            }
        };
        let dir = self.dir.attempt(&container.name, number);
        dir.create()?;
        let spec = self.spec(container, number, image.folder, &image_volumes, environment)?;
        let mut attempt = new_attempt(number, &reference, &image.id);
        dir.write_record(&attempt)?;
        self.dir.prune(&container.name)?;
        let process = match Process::start(&dir, &spec).await? {
            Ok((process, started_at)) => {
                attempt.started_at = started_at;
                Some(process)
            }
            Err(end) => {
                attempt.end = Some(end);
                None
            }
        };
        Ok(Outcome::Attempted(attempt, process))
    }

    /// The folders of the image volumes that a container mounts.
    async fn image_volumes(&self, container: &ContainerSpec) -> Result<Result<ImageVolumes, Waiting>> {
        let mut folders = ImageVolumes::new();
        for (name, source) in volumes::images(&self.pod, container) {
            let reference = source.reference.as_deref().unwrap_or_default();
            match self.image(reference, source.pull_policy.as_deref()).await? {
                Ok(image) => drop(folders.insert(name.to_owned(), image.folder)),
                Err(waiting) => return Ok(Err(waiting)),
            }
        }
        Ok(Ok(folders))
    }

    async fn image(&self, reference: &str, pull_policy: Option<&str>) -> Result<Result<Image, Waiting>> {
        let (host, wanted) = (Arc::clone(&self.host), reference.to_owned());
        let found = spawn_blocking(move || host.images.find(&wanted)).await?;
        let never = pull_policy == Some("Never");
        Ok(found.map_err(|waiting| match waiting.reason {
            PULL_ERROR if never => Waiting {
                reason: "ErrImageNeverPull",
                message: format!("Container image \"{reference}\" is not present with pull policy of Never"),
            },
            _ => waiting,
        }))
    }

    async fn environment(&self, container: &ContainerSpec) -> Result<Variables> {
        let references = environment::references(container);
        let sources = Sources::fetch(&self.host, model::namespace(&self.pod), references).await?;
        environment::of(&self.pod, container, self.facts, &sources)
    }

    fn spec(
        &self,
        container: &ContainerSpec,
        number: u32,
        image: PathBuf,
        image_volumes: &ImageVolumes,
        variables: Variables,
    ) -> Result<Spec> {
        let expand = |word: &String| environment::expand_word(word, &variables);
        let mut command: Vec<String> = container.command.iter().flatten().map(expand).collect();
        if command.is_empty() {
            ensure!(image.join(ENTRYPOINT).is_file(), "no command specified, and the image has no file `{ENTRYPOINT}`");
            command.push(format!("{IMAGE}/{ENTRYPOINT}"));
        }
        command.extend(container.args.iter().flatten().map(expand));
        let mut mounts = self.own_mounts()?;
        let source = self.dir.attempt(&container.name, number).termination_message();
        let target = container.termination_message_path.as_deref().unwrap_or(TERMINATION_LOG).into();
        mounts.push(Mount { source, target, read_only: false });
        mounts.extend(volumes::mounts(&self.pod, container, &self.dir, image_volumes, &variables)?);
        let annotations = self.pod.metadata.annotations.as_ref();
        let annotation = annotations.and_then(|all| all.get(OUTLIVES_SHIM)).map(String::as_str);
        // So that one within another is not hidden by it.
        mounts.sort_by(|one, other| one.target.cmp(&other.target));
        Ok(Spec {
            command,
            working_dir: container.working_dir.clone().unwrap_or_else(|| IMAGE.into()),
            hostname: model::hostname(&self.pod).to_owned(),
            log: self.dir.log(&container.name, number),
            environment: environment::complete(variables, &self.pod, self.facts).into_iter().collect(),
            root: Root { image, mounts },
            outlives_shim: annotation == Some("true"),
        })
    }

    /// Files that every container of the Pod sees.
    fn own_mounts(&self) -> Result<Vec<Mount>> {
        let name = model::hostname(&self.pod);
        let mut hosts = format!("127.0.0.1\tlocalhost\n{}\t{name}\n", self.facts.pod_ip);
        for alias in self.pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten()) {
            let names = alias.hostnames.iter().flatten().map(String::as_str).collect::<Vec<_>>();
            hosts.extend([alias.ip.as_str(), "\t", &names.join("\t"), "\n"]);
        }
        let files = [("hosts", hosts), ("hostname", format!("{name}\n"))];
        let mounts = files.into_iter().map(|(file, content)| {
            let source = self.dir.file(file);
            std::fs::write(&source, content).with_context(|| format!("cannot write {}", source.display()))?;
            Ok(Mount { source, target: format!("/etc/{file}").into(), read_only: false })
        });
        mounts.collect()
    }
}

/// The numbers of a container's ports that have names.
pub fn named_ports(container: &ContainerSpec) -> Vec<(String, u16)> {
    let ports = container.ports.iter().flatten();
    ports.filter_map(|port| Some((port.name.clone()?, u16::try_from(port.container_port).ok()?))).collect()
}

/// Adds what the container has left as its last words: in a file, or in its log if it has failed and
/// its Pod wants that.
pub fn last_words(dir: &PodDir, container: &ContainerSpec, number: u32, mut end: End) -> End {
    if end.message.is_some() {
        return end;
    }
    let file = dir.attempt(&container.name, number).termination_message();
    let mut words = end_of(std::fs::read(file).unwrap_or_default(), MAX_MESSAGE_BYTES);
    let from_log = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if words.is_empty() && from_log && end.exit_code != 0 {
        words = log_end(dir.log(&container.name, number));
    }
    end.message = Some(String::from_utf8_lossy(&words).into_owned()).filter(|words| !words.is_empty());
    end
}

fn log_end(path: PathBuf) -> Vec<u8> {
    let wanted = Wanted { tail_lines: Some(MAX_MESSAGE_LINES), ..Wanted::default() };
    let mut words = Vec::new();
    let take = |piece: Vec<u8>| {
        words.extend(piece);
        true
    };
    // Without a log there are no words.
    let _ = LogReader { path, wanted }.read(|| true, take);
    end_of(words, MAX_LOG_MESSAGE_BYTES)
}

fn end_of(mut words: Vec<u8>, bytes_max: usize) -> Vec<u8> {
    words.split_off(words.len().saturating_sub(bytes_max))
}

/// The newest start of a container and the one before it, as an earlier run of the node has left them,
/// with the newest one's process if that lives.
pub async fn recover(
    dir: &PodDir,
    container: &ContainerSpec,
) -> Result<(Option<Attempt>, Option<Attempt>, Option<Process>)> {
    let mut kept = Vec::new();
    for number in dir.attempts(&container.name) {
        let attempt_dir = dir.attempt(&container.name, number);
        // A node that died before it wrote the record had not started anything either.
        let Ok(mut attempt) = attempt_dir.record() else { continue };
        let process = match Process::adopt(&attempt_dir).await? {
            Ok((process, _)) => Some(process),
            Err(end) => {
                attempt.end = Some(last_words(dir, container, number, end));
                None
            }
        };
        if let Some(started) = attempt_dir.started() {
            attempt.started_at = started.at;
        }
        kept.push((attempt, process));
    }
    let newest = kept.pop();
    let previous = kept.pop().map(|(attempt, _)| attempt);
    let (attempt, process) = newest.unzip();
    Ok((attempt, previous, process.flatten()))
}
