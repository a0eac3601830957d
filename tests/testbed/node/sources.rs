//! ConfigMaps and Secrets that a Pod refers to.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use tokio::time::timeout;

use super::host::{CALL_TIMEOUT, Host};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Secret,
}

/// A reference to an object in the Pod's namespace.
pub type Reference = (Kind, String);

/// The keys and values of an object.
pub type Data = BTreeMap<String, Vec<u8>>;

/// Objects as they were a moment ago; nothing for those that do not exist.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<Reference, Option<Data>>);

impl Sources {
    /// Asks for all of them with the node's identity, which may read what its Pods refer to.
    pub async fn fetch(host: &Host, namespace: &str, wanted: BTreeSet<Reference>) -> Result<Self> {
        let mut found = BTreeMap::new();
        for (kind, name) in wanted {
            let data = timeout(CALL_TIMEOUT, fetch(host, namespace, kind, &name)).await;
            let data =
                data.context("no answer in time")?.with_context(|| format!("cannot read {}", title(kind, &name)))?;
            found.insert((kind, name), data);
        }
        Ok(Self(found))
    }

    /// The data of an object; nothing if it does not exist and need not.
    pub fn get(&self, kind: Kind, name: &str, optional: bool) -> Result<Option<&Data>> {
        match self.0.get(&(kind, name.to_owned())) {
            Some(Some(data)) => Ok(Some(data)),
            _ if optional => Ok(None),
            _ => anyhow::bail!("{} not found", title(kind, name)),
        }
    }

    /// One value; nothing if it does not exist and need not.
    pub fn value(&self, kind: Kind, name: &str, key: &str, optional: bool) -> Result<Option<&Vec<u8>>> {
        let value = self.get(kind, name, optional)?.and_then(|data| data.get(key));
        anyhow::ensure!(optional || value.is_some(), "couldn't find key {key} in {}", title(kind, name));
        Ok(value)
    }

    #[cfg(test)]
    pub fn of(kind: Kind, name: &str, pairs: &[(&str, &str)]) -> Self {
        let data = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
        Self(BTreeMap::from([((kind, name.to_owned()), Some(data))]))
    }
}

fn title(kind: Kind, name: &str) -> String {
    match kind {
        Kind::ConfigMap => format!("configmap \"{name}\""),
        Kind::Secret => format!("secret \"{name}\""),
    }
}

async fn fetch(host: &Host, namespace: &str, kind: Kind, name: &str) -> kube::Result<Option<Data>> {
    match kind {
        Kind::ConfigMap => {
            let found = Api::<ConfigMap>::namespaced(host.client.clone(), namespace).get_opt(name).await?;
            Ok(found.map(|found| {
                let text = found.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
                text.chain(found.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0))).collect()
            }))
        }
        Kind::Secret => {
            let found = Api::<Secret>::namespaced(host.client.clone(), namespace).get_opt(name).await?;
            Ok(found.map(|found| found.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect()))
        }
    }
}
