//! The tables, as Markdown.

use anyhow::Result;

use crate::cases::Case;
use crate::timing::Measured;
use crate::{Runtime, Threads};

pub struct Row {
    model: String,
    batch: usize,
    results: Vec<(Runtime, Result<Measured>)>,
}

impl Row {
    pub fn new(case: &Case) -> Self {
        Self { model: case.model.clone(), batch: case.batch, results: Vec::new() }
    }

    /// Adds a result, or the better of it and an earlier one.
    pub fn add(&mut self, runtime: Runtime, result: Result<Measured>) {
        match (self.results.iter_mut().find(|(other, _)| *other == runtime), result) {
            (None, result) => self.results.push((runtime, result)),
            (Some((_, Ok(best))), Ok(result)) => {
                best.min_ns = best.min_ns.min(result.min_ns);
                best.median_ns = best.median_ns.min(result.median_ns);
                best.runs += result.runs;
            }
            (Some(_), Err(_)) => {}
            (Some((_, slot)), result) => *slot = result,
        }
    }

    fn get(&self, runtime: Runtime) -> Option<&Measured> {
        self.results.iter().find(|(other, _)| *other == runtime)?.1.as_ref().ok()
    }
}

/// One line for each row, with the best and the median time of each runtime, and how many times those of each other
/// runtime the best time of ours is.
pub fn print_table(runtimes: &[Runtime], rows: &[Row]) {
    let compared = |runtime: Runtime| runtime != Runtime::Ours && runtimes.contains(&Runtime::Ours);
    let mut heads = vec!["model".to_owned(), "batch".to_owned()];
    for runtime in runtimes {
        heads.push(runtime.name());
        if compared(*runtime) {
            heads.push(format!("ours/{}", runtime.name()));
        }
    }
    println!("| {} |", heads.join(" | "));
    println!("|---|{}", "--:|".repeat(heads.len() - 1));
    for row in rows {
        let mut cells = vec![row.model.clone(), row.batch.to_string()];
        for runtime in runtimes {
            let measured = row.get(*runtime);
            cells.push(measured.map_or_else(String::new, |m| format!("{} ({})", time(m.min_ns), time(m.median_ns))));
            if compared(*runtime) {
                let ratio = row.get(Runtime::Ours).zip(measured).map(|(ours, m)| ours.min_ns as f64 / m.min_ns as f64);
                cells.push(ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")));
            }
        }
        println!("| {} |", cells.join(" | "));
    }
}

/// Three digits of a time.
fn time(nanoseconds: u64) -> String {
    let micros = nanoseconds as f64 / 1e3;
    let (number, unit) = if micros < 1000.0 { (micros, "µs") } else { (micros / 1e3, "ms") };
    let digits = if number < 10.0 { 2 } else if number < 100.0 { 1 } else { 0 };
    format!("{number:.digits$} {unit}")
}

/// What could not be run, and answers that are not those of ours.
pub fn print_notes(tables: &[(Threads, Vec<Row>)]) {
    println!();
    let mut notes = Vec::new();
    for row in tables.iter().flat_map(|(_, rows)| rows) {
        for (runtime, result) in &row.results {
            let at = format!("{} with batch {} on {}", row.model, row.batch, runtime.name());
            match (result, row.get(Runtime::Ours)) {
                (Err(error), _) => {
                    let text: String = error.to_string().chars().take(300).collect();
                    notes.push(format!("- {at}: {text}"));
                }
                (Ok(measured), Some(ours)) => {
                    let difference = difference(&ours.output, &measured.output);
                    if difference > 1e-3 {
                        notes.push(format!("- {at}: the answer differs from ours by {difference:.1e} of its largest element"));
                    }
                }
                (Ok(_), None) => {}
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    notes.iter().filter(|note| seen.insert(*note)).for_each(|note| println!("{note}"));
}

fn difference(ours: &[f32], other: &[f32]) -> f32 {
    if ours.len() != other.len() {
        return f32::INFINITY;
    }
    let largest = ours.iter().fold(f32::MIN_POSITIVE, |max, x| max.max(x.abs()));
    ours.iter().zip(other).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max)
}
