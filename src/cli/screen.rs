//! A terminal that is drawn anew in place; plain lines elsewhere.
use std::io::Write;

use anyhow::Result;
use console::{Term, truncate_str};

/// Standard output as a place to draw on.
pub(super) struct Screen {
    term: Term,
    drawn: usize,
}

impl Screen {
    pub fn new() -> Self {
        Self { term: Term::stdout(), drawn: 0 }
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
        let width = self.term.size().1;
        let fits = self.lines_max();
        let mut text = String::new();
        let shown: Vec<&str> = lines.iter().map(String::as_str).collect();
        let omitted = format!("… {} more lines: make the window higher", lines.len().saturating_sub(fits - 1));
        let shown = if lines.len() > fits { [&shown[..fits - 1], &[omitted.as_str()]].concat() } else { shown };
        for line in &shown {
            text.push_str(&truncate_str(line, usize::from(width), "…"));
            text.push('\n');
        }
        self.term.clear_last_lines(self.drawn)?;
        let mut out = anstream::stdout();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        self.drawn = shown.len();
        Ok(())
    }
}
