//! `list`: the Rollouts of a namespace, or of all, a line for each.
use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{
    Connection,
    draw::{
        Options,
        list::{Row, list},
    },
    hints, kubeconfig,
    output::{Output, say},
    screen::Screen,
};
use crate::{
    api::Rollout,
    client::{Cluster, asked},
    snapshot::guard::DeserializeGuard,
    view::{Tone, rollout::state},
};

/// Rollouts in one answer of the API server.
const PAGE: u32 = 500;

/// `kubectl baton list -A`
#[derive(Args, Debug)]
pub(super) struct List {
    /// List the Rollouts of every namespace.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Output format. wide: also the whole messages. json, yaml: the objects as they are. name: only the names.
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

impl List {
    pub async fn run(&self, connection: &Connection) -> Result<()> {
        print(connection, self.all_namespaces, self.output).await
    }
}

/// Prints the list.
pub(super) async fn print(connection: &Connection, everywhere: bool, output: Option<Output>) -> Result<()> {
    let cluster = kubeconfig::connect(connection).await?;
    let (client, namespace) = (cluster.client.clone(), &cluster.namespace);
    if let Some(output @ (Output::Json | Output::Yaml)) = output {
        let kind = ApiResource::erase::<Rollout>(&());
        let api: Api<DynamicObject> =
            if everywhere { Api::all_with(client, &kind) } else { Api::namespaced_with(client, namespace, &kind) };
        let mut items = all(&cluster, api).await?;
        for item in &mut items {
            item.metadata.managed_fields = None; // as kubectl does
        }
        return output.print(&json!({"apiVersion": "v1", "kind": "List", "items": items}));
    }
    let api: Api<DeserializeGuard<Rollout>> =
        if everywhere { Api::all(client) } else { Api::namespaced(client, namespace) };
    let rollouts = all(&cluster, api).await?;
    if output == Some(Output::Name) {
        for rollout in &rollouts {
            say(&format!("rollout.baton.dev/{}", rollout.name_any()));
        }
        return Ok(());
    }
    if rollouts.is_empty() {
        let place = if everywhere { String::new() } else { format!(" in namespace {namespace}") };
        say(&format!("there are no Rollouts{place}"));
        return Ok(());
    }
    let options = Options { wide: output.is_some(), width: Screen::new().width(), now: Timestamp::now() };
    let rows: Vec<Row> = rollouts.iter().map(row).collect();
    for line in list(&rows, everywhere, options) {
        say(&line);
    }
    Ok(())
}

/// Page by page.
async fn all<K>(cluster: &Cluster, api: Api<K>) -> Result<Vec<K>>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let mut found = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let answer = hints::explained(cluster, asked::<Rollout, _>(None, api.list(&page))).await?;
        found.extend(answer.items);
        match answer.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

fn row(rollout: &DeserializeGuard<Rollout>) -> Row {
    let (namespace, name) = (rollout.namespace().unwrap_or_default(), rollout.name_any());
    let created = rollout.creation_timestamp().map(|at| at.0);
    match &rollout.0 {
        Err(unreadable) => Row {
            namespace,
            name,
            created,
            ready: String::new(),
            updated: 0,
            state: (Tone::Bad, "Unreadable".into()),
            version: String::new(),
            message: format!("this version of the plugin cannot read it: {}", unreadable.error),
        },
        Ok(rollout) => {
            let status = rollout.status.clone().unwrap_or_default();
            let (tone, word, message) = state(&status, rollout.metadata.generation);
            let display = status.display.unwrap_or_default();
            Row {
                namespace,
                name,
                created,
                ready: display.ready,
                updated: status.updated_replicas,
                state: (tone, word),
                version: display.version,
                message,
            }
        }
    }
}
