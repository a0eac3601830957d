//! Images of real nodes: archives that containerd imports.
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::{Containerds, Machine};
use crate::{
    archive::{Archive, Entry},
    cluster::{
        layout::Layout,
        processes::{Processes, Spec},
    },
};

/// The image of the process that holds a Pod's namespaces.
pub const PAUSE: &str = "example.local/pause:1";
/// containerd answers within a second of its start; on a busy machine it takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(100);

/// Imports what every machine needs, and every archive (`*.tar`) in the cluster's folder of images.
pub async fn import_all(
    layout: &Layout,
    versions: &Containerds,
    machine: Machine,
    processes: &Processes,
) -> Result<()> {
    let pause = layout.pki(&format!("pause-{}.tar", machine.number));
    let program = fs::canonicalize(layout.bin.join("pause")).context("cannot find pause")?;
    let entry = Entry { at: "pause".into(), from: program };
    Archive { name: PAUSE.into(), entrypoint: vec!["/pause".into()], entries: vec![entry] }.write(&pause)?;
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    while let Err(error) = import(layout, versions, machine, &pause, processes).await {
        if Instant::now() > deadline {
            return Err(error);
        }
        sleep(POLL).await;
    }
    for archive in archives(&layout.images) {
        import(layout, versions, machine, &archive, processes).await?;
    }
    Ok(())
}

fn archives(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut archives: Vec<_> = entries.filter(|path| path.extension().is_some_and(|it| it == "tar")).collect();
    archives.sort();
    archives
}

/// Makes the images of an archive known to a machine.
pub async fn import(
    layout: &Layout,
    versions: &Containerds,
    machine: Machine,
    archive: &Path,
    processes: &Processes,
) -> Result<()> {
    let name = format!("import-{}-{}", machine.number, archive.file_stem().unwrap_or_default().display());
    let args = ["--namespace", "k8s.io", "images", "import"].map(str::to_owned).into_iter();
    let args = args.chain([archive.display().to_string()]).collect();
    let spec = machine.spec(layout, name, &versions.of(machine).folder(&layout.bin).join("ctr"), args);
    let log = layout.log("imports");
    processes.complete(Spec { log, ..spec }).await
}
