//! The order in which a cluster comes up, and what "ready" means.
use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::time::{sleep, timeout};

use super::{
    UpArgs,
    certificates::{self, Authority},
    components, kubeconfig, kwok,
    layout::{Layout, shell_word},
    machine, nodes,
    nodes::NodesSpec,
    processes::Processes,
};

/// A cold start on a busy machine takes a multiple of the usual seconds; a broken one takes for ever.
const START_TIMEOUT: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(100);
const LOG_TAIL_LINES: usize = 20;

/// Starts everything and returns when the cluster is ready.
pub async fn start(layout: &Layout, args: &UpArgs, processes: &Arc<Processes>) -> Result<()> {
    let nodes = args.nodes;
    let run = |spec| args.tuning.of(spec).map_or(Ok(()), |spec| processes.run(spec));
    let begun = Instant::now();
    let deadline = begun + START_TIMEOUT;
    let step = |what: &str| println!("{:5.1} s  {what}", begun.elapsed().as_secs_f32());

    let authority = Authority::new()?;
    certificates::write_shared(layout, &authority)?;
    components::write_kubeconfigs(layout, &authority)?;
    components::write_audit_policy(layout)?;
    run(components::etcd(layout))?;
    run(components::kube_apiserver(layout))?;
    let program = env::current_exe()?;
    let names: Vec<String> = nodes.machines().map(machine::Machine::kubelet).collect();
    if !names.is_empty() {
        machine::cgroups::make(&layout.dir, &names)?;
    }
    for machine in nodes.machines() {
        run(machine.power(layout, &program)?)?;
        run(machine.runtime(layout, &args.containerd)?)?;
    }

    let client = admin(&layout.pki("admin.kubeconfig")).await?;
    let wait = Wait { deadline, processes };
    wait.until("the API server to be ready", "kube-apiserver", async || readyz(&client).await).await?;
    step("kube-apiserver is ready");

    run(components::kube_controller_manager(layout, nodes))?;
    run(components::kube_scheduler(layout))?;
    for number in 1..=nodes.process {
        run(nodes::process_node(layout, &program, number, &authority)?)?;
    }
    let imports = nodes.machines().map(|machine| machine::import_all(layout, &args.containerd, machine, processes));
    try_join_all(imports).await.context("cannot import images")?;
    for machine in nodes.machines() {
        run(machine.node(layout, &authority)?)?;
    }
    if nodes.kwok > 0 {
        nodes::create_kwok_nodes(&client, nodes).await.context("cannot create the simulated nodes")?;
        run(kwok::kwok(layout, nodes)?)?;
    }
    let node_keeper = match nodes {
        NodesSpec { kubelet: 1.., .. } => "kubelet-1",
        NodesSpec { process: 1.., .. } => "process-1",
        _ => "kwok",
    };
    wait.until("all nodes to be Ready", node_keeper, async || nodes::check_ready(&client, nodes).await).await?;
    nodes::label_process_nodes(&client, nodes).await.context("cannot label the process nodes")?;
    step(&format!("{} nodes are Ready ({nodes})", nodes.total()));
    let accounts = Api::<ServiceAccount>::namespaced(client, "default");
    wait.until("the default ServiceAccount", "kube-controller-manager", async || {
        accounts.get("default").await.map(drop).map_err(Into::into)
    })
    .await?;
    step("the default ServiceAccount exists");

    // Last, so that whoever waits for the file finds a cluster that is ready.
    kubeconfig::write(layout, &layout.kubeconfig(), "admin", Some("system:masters"), &authority)
}

/// Writes `DIR/enter`, which runs a command inside.
pub fn write_enter(layout: &Layout) -> Result<()> {
    let script = format!(
        "#!/bin/sh\n# Runs a command inside the cluster's namespaces, where Pod addresses can be reached.\n\
         exec {} cluster enter --dir {} -- \"$@\"\n",
        shell_word(&env::current_exe()?),
        shell_word(&layout.dir),
    );
    let path = layout.dir.join("enter");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

async fn admin(path: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(path)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn readyz(client: &Client) -> Result<()> {
    let request = hyper::Request::get("/readyz").body(Vec::new())?;
    client.request_text(request).await?;
    Ok(())
}

struct Wait<'a> {
    deadline: Instant,
    processes: &'a Processes,
}

impl Wait<'_> {
    /// Repeats `check` until it succeeds; when time is up says what it waited for, why it was not so, and
    /// what the component that should have seen to it has logged.
    async fn until<F: AsyncFn() -> Result<()>>(&self, what: &str, component: &str, check: F) -> Result<()> {
        let mut last = None;
        while Instant::now() < self.deadline {
            match timeout(Duration::from_secs(5), check()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => last = Some(error),
                Err(_) => last = Some(anyhow::anyhow!("no answer within 5 s")),
            }
            sleep(POLL).await;
        }
        let reason = last.map_or_else(String::new, |error| format!(" ({error:#})"));
        let tail = self.processes.log_of(component).map(|log| tail(&log)).unwrap_or_default();
        bail!("waited {} s in vain for {what}{reason}\n{tail}", START_TIMEOUT.as_secs())
    }
}

/// The end of a log, for people.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
    format!("The end of {}:\n{}", log.display(), last.join("\n"))
}
