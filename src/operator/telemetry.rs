//! Logs: one line a transition, as text or JSON, to standard error.
use std::io::{self, IsTerminal, Write};

use tracing_subscriber::{EnvFilter, fmt};

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object on each line.
    Json,
}

/// Starts logging. `RUST_LOG` sets what is shown; without it, `level`.
///
/// # Errors
/// When logging has been started already.
pub fn start(format: LogFormat, level: &str) -> anyhow::Result<()> {
    // The client logs each failed request as an error; whether it is one, the caller knows, and says so.
    let filter =
        EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new(format!("kube_client=off,{level}")))?;
    let is_styled = format == LogFormat::Text && io::stderr().is_terminal();
    let writer = move || OneLine { to: io::stderr(), is_styled };
    let log = fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    let started = match format {
        LogFormat::Text => log.with_ansi(is_styled).try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

/// Writes each record as one line: the text of others begins no line of the log.
struct OneLine<W> {
    to: W,
    /// Escape sequences are our own, but for what is quoted by `%`.
    is_styled: bool,
}

impl<W: Write> Write for OneLine<W> {
    /// One record, as the formatter hands it over: whole, with the end of its line.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = record.strip_suffix(b"\n").unwrap_or(record);
        let is_kept = |byte: u8| !byte.is_ascii_control() || byte == b'\t' || (byte == 0x1b && self.is_styled);
        let mut line = Vec::with_capacity(record.len());
        for byte in text {
            if is_kept(*byte) {
                line.push(*byte);
            } else {
                line.extend(byte.escape_ascii());
            }
        }
        line.extend(&record[text.len()..]);
        self.to.write_all(&line)?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// F11: one record, one line, in both forms.
    #[test]
    fn no_text_begins_a_line_of_the_log() {
        let (text, json) = (Sink::default(), Sink::default());
        let says = || {
            let forged = "no list:\n2026-01-01T00:00:00Z INFO took the lock\r\u{1b}[2K";
            tracing::warn!(reason = forged, shown = %forged, "{forged}");
            tracing::info!("second");
        };
        let (sink, other) = (text.clone(), json.clone());
        let format =
            fmt().with_ansi(false).with_writer(move || OneLine { to: sink.clone(), is_styled: false }).finish();
        tracing::subscriber::with_default(format, says);
        let format = fmt().json().with_writer(move || OneLine { to: other.clone(), is_styled: false }).finish();
        tracing::subscriber::with_default(format, says);
        for sink in [text, json] {
            let log = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
            assert_eq!(log.lines().count(), 2, "{log}");
            assert!(!log.contains(['\r', '\u{1b}']), "{log}");
        }
    }
}
