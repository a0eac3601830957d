//! What container engines read.
use std::{collections::BTreeMap, io::Read};

use clap::Parser;
use serde_json::{Value, json};

use super::{layer::digest, program::Program, *};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// An ELF file with one program header.
fn elf(machine: u8, kind: u8, bytes: usize) -> Vec<u8> {
    let mut elf = vec![0; bytes.max(120)];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    (elf[18], elf[32], elf[54], elf[56], elf[64]) = (machine, 64, 56, 1, kind);
    elf
}

fn args(repository: &str) -> Args {
    let args = [
        "image",
        "--program=x",
        "--revision=abc",
        "--created=1700000000",
        "--to=y",
        "--tag=1.2",
        "--source=z",
        "--materials=m",
        "--tree=t",
        "--compiler=rustc 1.95.0",
    ];
    Cli::parse_from(args.into_iter().chain(["--repository", repository])).args
}

fn entries(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (1_700_000_000, 0));
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().display().to_string(), content)
    });
    entries.collect()
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn one_tarball_is_what_containerd_and_docker_read() {
    let programs = [62, 183].map(|machine| Program::of(elf(machine, 1, 0), 16).unwrap());
    let (tarball, image) = make(&args("example.local/baton-agent"), &programs).unwrap();
    let files = entries(&tarball);
    let blob = |descriptor: &Value| {
        let wanted = descriptor["digest"].as_str().unwrap();
        let bytes = &files[&format!("blobs/{}", wanted.replace(':', "/"))];
        assert_eq!((digest(bytes).as_str(), json!(bytes.len())), (wanted, descriptor["size"].clone()));
        bytes.clone()
    };
    assert_eq!(parsed(&files["oci-layout"]), json!({"imageLayoutVersion": "1.0.0"}));
    let top = parsed(&files["index.json"])["manifests"][0].clone();
    assert_eq!(top["digest"], json!(image));
    assert_eq!(top["annotations"]["io.containerd.image.name"], "example.local/baton-agent:1.2");
    let index = parsed(&blob(&top));
    let mut seen = Vec::new();
    for (descriptor, program) in index["manifests"].as_array().unwrap().iter().zip(&programs) {
        let manifest = parsed(&blob(descriptor));
        let config = parsed(&blob(&manifest["config"]));
        assert_eq!(descriptor["platform"]["architecture"], program.architecture);
        assert_eq!((&config["architecture"], &config["os"]), (&json!(program.architecture), &json!("linux")));
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"], json!(["/usr/local/bin/baton-agent"]));
        for (key, value) in [("version", "1.2"), ("revision", "abc"), ("source", "z"), ("licenses", "Apache-2.0")] {
            let key = format!("org.opencontainers.image.{key}");
            assert_eq!(
                (&config["config"]["Labels"][&key], &manifest["annotations"][&key]),
                (&json!(value), &json!(value))
            );
        }
        let mut content = BTreeMap::new();
        for (layer, diff_id) in
            manifest["layers"].as_array().unwrap().iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap())
        {
            let mut tar = Vec::new();
            flate2::read::GzDecoder::new(&*blob(layer)).read_to_end(&mut tar).unwrap();
            assert_eq!(json!(digest(&tar)), *diff_id);
            content.extend(entries(&tar));
        }
        assert_eq!(content["usr/local/bin/baton-agent"], program.bytes);
        assert!(content["usr/share/zoneinfo/Europe/Berlin"].starts_with(b"TZif"));
        let roots = tokio_rustls::rustls::RootCertStore::empty()
            .add_parsable_certificates(certificates(&content["etc/ssl/certs/ca-certificates.crt"]));
        assert_eq!(roots, (webpki_root_certs::TLS_SERVER_ROOT_CERTS.len(), 0));
        seen.push(manifest);
    }
    let docker = &parsed(&files["manifest.json"])[0];
    assert_eq!(docker["RepoTags"], json!(["example.local/baton-agent:1.2"]));
    let named = |descriptor: &Value| format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"));
    assert_eq!(docker["Config"], named(&seen[0]["config"]));
    assert_eq!(docker["Layers"], json!(seen[0]["layers"].as_array().unwrap().iter().map(named).collect::<Vec<_>>()));
    assert_eq!(make(&args("example.local/baton-agent"), &programs).unwrap(), (tarball, image), "the same bytes again");
}

fn certificates(pem: &[u8]) -> Vec<tokio_rustls::rustls::pki_types::CertificateDer<'static>> {
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().unwrap()
}

#[test]
fn only_small_static_programs_become_images() {
    for (bytes, why) in [
        (b"#!/bin/sh".to_vec(), "no 64-bit ELF file"),
        (elf(40, 1, 0), "number 40, neither amd64 nor arm64"),
        (elf(62, 3, 0), "linked dynamically"),
        (elf(62, 1, 0)[..60].to_vec(), "damaged"),
        (elf(62, 1, 16 << 20), "16.0 MiB, and must have less than 16 MiB"),
    ] {
        let error = Program::of(bytes, 16).err().unwrap();
        assert!(error.to_string().contains(why), "{error:#}");
    }
    assert!(Program::of(elf(62, 1, (16 << 20) - 1), 16).is_ok());
    let programs = [Program::of(elf(62, 1, 0), 16).unwrap()];
    assert!(make(&args("example.local/web"), &programs).unwrap_err().to_string().contains("must end with"));
}

#[test]
fn materials_are_the_crates_that_go_in() {
    let component = |name: &str| json!({"bom-ref": format!("registry#{name}"), "name": name, "version": "1.0.0"});
    let document = json!({
        "metadata": {"component": {
            "bom-ref": "path+file:///a/b#baton", "name": "baton", "version": "0.1.0", "purl": "file://.", "components": [1],
        }},
        "components": [component("cel"), component("kube")],
        "dependencies": [
            {"ref": "path+file:///a/b#baton", "dependsOn": ["registry#cel", "registry#kube"]},
            {"ref": "registry#cel"},
            {"ref": "registry#kube", "dependsOn": ["registry#cel"]},
        ],
    });
    let of = |tree: &str| materials::of_program("baton-agent", &document.to_string(), tree, "rustc 1.95.0 (59807616e)");
    let expected = json!({
        "metadata": {"component": {
            "bom-ref": "baton-agent@0.1.0", "name": "baton-agent", "version": "0.1.0", "purl": "pkg:generic/baton-agent@0.1.0",
        }},
        "components": [component("kube"), {
            "bom-ref": "rust-std@1.95.0", "name": "rust-std", "version": "1.95.0", "type": "library", "scope": "required",
            "purl": "pkg:generic/rust-std@1.95.0",
            "description": "Rust's standard library for musl targets, with musl libc in it",
        }],
        "dependencies": [
            {"ref": "baton-agent@0.1.0", "dependsOn": ["registry#kube"]},
            {"ref": "registry#kube", "dependsOn": []},
        ],
    });
    assert_eq!(parsed(&of("baton v0.1.0 (/a/b)\nkube v1.0.0\nkube v1.0.0 (*)\n").unwrap()), expected);
    assert!(of("baton v0.1.0\nkube v2.0.0").unwrap_err().to_string().contains("2 crates go in, and 1 are described"));
}
