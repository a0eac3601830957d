//! How a container ended, and what it said last.
use std::borrow::Cow;

use k8s_openapi::api::core::v1::ContainerStateTerminated;

/// Characters of what a container said last: enough for a sentence and the line before it.
pub const MESSAGE_CHARS_MAX: usize = 400;
/// Between two lines of it.
const NEW_LINE: &str = " | ";

/// The end of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Such as Error or Completed.
    pub reason: String,
    /// Exit code.
    pub code: i32,
    /// The end of its termination message, in one line that is safe to print; empty where it has none.
    pub message: String,
}

impl Exit {
    /// Of a `terminated` state.
    pub fn of(state: ContainerStateTerminated) -> Self {
        let ContainerStateTerminated { reason, exit_code, message, .. } = state;
        Self {
            reason: reason.unwrap_or_default(),
            code: exit_code,
            message: presentable(message.as_deref().unwrap_or_default()),
        }
    }
}

/// `Error, exit code 3: FATAL cannot read /etc/shop.conf`.
impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { reason, code, message } = self;
        write!(f, "{reason}, exit code {code}")?;
        if message.is_empty() { Ok(()) } else { write!(f, ": {message}") }
    }
}

/// The end of a text that a program has written: a program tells its reason last.
fn presentable(text: &str) -> String {
    let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    let escaped: Vec<String> = lines.map(|line| line.chars().map(escaped).collect()).collect();
    let whole = escaped.join(NEW_LINE);
    match whole.chars().count().checked_sub(MESSAGE_CHARS_MAX) {
        None | Some(0) => whole,
        Some(more) => ['…'].into_iter().chain(whole.chars().skip(more + 1)).collect(),
    }
}

/// The text in one line of what can be shown: what others have written goes through here before it stands in a status or an Event.
pub fn on_one_line(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| !is_command(c)) {
        return text.into();
    }
    text.chars().map(|c| if matches!(c, '\n' | '\r') { " ".into() } else { escaped(c) }).collect::<String>().into()
}

/// It moves a terminal's cursor, colours it, or turns the order of characters round.
fn is_command(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What moves a terminal's cursor, colours it, or turns the order of characters round is shown by its number.
fn escaped(c: char) -> String {
    match c {
        '\t' => " ".into(),
        c if is_command(c) => c.escape_unicode().collect(),
        c => c.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F11
    #[test]
    fn what_others_wrote_is_one_line_that_commands_no_terminal() {
        assert_eq!(on_one_line("ready"), "ready");
        assert_eq!(on_one_line("a\nb\r\tc\u{1b}]0;x\u{7}\u{202e}"), "a b  c\\u{1b}]0;x\\u{7}\\u{202e}");
    }

    fn said(message: &str) -> String {
        let state = ContainerStateTerminated {
            reason: Some("Error".into()),
            exit_code: 3,
            message: Some(message.into()),
            ..ContainerStateTerminated::default()
        };
        Exit::of(state).to_string()
    }

    #[test]
    fn an_exit_says_what_the_program_said_last() {
        assert_eq!(said(""), "Error, exit code 3");
        assert_eq!(said(" \n"), "Error, exit code 3");
        assert_eq!(said("FATAL cannot read /etc/shop.conf\n"), "Error, exit code 3: FATAL cannot read /etc/shop.conf");
        assert_eq!(said("one\r\n\n\ttwo\tthree\n"), "Error, exit code 3: one | two three");
    }

    #[test]
    fn what_would_change_a_terminal_is_shown_by_its_number() {
        assert_eq!(presentable("\u{1b}[31mred\u{7f}"), r"\u{1b}[31mred\u{7f}");
        assert_eq!(presentable("a\u{202e}b\u{0}\u{9b}é原"), r"a\u{202e}b\u{0}\u{9b}é原");
    }

    #[test]
    fn of_a_long_message_the_end_is_kept() {
        let long = format!("{}the reason", "é\n".repeat(5_000));
        let kept = presentable(&long);
        assert_eq!(kept.chars().count(), MESSAGE_CHARS_MAX);
        assert!(kept.starts_with('…') && kept.ends_with("é | the reason"), "{kept}");
        let fits = "x".repeat(MESSAGE_CHARS_MAX);
        assert_eq!(presentable(&fits), fits);
    }
}
