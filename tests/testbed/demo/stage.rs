//! The stage: a cluster with Baton in it, and everything that must be gone afterwards.
use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time,
};

use super::{
    Args,
    programs::{self, Background, Programs, output_of},
};

/// Namespace of the Rollout.
pub const NAMESPACE: &str = "demo";
/// The operator's identity: it has the rights that config/rbac gives, and no others.
pub const OPERATOR_USER: &str = "system:serviceaccount:baton-system:baton-operator";
/// How often to look whether a program has died.
const WATCH_PERIOD: Duration = Duration::from_millis(250);

/// What is asked for.
pub struct Setup {
    pub dir: PathBuf,
    /// Folder of the control plane's programs.
    pub bin: PathBuf,
    /// The programs that must have been built, besides this one.
    pub needs: &'static [&'static str],
    /// Arguments of `cluster up`.
    pub cluster: Vec<String>,
    /// Leave everything running.
    pub keep: bool,
    /// Use this cluster.
    pub kubeconfig: Option<PathBuf>,
    /// Show what is done.
    pub shows: bool,
}

impl Setup {
    /// The demo's.
    pub fn of(args: Args) -> Self {
        let Args { dir, bin, keep, kubeconfig } = args;
        let cluster = ["--nodes", "process"].map(str::to_owned).into();
        let needs = &["baton-operator", "kubectl-baton", "baton-agent", "examples/web", "examples/listener"];
        Self { dir, bin, needs, cluster, keep, kubeconfig, shows: true }
    }
}

pub struct Stage {
    pub programs: Programs,
    /// Logs, images, reports.
    pub dir: PathBuf,
    /// An administrator's.
    pub kubeconfig: PathBuf,
    /// Runs a command where Pod addresses can be reached; absent: here.
    enter: Option<PathBuf>,
    images: Option<PathBuf>,
    /// Where the API server notes who did what, if it does.
    pub audit_log: Option<PathBuf>,
    /// The cluster, when it is the demo's own and ends with it. It ends when its standard input does.
    cluster: Option<(Child, ChildStdin)>,
    /// Everything else that runs, in order of its start.
    running: Mutex<Vec<Background>>,
    keep: bool,
    own: bool,
    shows: bool,
}

impl Stage {
    /// Starts a cluster of its own, or takes the one that is there.
    pub async fn open(setup: Setup) -> Result<Self> {
        let programs = Programs::find(&setup.bin, setup.needs)?;
        fs::create_dir_all(&setup.dir)?;
        let dir = setup.dir.canonicalize()?;
        let mut stage = Self {
            programs,
            kubeconfig: dir.join("kubeconfig"),
            enter: None,
            images: None,
            audit_log: None,
            cluster: None,
            running: Mutex::default(),
            keep: setup.keep,
            own: setup.kubeconfig.is_none(),
            shows: setup.shows,
            dir,
        };
        match &setup.kubeconfig {
            Some(kubeconfig) => stage.kubeconfig = kubeconfig.canonicalize().context("cannot find that KUBECONFIG")?,
            None => stage.start_cluster(&setup).await?,
        }
        // A cluster of `make cluster-up` has these beside its kubeconfig.
        let beside = |name: &str| Some(stage.kubeconfig.with_file_name(name)).filter(|path| path.exists());
        (stage.enter, stage.images, stage.audit_log) = (beside("enter"), beside("images"), beside("logs/audit.log"));
        Ok(stage)
    }

    async fn start_cluster(&mut self, setup: &Setup) -> Result<()> {
        // One that an earlier `KEEP=1` has left.
        self.end_cluster().await?;
        let mut command = Command::new(self.programs.this());
        command.args(["cluster", "up", "--dir"]).arg(&self.dir).arg("--bin").arg(&setup.bin).args(&setup.cluster);
        if !self.keep {
            command.args(["--foreground", "--lifeline", "always"]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut cluster = command.spawn().context("cannot start a cluster")?;
        let lifeline = cluster.stdin.take().context("no pipe")?;
        let mut lines = BufReader::new(cluster.stdout.take().context("no pipe")?).lines();
        while let Some(line) = lines.next_line().await? {
            if line.starts_with("export KUBECONFIG=") {
                if !self.keep {
                    self.cluster = Some((cluster, lifeline));
                }
                return Ok(());
            }
            self.say(&line);
        }
        bail!("the cluster did not start ({})", cluster.wait().await?)
    }

    async fn end_cluster(&self) -> Result<()> {
        let mut down = Command::new(self.programs.this());
        output_of(down.args(["cluster", "down", "--dir"]).arg(&self.dir)).await.map(drop)
    }

    /// Makes the images of these versions of `examples/web`; the broken one says why it cannot start, and exits with 3.
    pub fn make_images(&self, good: &[&str], broken: &str) -> Result<()> {
        let Some(images) = &self.images else {
            println!("  images example.local/web:{{{}, {broken}}} must be there already", good.join(", "));
            return Ok(());
        };
        for version in good {
            let program = self.image(images, "web", version)?.join("web");
            let example = self.programs.built("examples/web");
            fs::hard_link(&example, &program).or_else(|_| fs::copy(&example, &program).map(drop))?;
        }
        let program = self.image(images, "web", broken)?.join("web");
        fs::write(&program, include_str!("../../../examples/web/broken.sh"))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// Makes the images of these versions of `examples/listener`, each with the agent, which is called as the image.
    pub fn make_bots(&self, name: &str, versions: &[&str]) -> Result<()> {
        let Some(images) = &self.images else {
            println!("  images example.local/{name}:{{{}}} must be there already", versions.join(", "));
            return Ok(());
        };
        for version in versions {
            let folder = self.image(images, name, version)?;
            for (program, of) in [(name, "baton-agent"), ("listener", "examples/listener")] {
                let (built, program) = (self.programs.built(of), folder.join(program));
                fs::hard_link(&built, &program).or_else(|_| fs::copy(&built, &program).map(drop))?;
            }
        }
        Ok(())
    }

    /// The new folder of an image.
    #[allow(clippy::unused_self)] // reads as the others
    fn image(&self, images: &Path, name: &str, version: &str) -> Result<PathBuf> {
        let folder = images.join(name).join(version);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        // Equal programs, but different images: they have different digests.
        fs::write(folder.join("VERSION"), version)?;
        Ok(folder)
    }

    /// CRDs, and the operator under its own ServiceAccount.
    pub async fn install(&self) -> Result<()> {
        let others = ["get", "deployments", "-A", "-l", "app.kubernetes.io/name=baton", "-o", "name"];
        let others = self.kubectl(&others).await?;
        if !others.trim().is_empty() {
            bail!("Baton is installed in this cluster already ({}): it would be judged, not this build", others.trim());
        }
        self.show(&["apply", "-f", "crds/"]).await?;
        self.kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd/rollouts.baton.dev",
            "crd/listenersets.baton.dev",
        ])
        .await?;
        self.show(&["apply", "-f", "config/manager/namespace.yaml"]).await?;
        self.show(&["apply", "-k", "config/rbac"]).await?;
        for policy in ["leases", "rollouts", "hooks"] {
            self.show(&["apply", "-f", &format!("config/policy/{policy}.yaml")]).await?;
        }
        let kubeconfig = self.operator_kubeconfig().await?;
        let mut operator = self.inside(self.programs.built("baton-operator"));
        operator
            .env("KUBECONFIG", kubeconfig)
            .args(["--lease-namespace", "baton-system"])
            // Not all addresses: those of the Pods are among them.
            .args(["--bind", "127.0.0.1:8081"]);
        self.run("operator", operator, false)?;
        Ok(())
    }

    /// The administrator's kubeconfig with the operator's token in the place of the administrator's certificate.
    async fn operator_kubeconfig(&self) -> Result<PathBuf> {
        let token =
            self.kubectl(&["create", "token", "baton-operator", "-n", "baton-system", "--duration=24h"]).await?;
        let path = self.dir.join("operator.kubeconfig");
        let mut file = fs::File::create(&path)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(&fs::read(&self.kubeconfig)?)?;
        let path_text = path.display().to_string();
        let config = ["config", "--kubeconfig", &path_text];
        let token = format!("--token={token}");
        self.kubectl(&[&config[..], &["set-credentials", "operator", &token]].concat()).await?;
        self.kubectl(&[&config[..], &["set-context", "--current", "--user=operator"]].concat()).await?;
        Ok(path)
    }

    /// Starts a program that is to run until it is stopped. Answers its output when that is `piped`.
    pub fn run(&self, name: &'static str, command: Command, piped: bool) -> Result<Option<ChildStdout>> {
        let log = self.dir.join("logs").join(format!("{name}.log"));
        let mut program = Background::start(name, command, log, piped, self.keep && !piped)?;
        let output = program.output();
        self.running().push(program);
        Ok(output)
    }

    /// Ends a program; it must end well.
    pub async fn stop(&self, name: &str) -> Result<()> {
        let found = self.running().iter().position(|it| it.name == name);
        let mut program = self.running().remove(found.with_context(|| format!("{name} does not run"))?);
        let status = program.stop().await?;
        ensure!(status.success(), "{name} ended with {status}\n{}", program.tail());
        Ok(())
    }

    /// Returns once a program has ended that should run, with what is to be said about it.
    pub async fn watch(&self) -> anyhow::Error {
        loop {
            if let Err(ended) = self.running().iter_mut().try_for_each(Background::check) {
                return ended;
            }
            time::sleep(WATCH_PERIOD).await;
        }
    }

    fn running(&self) -> MutexGuard<'_, Vec<Background>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command with the demo's environment, where Pod addresses can be reached.
    pub fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match &self.enter {
            Some(enter) => {
                let mut command = Command::new(enter);
                command.arg(program);
                command
            }
            None => Command::new(program),
        };
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// A kubectl that finds its plugin.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(self.programs.control_plane.join("kubectl"));
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig).env("PATH", self.programs.path()?);
        Ok(command)
    }

    /// What `kubectl ARGUMENTS` prints.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output_of(&mut self.kubectl_command(arguments)?).await
    }

    /// Runs kubectl as a person would, visibly.
    pub async fn show(&self, arguments: &[&str]) -> Result<()> {
        self.say(&format!("$ kubectl {}", quoted(arguments)));
        self.kubectl(arguments).await?.lines().for_each(|line| self.say(line));
        Ok(())
    }

    fn say(&self, line: &str) {
        if self.shows {
            println!("  {line}");
        }
    }

    /// An administrator's client.
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::try_from(self.config().await?)?)
    }

    /// An administrator's way to the API server.
    pub async fn config(&self) -> Result<Config> {
        let file = Kubeconfig::read_from(&self.kubeconfig)?;
        Ok(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?)
    }

    /// What helps to understand a failure.
    pub async fn explain(&self) {
        println!();
        for arguments in [
            &["get", "rollouts.baton.dev,listenersets.baton.dev,pods", "-o", "wide", "-n", NAMESPACE][..],
            &["get", "events", "--sort-by=.lastTimestamp", "-n", NAMESPACE],
        ] {
            println!("--- kubectl {}", arguments.join(" "));
            match self.kubectl(arguments).await {
                Ok(output) => println!("{output}"),
                Err(error) => println!("{error:#}"),
            }
        }
        self.running().iter().for_each(|program| println!("{}", program.tail()));
        if self.own {
            for name in ["process-1", "kube-controller-manager", "kube-apiserver"] {
                println!("{}", programs::tail(&self.dir.join(format!("logs/{name}.log"))));
            }
        }
    }

    /// Ends everything that the demo has started or made, or says how to look around in it.
    pub async fn clear(mut self) -> Result<()> {
        if self.keep {
            self.say_what_runs();
            return Ok(());
        }
        let running = std::mem::take(&mut *self.running());
        for mut program in running.into_iter().rev() {
            if let Err(error) = program.stop().await {
                println!("  {} cannot be stopped: {error:#}", program.name); // the others are to end all the same
            }
        }
        if let Some((mut cluster, lifeline)) = self.cluster.take() {
            drop(lifeline);
            cluster.wait().await?;
        }
        if !self.own {
            self.show(&["delete", "namespace", NAMESPACE, "--ignore-not-found"]).await?;
            println!(
                "  The CRDs and the roles of config/rbac stay. Without them no Rollout lives on, nor do its Pods;"
            );
            println!("  where there are none: kubectl delete -k config/rbac -f crds/");
        }
        Ok(())
    }

    fn say_what_runs(&self) {
        println!("\nEverything still runs. Look around:");
        println!("  export KUBECONFIG={}", self.kubeconfig.display());
        let [built, control_plane] = [&self.programs.built, &self.programs.control_plane].map(|path| path.display());
        println!("  export PATH={built}:{control_plane}:$PATH");
        println!("  kubectl baton get rollout web -n {NAMESPACE} -w");
        println!("  kubectl get rollouts.baton.dev,pods -n {NAMESPACE}");
        println!("  tail -f {}", self.dir.join("logs/operator.log").display());
        if let Some(enter) = &self.enter {
            println!("  {} curl -s http://POD-IP:8080/", enter.display());
        }
        if self.own {
            println!("End it:\n  make cluster-down CLUSTER={}", self.dir.display());
        } else {
            let operators: Vec<_> = self.running().iter().filter_map(Background::id).collect();
            println!("The operator runs on this machine: process {operators:?}.");
        }
    }
}

/// Arguments as a shell takes them.
fn quoted(arguments: &[&str]) -> String {
    let quote = |word: &&str| {
        let plain = word.chars().all(|c| c.is_alphanumeric() || "-_./=:,".contains(c));
        if plain { (*word).to_owned() } else { format!("'{word}'") }
    };
    arguments.iter().map(quote).collect::<Vec<_>>().join(" ")
}
