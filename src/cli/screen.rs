//! A terminal that is drawn anew in place; plain lines elsewhere.
use std::fmt::Write;

use anyhow::Result;
use console::{Term, strip_ansi_codes, truncate_str};

/// Standard output as a place to draw on.
pub(super) struct Screen {
    term: Term,
    in_color: bool,
    drawn: usize,
}

impl Screen {
    pub fn new() -> Self {
        // Where colours are not wanted, the cursor still moves.
        let in_color = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
        Self { term: Term::stdout(), in_color, drawn: 0 }
    }

    /// In-place drawing makes sense: somebody looks, and the cursor can be moved.
    pub fn is_terminal(&self) -> bool {
        self.term.is_term()
    }

    /// Columns; None where there is no terminal.
    pub fn width(&self) -> Option<usize> {
        self.is_terminal().then(|| usize::from(self.term.size().1))
    }

    /// Lines that can be drawn in place: the cursor needs one, and cannot go back above the upper edge.
    pub fn lines_max(&self) -> usize {
        usize::from(self.term.size().0).saturating_sub(1).max(1)
    }

    /// Replaces what was drawn last. What does not fit is left out.
    pub fn draw(&mut self, lines: &[String]) -> Result<()> {
        let width = usize::from(self.term.size().1);
        let fits = self.lines_max();
        let shown: Vec<&str> = lines.iter().map(String::as_str).collect();
        let omitted = format!("… {} more lines: make the window higher", lines.len().saturating_sub(fits - 1));
        let shown = if lines.len() > fits { [&shown[..fits - 1], &[omitted.as_str()]].concat() } else { shown };
        // One write, each line over the old one: nothing flickers.
        let mut text = if self.drawn > 0 { format!("\x1b[{}A\r", self.drawn) } else { String::new() };
        for line in &shown {
            let line = truncate_str(line, width, "…");
            let line = if self.in_color { line } else { strip_ansi_codes(&line).into_owned().into() };
            let _ = writeln!(text, "{line}\x1b[K");
        }
        text.push_str("\x1b[J");
        self.term.write_str(&text)?;
        self.drawn = shown.len();
        Ok(())
    }
}
