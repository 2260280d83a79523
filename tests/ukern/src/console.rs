//! The console: everything the kernel prints, line by line.

use crate::global::Global;

#[derive(Default)]
struct Console {
    lines: Vec<String>,
    partial: String,
    echo: bool,
}

static CONSOLE: Global<Console> = Global::new("console");

pub(crate) fn boot(echo: bool) {
    CONSOLE.init(Console {
        echo,
        ..Console::default()
    });
}

pub(crate) fn shutdown() {
    CONSOLE.take();
}

/// Appends text; a newline ends a line.
pub fn write(text: &str) {
    CONSOLE.with(|c| {
        if c.echo {
            eprint!("{text}");
        }
        for ch in text.chars() {
            if ch == '\n' {
                c.lines.push(std::mem::take(&mut c.partial));
            } else {
                c.partial.push(ch);
            }
        }
    });
}

/// Every finished line since boot.
#[must_use]
pub fn lines() -> Vec<String> {
    CONSOLE.with(|c| c.lines.clone())
}
