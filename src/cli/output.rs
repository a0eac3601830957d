//! `-o`: other forms of what is shown.
use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Wide,
    Json,
    Yaml,
    Name,
}

impl Output {
    /// Prints it as JSON where that is asked for, else as YAML.
    pub fn print(self, object: &impl Serialize) -> Result<()> {
        let text = match self {
            Self::Json => serde_json::to_string_pretty(object)?,
            _ => serde_saphyr::to_string(object)?,
        };
        anstream::println!("{text}");
        Ok(())
    }
}
