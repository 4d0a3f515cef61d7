//! Standard output, whose reader may leave before the end (`penstock model list | head -1`).

use core::fmt;
use std::{
    io::{self, ErrorKind, Write},
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether something could not be written although somebody wants it: a full disk, say.
static FAILED: AtomicBool = AtomicBool::new(false);

/// Writes a line to standard output, as `println!` does; but a reader who has gone is no fault.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::output::line(format_args!($($text)*))
    };
}

/// What `say!` does.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let Err(error) = writeln!(io::stdout().lock(), "{text}") else { return };
    if error.kind() != ErrorKind::BrokenPipe && !FAILED.swap(true, Ordering::Relaxed) {
        eprintln!("penstock: standard output: {error}");
    }
}

/// Whether all that was said has been written, as far as anybody reads it.
pub(crate) fn complete() -> bool {
    !FAILED.load(Ordering::Relaxed)
}
