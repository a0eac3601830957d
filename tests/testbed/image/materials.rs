//! The bill of materials of a program (CycloneDX).
//!
//! cargo-cyclonedx knows hashes and licences, but counts features that only tests switch on. `cargo tree` knows which
//! crates really go in. It names each as `name vVERSION`, one a line, with more words after that for some.
use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// The document of cargo-cyclonedx without the crates that `cargo tree` does not list, nor the paths of this machine; with the
/// standard library, which no crate is. `compiler` is what `rustc --version` says.
pub fn of_program(name: &str, document: &str, tree: &str, compiler: &str) -> Result<Vec<u8>> {
    let crates: BTreeSet<(&str, &str)> = tree.lines().filter_map(name_and_version).collect();
    let mut document: Value = serde_json::from_str(document).context("the bill of materials is no JSON")?;
    let root = &mut document["metadata"]["component"];
    let (id, version) = (text(root, "bom-ref"), text(root, "version"));
    root["components"] = Value::Null;
    root["name"] = name.into();
    root["purl"] = format!("pkg:generic/{name}@{version}").into();
    // cargo-cyclonedx was asked for all targets; the crates that are left belong to the image.
    document["metadata"]["properties"] = Value::Null;
    let mut kept: BTreeSet<String> = [id.clone()].into();
    retain(&mut document["components"], |component| {
        let (name, version) = (text(component, "name"), text(component, "version"));
        crates.contains(&(&*name, &*version)) && kept.insert(text(component, "bom-ref"))
    });
    // One of them is the program itself.
    ensure!(kept.len() == crates.len(), "{} crates go in, and {} are described", crates.len(), kept.len());
    let rust = compiler.split(' ').nth(1).context("--compiler is not what `rustc --version` says")?;
    let standard_library = json!({
        "bom-ref": format!("rust-std@{rust}"), "name": "rust-std", "version": rust, "type": "library", "scope": "required",
        "purl": format!("pkg:generic/rust-std@{rust}"),
        "description": "Rust's standard library for musl targets, with musl libc in it",
    });
    document["components"].as_array_mut().context("no components are described")?.push(standard_library);
    retain(&mut document["dependencies"], |dependency| {
        retain(&mut dependency["dependsOn"], |on| on.as_str().is_some_and(|on| kept.contains(on)));
        kept.contains(&text(dependency, "ref"))
    });
    without_nulls(&mut document);
    Ok(serde_json::to_string_pretty(&document)?.replace(&id, &format!("{name}@{version}")).into_bytes())
}

fn name_and_version(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split(' ');
    Some((words.next()?, words.next()?.strip_prefix('v')?))
}

fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_default().to_owned()
}

fn retain(list: &mut Value, keep: impl FnMut(&mut Value) -> bool) {
    if let Some(list) = list.as_array_mut() {
        list.retain_mut(keep);
    }
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}
