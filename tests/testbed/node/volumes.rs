//! The volumes of a Pod: folders of this machine that its containers see at their mount paths.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, HostPathVolumeSource, ImageVolumeSource, KeyToPath, Pod, ProjectedVolumeSource,
    Volume, VolumeMount,
};

use super::{
    downward::{self, Facts},
    environment::{self, Variables},
    host::Host,
    model,
    publish::{File, Files, publish},
    rootfs::Mount,
    sources::{Data, Kind, Reference, Sources},
    store::PodDir,
    token,
};

const DEFAULT_MODE: i32 = 0o644;

/// The folders of images that are volumes, by the volumes' names.
pub type ImageVolumes = BTreeMap<String, PathBuf>;

/// Makes or refreshes all volumes of a Pod. Returns when the first token wants to be renewed.
pub async fn prepare(host: &Host, pod: &Pod, dir: &PodDir, facts: Facts) -> Result<Option<Duration>> {
    let sources = Sources::fetch(host, model::namespace(pod), references(pod)).await?;
    let mut renew_in: Option<Duration> = None;
    for volume in volumes(pod) {
        let maker = Maker { host, pod, facts, sources: &sources, name: &volume.name };
        let folder = dir.volume(&volume.name);
        let made = maker.make(volume, &folder).await;
        let made = made.with_context(|| format!("MountVolume.SetUp failed for volume \"{}\"", volume.name))?;
        renew_in = renew_in.into_iter().chain(made).min();
    }
    Ok(renew_in)
}

/// Whether the Pod's volumes show things that change: ConfigMaps, Secrets, its own metadata.
pub fn changeable(pod: &Pod) -> bool {
    let projects = |volume: &ProjectedVolumeSource| {
        let mut sources = volume.sources.iter().flatten();
        // Every namespace has this one, and it stays.
        sources.any(|source| {
            source.config_map.as_ref().is_some_and(|map| map.name != "kube-root-ca.crt") || source.secret.is_some()
        })
    };
    volumes(pod).any(|volume| {
        volume.config_map.is_some() || volume.secret.is_some() || volume.projected.as_ref().is_some_and(projects)
    })
}

/// The image volumes that a container mounts, with their names.
pub fn images<'a>(pod: &'a Pod, container: &Container) -> impl Iterator<Item = (&'a str, &'a ImageVolumeSource)> {
    let mounted: BTreeSet<_> = container.volume_mounts.iter().flatten().map(|mount| mount.name.clone()).collect();
    let images = volumes(pod).filter_map(|volume| Some((volume.name.as_str(), volume.image.as_ref()?)));
    images.filter(move |(name, _)| mounted.contains(*name))
}

/// What a container's mounts are, once its Pod's volumes are made.
pub fn mounts(
    pod: &Pod,
    container: &Container,
    dir: &PodDir,
    images: &ImageVolumes,
    variables: &Variables,
) -> Result<Vec<Mount>> {
    let mounts = container.volume_mounts.iter().flatten().map(|mount| {
        let volume = volumes(pod).find(|volume| volume.name == mount.name).context("no such volume")?;
        let folder = match (&volume.host_path, images.get(&volume.name)) {
            (Some(host_path), _) => PathBuf::from(&host_path.path),
            (None, Some(image)) => {
                ensure!(
                    mount.sub_path.is_none() && mount.sub_path_expr.is_none(),
                    "this node has no subPath of images"
                );
                image.clone()
            }
            (None, None) => dir.volume(&volume.name),
        };
        let source = source(mount, &folder, variables).with_context(|| format!("volume mount {}", mount.mount_path))?;
        // What the node writes, or an image is, nobody else may change.
        let published = volume.empty_dir.is_none() && volume.host_path.is_none();
        Ok(Mount {
            source,
            target: Path::new("/").join(&mount.mount_path),
            read_only: published || mount.read_only.unwrap_or(false),
        })
    });
    mounts.collect()
}

/// The volume's folder or what `subPath` names in it, which is made if it is not there.
fn source(mount: &VolumeMount, folder: &Path, variables: &Variables) -> Result<PathBuf> {
    let folder = folder.canonicalize()?;
    let below = match (&mount.sub_path, &mount.sub_path_expr) {
        (_, Some(expression)) => environment::expand_word(expression, variables),
        (below, None) => below.clone().unwrap_or_default(),
    };
    let path = folder.join(&below);
    ensure!(!Path::new(&below).components().any(|part| part.as_os_str() == ".."), "subPath must not contain ..");
    if !path.exists() {
        fs::create_dir_all(&path)?;
    }
    let path = path.canonicalize()?;
    ensure!(path.starts_with(&folder), "subPath leads out of the volume");
    Ok(path)
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

fn references(pod: &Pod) -> BTreeSet<Reference> {
    let mut references = BTreeSet::new();
    for volume in volumes(pod) {
        references.extend(volume.config_map.iter().map(|source| (Kind::ConfigMap, source.name.clone())));
        let secret = volume.secret.iter().filter_map(|source| source.secret_name.clone());
        references.extend(secret.map(|name| (Kind::Secret, name)));
        for source in volume.projected.iter().flat_map(|source| source.sources.iter().flatten()) {
            references.extend(source.config_map.iter().map(|source| (Kind::ConfigMap, source.name.clone())));
            references.extend(source.secret.iter().map(|source| (Kind::Secret, source.name.clone())));
        }
    }
    references
}

/// Makes one volume.
struct Maker<'a> {
    host: &'a Host,
    pod: &'a Pod,
    facts: Facts,
    sources: &'a Sources,
    name: &'a str,
}

impl Maker<'_> {
    async fn make(&self, volume: &Volume, folder: &Path) -> Result<Option<Duration>> {
        let mut files = Files::new();
        if volume.empty_dir.is_some() {
            return empty_dir(folder).map(|()| None);
        } else if volume.image.is_some() {
            return Ok(None); // found at each start, as containers' images are
        } else if let Some(source) = &volume.host_path {
            return host_path(source).map(|()| None);
        } else if let Some(source) = &volume.projected {
            let renew_in = self.project(source, folder, &mut files).await?;
            publish(folder, &files)?;
            return Ok(renew_in);
        } else if let Some(source) = &volume.config_map {
            let data = self.sources.get(Kind::ConfigMap, &source.name, source.optional.unwrap_or(false))?;
            self.add(&mut files, data, source.items.as_deref(), source.default_mode, source.optional)?;
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let data = self.sources.get(Kind::Secret, name, source.optional.unwrap_or(false))?;
            self.add(&mut files, data, source.items.as_deref(), source.default_mode, source.optional)?;
        } else if let Some(source) = &volume.downward_api {
            self.add_downward(&mut files, source.items.as_deref(), source.default_mode)?;
        } else {
            bail!("this node has no volumes of this kind");
        }
        publish(folder, &files)?;
        Ok(None)
    }

    async fn project(
        &self,
        volume: &ProjectedVolumeSource,
        folder: &Path,
        files: &mut Files,
    ) -> Result<Option<Duration>> {
        let mut renew_in: Option<Duration> = None;
        for source in volume.sources.iter().flatten() {
            if let Some(source) = &source.config_map {
                let data = self.sources.get(Kind::ConfigMap, &source.name, source.optional.unwrap_or(false))?;
                self.add(files, data, source.items.as_deref(), volume.default_mode, source.optional)?;
            } else if let Some(source) = &source.secret {
                let data = self.sources.get(Kind::Secret, &source.name, source.optional.unwrap_or(false))?;
                self.add(files, data, source.items.as_deref(), volume.default_mode, source.optional)?;
            } else if let Some(source) = &source.downward_api {
                self.add_downward(files, source.items.as_deref(), volume.default_mode)?;
            } else if let Some(source) = &source.service_account_token {
                let present = folder.join(&source.path);
                let token = token::current(self.host, self.pod, source, &present).await?;
                renew_in = renew_in.into_iter().chain([token.renew_in]).min();
                insert(files, &source.path, volume.default_mode, token.text.into_bytes());
            } else {
                bail!("this node cannot project such a source");
            }
        }
        Ok(renew_in)
    }

    /// Adds the keys of an object: all, or those that `items` chooses.
    fn add(
        &self,
        files: &mut Files,
        data: Option<&Data>,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
        optional: Option<bool>,
    ) -> Result<()> {
        let Some(data) = data else { return Ok(()) };
        let Some(items) = items else {
            for (key, value) in data {
                insert(files, key, mode, value.clone());
            }
            return Ok(());
        };
        for item in items {
            match data.get(&item.key) {
                Some(value) => insert(files, &item.path, item.mode.or(mode), value.clone()),
                None if optional == Some(true) => {}
                None => bail!("references non-existent config key: {} (volume {})", item.key, self.name),
            }
        }
        Ok(())
    }

    fn add_downward(
        &self,
        files: &mut Files,
        items: Option<&[DownwardAPIVolumeFile]>,
        mode: Option<i32>,
    ) -> Result<()> {
        for item in items.into_iter().flatten() {
            let value = if let Some(selector) = &item.field_ref {
                downward::field(self.pod, &selector.field_path, self.facts)?
            } else if let Some(selector) = &item.resource_field_ref {
                downward::resource(self.pod, None, selector)?
            } else {
                String::new()
            };
            insert(files, &item.path, item.mode.or(mode), value.into_bytes());
        }
        Ok(())
    }
}

fn insert(files: &mut Files, path: &str, mode: Option<i32>, content: Vec<u8>) {
    files.insert(path.into(), File { mode: mode.unwrap_or(DEFAULT_MODE) as u32 & 0o777, content });
}

fn empty_dir(folder: &Path) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777))?;
    Ok(())
}

fn host_path(source: &HostPathVolumeSource) -> Result<()> {
    let path = Path::new(&source.path);
    let fits = match source.type_.as_deref().unwrap_or_default() {
        "" => true,
        "DirectoryOrCreate" => {
            fs::create_dir_all(path)?;
            path.is_dir()
        }
        "Directory" => path.is_dir(),
        "FileOrCreate" => {
            fs::File::options().append(true).create(true).open(path)?;
            path.is_file()
        }
        "File" => path.is_file(),
        other => bail!("this node has no hostPath of type {other}"),
    };
    ensure!(
        fits,
        "hostPath type check failed: {} is not a {}",
        path.display(),
        source.type_.as_deref().unwrap_or_default()
    );
    Ok(())
}
